"""Values that are joined are clipped alike, and no others."""

from __future__ import annotations

import pytest
from onnx import numpy_helper

from sr_export import photos
from sr_export.quantize.placement import layers
from sr_export.quantize.quantizer import Quantizer, share_thresholds
from tests.sr_export.quantize.nets import Net


@pytest.mark.parametrize("nested", [False, True])
def test_a_dense_block_has_one_threshold(nested: bool) -> None:
    """Its convolutions read a; a and b; a, b and c. What follows the block has its own."""
    net = Net(8).conv(8).add("Relu")
    first = net.value
    net.conv(8).add("Relu")
    second = net.value
    net.join("Concat", first, axis=1)
    both = net.value
    net.back_to(both, 16).conv(8).add("Relu").join("Concat", both if nested else second, axis=1)
    if not nested:
        net.join("Concat", first, axis=1)
    every = net.value
    net.back_to(every, 24).conv(8).add("Relu")
    last = net.value
    model = net.conv(8).model()
    thresholds = {"input": 1.0, first: 2.0, both: 5.0, every: 3.0, last: 4.0}
    assert [each.input for each in layers(model)] == list(thresholds)
    expected = {"input": 1.0, first: 5.0, both: 5.0, every: 5.0, last: 4.0}
    assert share_thresholds(model, thresholds) == expected


def test_joins_without_common_parts_keep_their_thresholds() -> None:
    net = Net(8).add("Relu").add("Abs").join("Concat", "relu_0", axis=1)
    net.back_to("concat_2", 16).conv(8).add("Sigmoid").add("Relu").join(
        "Concat", "sigmoid_4", axis=1
    )
    model = net.back_to("concat_6", 16).conv(8).model()
    thresholds = {"concat_2": 1.0, "concat_6": 2.0}
    assert share_thresholds(model, thresholds) == thresholds


def test_what_is_joined_for_no_layer_or_along_other_axes_keeps_its_threshold() -> None:
    net = Net(8).conv(8).add("Relu")
    net.conv(8).join("Concat", "relu_1", axis=1).add("Sigmoid")
    net.back_to("relu_1", 8).join("Concat", "input", axis=2).conv(8)
    model = net.model()
    thresholds = {"input": 1.0, "relu_1": 2.0, "concat_5": 3.0}
    assert [each.input for each in layers(model)] == list(thresholds)
    assert share_thresholds(model, thresholds) == thresholds


def test_the_exporter_quantises_joined_values_alike() -> None:
    net = Net().conv(8).add("Relu")
    net.conv(8).join("Concat", "relu_1", axis=1).back_to("concat_3", 16).conv(3)
    quantizer = Quantizer(net.model(), photos.batch(2, 32, 32, 3), "percentile", lambda _: None)
    graph = quantizer.quantize(quantizer.layers, fitted=False).graph
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    scales = {
        node.input[0]: float(constants[node.input[1]])
        for node in graph.node
        if node.op_type == "QuantizeLinear" and node.input[0] not in constants
    }
    assert scales["relu_1"] == scales["concat_3_held"] != scales[quantizer.layers[0].input]
