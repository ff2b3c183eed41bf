"""Equalising changes no output, and brings the ranges of channels together."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from sr_export import photos
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.quantize.activations import channel_ranges
from sr_export.quantize.equalize import equalize
from sr_export.quantize.placement import layers
from tests.sr_export.quantize.nets import Net

TILES = list(photos.batch(2, 32, 32, 3))


def _wild(model: onnx.ModelProto, weights: str) -> onnx.ModelProto:
    """Make the channels of a convolution's output a thousand times apart."""
    for constant in model.graph.initializer:
        if constant.name == weights:
            values = numpy_helper.to_array(constant)
            factors = np.geomspace(0.03, 30, len(values)).astype(np.float32)
            values = values * factors.reshape(-1, 1, 1, 1)
            constant.CopyFrom(numpy_helper.from_array(values, weights))
    return model


def _chain(activation: str | None) -> Net:
    net = Net().conv(8)
    if activation == "PRelu":
        net.prelu()
    elif activation is not None:
        net.add(activation)
    return net.conv(3)


def _spread(model: onnx.ModelProto) -> float:
    """Largest over smallest range of the channels that the second convolution reads."""
    (ranges,) = channel_ranges(model, [layers(model)[1].input], TILES).values()
    return float(ranges.max() / ranges.min())


@pytest.mark.parametrize("activation", [None, "Relu", "LeakyRelu", "PRelu"])
def test_same_output_and_like_ranges(activation: str | None) -> None:
    model = _wild(_chain(activation).model(), "conv_0_constant_0")
    result = equalize(model, layers(model), TILES)
    image = photos.as_float(photos.batch(1, 40, 40, 3))
    expected = OnnxRunner(model)(image)
    # Rounding in float32 is all that may differ.
    np.testing.assert_allclose(
        OnnxRunner(result)(image), expected, atol=1e-5 * np.abs(expected).max()
    )
    assert _spread(result) < _spread(model) / 10


def _read_twice() -> Net:
    net = Net().conv(8).add("Relu").conv(3)
    return net.back_to("relu_1", 8).conv(3).join("Add", "conv_2")


@pytest.mark.parametrize(
    "net",
    [_chain("Sigmoid"), _chain("Tanh"), _read_twice(), Net().conv(9).conv(9, group=3).conv(3)],
    ids=["sigmoid", "tanh", "read-twice", "grouped"],
)
def test_what_cannot_be_equalised_is_left_alone(net: Net) -> None:
    model = net.model()
    result = equalize(model, layers(model), TILES)
    before = {each.name: each for each in model.graph.initializer}
    for each in result.graph.initializer:
        assert each == before[each.name]


def test_only_layers_that_are_asked_for() -> None:
    model = _wild(_chain("Relu").model(), "conv_0_constant_0")
    result = equalize(model, layers(model)[:1], TILES)
    assert _spread(result) == pytest.approx(_spread(model))


def test_dead_channels_do_no_harm() -> None:
    model = _chain("Relu").model()
    for constant in model.graph.initializer:
        if constant.name == "conv_0_constant_0":
            values = numpy_helper.to_array(constant).copy()
            values[2] = 0
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    result = equalize(model, layers(model), TILES)
    image = photos.as_float(photos.batch(1, 40, 40, 3))
    np.testing.assert_allclose(OnnxRunner(result)(image), OnnxRunner(model)(image), atol=1e-5)


@pytest.mark.parametrize("dead", ["conv_0_constant_0", "conv_2_constant_0"])
def test_a_layer_that_gives_nothing_stays_as_it_is(dead: str) -> None:
    """As a channel attention can be whose few features never pass their ReLU."""
    model = _chain("Relu").model()
    weights = next(each for each in model.graph.initializer if each.name == dead)
    nothing = np.zeros(tuple(weights.dims), np.float32)
    weights.CopyFrom(numpy_helper.from_array(nothing, dead))
    result = equalize(model, layers(model), TILES)
    for each in result.graph.initializer:
        assert np.isfinite(numpy_helper.to_array(each)).all()
    image = photos.as_float(photos.batch(1, 40, 40, 3))
    np.testing.assert_array_equal(OnnxRunner(result)(image), OnnxRunner(model)(image))
