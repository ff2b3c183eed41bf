"""Layers that were trained in INT8 are found in the exported graph, or refused."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint import int8_record
from sr_export.checkpoint.int8_record import Trained
from sr_export.quantize import placement, qat
from tests.sr_export.quantize.nets import Net


def test_weights_are_matched_by_value() -> None:
    convolutions = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Conv2d(4, 4, 3)]
    for layer in convolutions[1:]:
        nn.init.zeros_(layer.weight)
    module = nn.Sequential(*convolutions)
    tensors = {f"old.{name}": each.detach().clone() for name, each in module.named_parameters()}
    found = qat.names(module, tensors)
    assert found["old.0.weight"] == "0.weight"
    assert "old.1.weight" not in found  # equal to another weight


def _weights(model: onnx.ModelProto) -> dict[str, str]:
    return {each.input[1]: each.input[1] for each in model.graph.node if each.op_type == "Conv"}


def _as_is(model: onnx.ModelProto, name: str, threshold: float = 1.0) -> Trained:
    """Round a graph's weight to the exporter's levels; return the record of it."""
    constant = next(each for each in model.graph.initializer if each.name == name)
    weights = numpy_helper.to_array(constant)
    found = Trained(threshold, 0, torch.from_numpy(placement.weight_scales(weights, 0)))
    rounded = found.on_levels(torch.tensor(weights)).numpy()
    constant.CopyFrom(numpy_helper.from_array(rounded, name))
    return found


def test_thresholds_by_input_value() -> None:
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
    with pytest.raises(CheckpointError, match=depthwise):
        qat.placed(model, _weights(model), {depthwise: _as_is(model, depthwise)})


def test_the_centered_image_is_the_input_of_the_graph() -> None:
    model = Net().conv(8).prelu().conv(3).model()
    first, second = _weights(model)
    found = replace(_as_is(model, first, int8_record.IMAGE_THRESHOLD), centred=True)
    placed = qat.placed(model, _weights(model), {first: found})
    assert placed.model.graph.node[0].op_type == "Sub"
    assert placed.thresholds.keys() == {placed.layers[0].input} == {"conv_0_image_padded"}
    elsewhere = replace(_as_is(model, second, int8_record.IMAGE_THRESHOLD), centred=True)
    with pytest.raises(CheckpointError, match=second):
        qat.placed(model, _weights(model), {second: elsewhere})


def test_weights_off_their_levels_are_refused() -> None:
    """For example after folding batch norm into them."""
    model = Net().conv(8).model()
    (name,) = _weights(model)
    found = _as_is(model, name)
    other = replace(found, scales=1.5 * found.scales)
    for wrong in (other, replace(found, axis=1)):
        with pytest.raises(CheckpointError, match=name):
            qat.placed(model, _weights(model), {name: wrong})


def test_two_thresholds_for_one_value_are_refused() -> None:
    net = Net().conv(8)
    shared = net.value
    net.conv(3)
    branch = net.value
    model = net.back_to(shared, 8).conv(3).join("Add", branch).model()
    _, second, third = _weights(model)
    found = {second: _as_is(model, second, 1.0), third: _as_is(model, third, 2.0)}
    with pytest.raises(CheckpointError, match=r"\b1\b.*\b2\b|\b2\b.*\b1\b"):
        qat.placed(model, _weights(model), found)
