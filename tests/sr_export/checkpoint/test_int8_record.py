"""What a checkpoint says of INT8 is taken as it is, or refused in plain words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint import int8_record, load
from sr_export.checkpoint.int8_record import Trained
from sr_export.quantize import placement, qat
from tests.sr_export.quantize.nets import Net

TENSORS = {"conv.weight": torch.rand(8, 3, 3, 3), "conv.bias": torch.rand(8)}
GOOD = {"threshold": 1.0, "axis": 0, "scales": torch.full((8,), 2.0**-6)}


def test_a_checkpoint_without_a_record_has_none() -> None:
    assert int8_record.read({"params": TENSORS}, TENSORS) == {}
    assert int8_record.read(list(TENSORS.values()), TENSORS) == {}


def test_a_record_comes_back() -> None:
    record = int8_record.record({"conv.weight": Trained(1.5, 1, torch.full((3,), 2.0**-7), True)})
    found = int8_record.read({int8_record.KEY: record}, TENSORS)["conv.weight"]
    assert (found.threshold, found.axis, found.scales.tolist()) == (1.5, 1, 3 * [2.0**-7])
    assert found.centred
    assert found.broadcast(4).shape == (1, 3, 1, 1)


def test_a_record_need_not_say_that_it_is_not_of_the_image() -> None:
    assert not int8_record.read({int8_record.KEY: {"conv.weight": GOOD}}, TENSORS)[
        "conv.weight"
    ].centred


def test_scales_are_as_half_precision_has_them() -> None:
    record = {"conv.weight": GOOD | {"scales": torch.full((8,), 0.01)}}
    found = int8_record.read({int8_record.KEY: record}, TENSORS)["conv.weight"].scales
    assert torch.equal(found, found.half().float())
    assert (found - 0.01).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("record", "text"),
    [
        ([], "holds a list, where there should be a record"),
        ({}, "holds a dict, where there should be a record"),
        (True, "holds True, where"),
        ({"other.weight": GOOD}, "names 'other.weight', which is not among the 2 weights"),
        ({7: GOOD}, "names 7, which"),
        ({"conv.bias": GOOD}, "is not the weight of a convolution"),
        ({"conv.weight": 1.0}, "holds 1.0 for 'conv.weight', where"),
        ({"conv.weight": {"threshold": 1.0, "axis": 0}}, "holds a dict for 'conv.weight'"),
        ({"conv.weight": GOOD | {"more": 1}}, "holds a dict for 'conv.weight'"),
        ({"conv.weight": GOOD | {"threshold": float("nan")}}, "the threshold nan"),
        ({"conv.weight": GOOD | {"threshold": float("inf")}}, "the threshold inf"),
        ({"conv.weight": GOOD | {"threshold": 0}}, "the threshold 0 "),
        ({"conv.weight": GOOD | {"threshold": -1.0}}, "the threshold -1.0"),
        ({"conv.weight": GOOD | {"threshold": 1e9}}, "65504 at most"),
        ({"conv.weight": GOOD | {"threshold": torch.ones(1)}}, "the threshold a tensor of"),
        ({"conv.weight": GOOD | {"axis": 2}}, "the axis 2 "),
        ({"conv.weight": GOOD | {"axis": True}}, "the axis True"),
        ({"conv.weight": GOOD | {"axis": "0" * 999}}, "the axis '0000"),
        ({"conv.weight": GOOD | {"axis": 1}}, r"a tensor of \(8,\) as the scales .* of 3 numbers"),
        ({"conv.weight": GOOD | {"centred": 1}}, "that centred is 1; it is True or False"),
        ({"conv.weight": GOOD | {"centred": True, "threshold": 0.4}}, "clips the image, which"),
        ({"conv.weight": GOOD | {"scales": 1.0}}, "1.0 as the scales of 'conv.weight'"),
        ({"conv.weight": GOOD | {"scales": torch.zeros(8)}}, "half precision does not hold"),
        ({"conv.weight": GOOD | {"scales": torch.full((8,), 1e6)}}, "does not hold"),
        ({"conv.weight": GOOD | {"scales": torch.full((8,), torch.nan)}}, "does not hold"),
    ],
)
def test_a_record_that_does_not_fit_is_refused(record: Any, text: str) -> None:
    with pytest.raises(CheckpointError, match=text) as caught:
        int8_record.read({int8_record.KEY: record}, TENSORS)
    assert len(str(caught.value)) < 300


def test_a_checkpoint_is_read_with_its_weights_on_their_levels(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"params": TENSORS, int8_record.KEY: {"conv.weight": GOOD}}, path)
    content = load.read(path)
    assert isinstance(content, load.Weights)
    assert content.trained.keys() == {"conv.weight"}
    assert content.taken == "params (of params, int8)"  # the scales are no network of their own
    assert torch.equal(content.tensors["conv.bias"], TENSORS["conv.bias"])
    levels = content.tensors["conv.weight"] * 2**6
    assert torch.equal(levels, levels.round())
    assert 0 < (content.tensors["conv.weight"] - TENSORS["conv.weight"]).abs().max() <= 2**-7


def test_weights_are_known_by_their_values() -> None:
    convolutions = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)]
    for layer in convolutions[1:]:
        nn.init.zeros_(layer.weight)
    module = nn.Sequential(*convolutions)
    tensors = {f"old.{name}": each.detach().clone() for name, each in module.named_parameters()}
    found = qat.names(module, tensors)
    assert found["old.0.weight"] == "0.weight"
    assert "old.1.weight" not in found  # as zero as the other


def _weights(model: onnx.ModelProto) -> dict[str, str]:
    return {each.input[1]: each.input[1] for each in model.graph.node if each.op_type == "Conv"}


def _as_is(model: onnx.ModelProto, name: str, threshold: float = 1.0) -> Trained:
    """A record of a weight of a graph, with the exporter's own levels; puts it onto them."""
    constant = next(each for each in model.graph.initializer if each.name == name)
    weights = numpy_helper.to_array(constant)
    found = Trained(threshold, 0, torch.from_numpy(placement.weight_scales(weights, 0)))
    held = found.on_levels(torch.tensor(weights)).numpy()
    constant.CopyFrom(numpy_helper.from_array(held, name))
    return found


def test_placed_by_the_values_that_layers_read() -> None:
    model = Net().conv(8).prelu().conv(3).model()
    first, second = _weights(model)
    placed = qat.placed(model, _weights(model), {second: _as_is(model, second, 2.0)})
    assert [each.name for each in placed.layers] == ["conv_2"]
    assert placed.thresholds == {"prelu_1": 2.0}
    both = {name: _as_is(model, name) for name in (first, second)}
    assert len(qat.placed(model, _weights(model), both).layers) == 2


def test_a_layer_that_cannot_compute_in_int8_is_refused() -> None:
    model = Net().conv(8).conv(8, group=8).model()
    _, depthwise = _weights(model)
    with pytest.raises(CheckpointError, match="not the weight of just one convolution"):
        qat.placed(model, _weights(model), {depthwise: _as_is(model, depthwise)})


def test_the_image_around_grey_is_that_of_the_graph() -> None:
    model = Net().conv(8).prelu().conv(3).model()
    first, second = _weights(model)
    found = replace(_as_is(model, first, int8_record.IMAGE_THRESHOLD), centred=True)
    placed = qat.placed(model, _weights(model), {first: found})
    assert placed.model.graph.node[0].op_type == "Sub"
    assert placed.thresholds.keys() == {placed.layers[0].input} == {"conv_0_image_padded"}
    elsewhere = replace(_as_is(model, second, int8_record.IMAGE_THRESHOLD), centred=True)
    with pytest.raises(CheckpointError, match="which in the exported graph is not the image"):
        qat.placed(model, _weights(model), {second: elsewhere})


def test_weights_off_their_levels_are_refused() -> None:
    """Such as those that a normalisation was folded into after training."""
    model = Net().conv(8).model()
    (name,) = _weights(model)
    found = _as_is(model, name)
    other = replace(found, scales=1.5 * found.scales)
    for wrong in (other, replace(found, axis=1)):
        with pytest.raises(CheckpointError, match="are not those of its weight in the exported"):
            qat.placed(model, _weights(model), {name: wrong})


def test_two_thresholds_for_one_value_are_refused() -> None:
    net = Net().conv(8)
    shared = net.value
    net.conv(3)
    branch = net.value
    model = net.back_to(shared, 8).conv(3).join("Add", branch).model()
    _, second, third = _weights(model)
    found = {second: _as_is(model, second, 1.0), third: _as_is(model, third, 2.0)}
    with pytest.raises(CheckpointError, match="for another layer that reads the same"):
        qat.placed(model, _weights(model), found)
