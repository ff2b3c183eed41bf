"""Weights fitted to what they meet: on the levels of INT8, and closer to the exact output."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from sr_export import photos
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.metrics import psnr
from sr_export.quantize import placement
from sr_export.quantize.activations import channel_ranges
from sr_export.quantize.rounding import optimize_rounding
from tests.sr_export.quantize.nets import Net

TILES = list(photos.batch(4, 64, 64, 3))


def _quiet(_: str) -> None:
    pass


def _net(stride: int = 1) -> onnx.ModelProto:
    """Three convolutions; in the second, one large weight makes coarse levels for all others."""
    net = Net().conv(12)
    weights = net._weights((12, 12, 3, 3), 1.0, 108)
    weights[:, 0, 0, 0] *= 30
    net.add("Conv", weights, pads=[1] * 4, strides=[stride] * 2)  # without a bias
    return net.conv(3).model()


@pytest.mark.parametrize("stride", [1, 2])
def test_closer_than_the_nearest_levels(stride: int) -> None:
    model = _net(stride)
    found = placement.layers(model)
    ranges = channel_ranges(model, [each.input for each in found], TILES)
    thresholds = {name: float(each.max()) for name, each in ranges.items()}
    fitted = optimize_rounding(model, found, thresholds, TILES, _quiet)
    assert set(fitted) == {each.name for each in found}
    # A photo that was not fitted to, in which rounding the inputs counts as well.
    image = photos.as_float(photos.batch(1, 96, 96, 3)[:, ::-1].copy())
    exact = OnnxRunner(model)(image)
    nearest, better = (
        psnr(exact, OnnxRunner(placement.quantize(model, found[1:2], thresholds, each))(image), 1.0)
        for each in (None, fitted)
    )
    assert better > nearest + 2


def test_weights_are_on_their_levels() -> None:
    model = _net()
    found = placement.layers(model)
    fitted = optimize_rounding(
        model, found, dict.fromkeys(("input", "conv_0", "conv_1"), 2.0), TILES, _quiet
    )
    for each in fitted.values():
        levels = each.weights / each.scales.reshape(-1, 1, 1, 1)
        np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
        assert np.abs(levels).max() <= 127.001


def test_progress_names_every_layer() -> None:
    told: list[str] = []
    model = _net()
    optimize_rounding(
        model,
        placement.layers(model),
        dict.fromkeys(("input", "conv_0", "conv_1"), 2.0),
        TILES,
        told.append,
    )
    assert told == [f"optimizing rounding: layer {i} of 3" for i in (1, 2, 3)]


def test_later_layers_make_up_for_earlier_ones() -> None:
    model = Net().conv(12).prelu().conv(12).prelu().conv(12).prelu().conv(3).model()
    found = placement.layers(model)
    ranges = channel_ranges(model, [each.input for each in found], TILES)
    # The first layers lose the largest values.
    parts = dict(zip((each.input for each in found), (0.7, 0.7, 1.0, 1.0), strict=True))
    thresholds = {name: float(each.max()) * parts[name] for name, each in ranges.items()}
    together = optimize_rounding(model, found, thresholds, TILES, _quiet)
    alone: dict[str, placement.FittedWeights] = {}
    for layer in found:
        alone |= optimize_rounding(model, [layer], thresholds, TILES, _quiet)
    # Photos that were not fitted to, and each of them gains: 0.1 to 0.5 dB.
    for image in photos.as_float(photos.batch(3, 96, 96, 3)[:, ::-1].copy()):
        exact = OnnxRunner(model)(image[None])
        better, worse = (
            psnr(
                exact,
                OnnxRunner(placement.quantize(model, found, thresholds, each))(image[None]),
                1.0,
            )
            for each in (together, alone)
        )
        assert better > worse + 0.05


def test_every_image_of_a_batch_counts() -> None:
    model = _net()
    found = placement.layers(model)
    thresholds = dict.fromkeys(("input", "conv_0", "conv_1"), 2.0)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    same, other = (
        optimize_rounding(model, found, thresholds, [TILES[0], second], _quiet)
        for second in TILES[:2]
    )
    assert np.abs(same["conv_0"].bias - other["conv_0"].bias).max() > 0


def test_grouped_dilated_transposed_and_shared_weights_stay() -> None:
    net = Net().conv(8).conv(8, group=2).transposed(8)
    net.add("Conv", net._weights((8, 8, 3, 3), 1.0, 72), pads=[2] * 4, dilations=[2, 2])
    model = net.model()
    found = placement.layers(model)
    thresholds = {each.input: 2.0 for each in found}
    assert set(optimize_rounding(model, found, thresholds, TILES[:1], _quiet)) == {"conv_0"}


def test_two_layers_with_the_same_weights_stay() -> None:
    net = Net(8).conv(8)
    node = onnx.NodeProto()
    node.CopyFrom(net._nodes[0])
    node.name, node.input[0], node.output[0] = "again", "conv_0", "again"
    net._nodes.append(node)
    model = net.model()
    found = placement.layers(model)
    tiles = [np.zeros((16, 16, 8), np.uint8)]
    assert optimize_rounding(model, found, {"input": 1.0, "conv_0": 1.0}, tiles, _quiet) == {}
