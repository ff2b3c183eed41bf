"""Convolutions after a pixel shuffle, written for blocks: the same numbers, where it pays."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from sr_export import photos
from sr_export.graph import pixels
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.pixel_shuffle_blocks import block_weights, in_blocks
from sr_export.quantize import placement
from sr_export.quantize.activations import channel_ranges
from tests.sr_export.quantize.nets import Net

# An odd height and width, so that nothing fits by luck.
IMAGE = photos.as_float(photos.batch(2, 29, 37, 3))


def _operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def _shuffled(side: int, features: int = 8) -> Net:
    """Features shuffled to pixels, with a slope for each channel."""
    net = Net().conv(features * side**2).add("DepthToSpace", blocksize=side, mode="CRD")
    net._width = features
    slopes = np.linspace(0, 1, features, dtype=np.float32).reshape(-1, 1, 1)
    return net.add("PRelu", slopes)


@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize(
    ("side", "kernel"), [(2, 1), (2, 3), (2, 5), (2, 7), (2, 9), (3, 7), (3, 9), (4, 9), (4, 11)]
)
def test_computes_the_same(side: int, kernel: int, outputs: int) -> None:
    model = _shuffled(side).conv(outputs, side=kernel).model()
    found = in_blocks(model)
    assert _operators(found) == ["Conv", "PRelu", "Conv", "DepthToSpace"]
    # Sums are in another order.
    np.testing.assert_allclose(OnnxRunner(found)(IMAGE), OnnxRunner(model)(IMAGE), atol=1e-5)


def test_the_last_of_two_shuffles() -> None:
    net = _shuffled(2)
    net.conv(32).add("DepthToSpace", blocksize=2, mode="CRD").add("LeakyRelu", alpha=0.1)
    net._width = 8
    model = net.conv(3).add("Clip", np.float32(0), np.float32(1)).model()
    found = in_blocks(model)
    assert _operators(found)[-4:] == ["LeakyRelu", "Conv", "DepthToSpace", "Clip"]
    assert _operators(found).count("DepthToSpace") == 2
    np.testing.assert_allclose(OnnxRunner(found)(IMAGE), OnnxRunner(model)(IMAGE), atol=1e-5)


def test_two_convolutions_after_shuffles() -> None:
    net = _shuffled(2).conv(4, side=5).add("DepthToSpace", blocksize=2, mode="CRD")
    net._width = 1
    net.conv(8, side=1).add("DepthToSpace", blocksize=2, mode="CRD")
    net._width = 2
    model = net.conv(1, side=7).model()
    found = in_blocks(model)
    assert _operators(found).count("DepthToSpace") == 3
    before = [node.op_type == "DepthToSpace" for node in model.graph.node]
    after = [node.op_type == "DepthToSpace" for node in found.graph.node]
    assert before != after
    np.testing.assert_allclose(OnnxRunner(found)(IMAGE), OnnxRunner(model)(IMAGE), atol=1e-5)


def test_a_slope_for_all_channels() -> None:
    net = Net().conv(32).add("DepthToSpace", blocksize=2, mode="CRD")
    net._width = 8
    model = net.add("PRelu", np.full((1, 1, 1), 0.3, np.float32)).conv(3).model()
    found = in_blocks(model)
    assert _operators(found)[-1] == "DepthToSpace"
    np.testing.assert_allclose(OnnxRunner(found)(IMAGE), OnnxRunner(model)(IMAGE), atol=1e-5)


@pytest.mark.parametrize("outputs", [1, 3])
def test_quantised_values_stay_on_their_levels(outputs: int) -> None:
    model = _shuffled(2).conv(outputs, side=9).model()
    layers = placement.layers(model)
    ranges = channel_ranges(
        model, [each.input for each in layers], list(photos.batch(1, 32, 32, 3))
    )
    thresholds = {name: float(each.max()) for name, each in ranges.items()}
    quantised = placement.quantize(model, layers, thresholds)
    found = in_blocks(quantised)
    onnx.checker.check_model(found, full_check=True)
    assert _operators(found)[-2:] == ["Conv", "DepthToSpace"]
    constants = {each.name: list(each.dims) for each in found.graph.initializer}
    pairs = [node for node in found.graph.node if node.op_type == "QuantizeLinear"]
    assert [4 * outputs] in [constants[node.input[1]] for node in pairs]
    # A sum that differs in its last bit may be rounded to another level before the last layer.
    expected = OnnxRunner(quantised)(IMAGE)
    difference = np.abs(OnnxRunner(found)(IMAGE) - expected)
    assert difference.mean() < 1e-4 * np.abs(expected).mean()


def _read_twice() -> Net:
    net = _shuffled(2)
    value = net.value
    return net.conv(3).back_to(value, 8).conv(3).join("Add", "conv_3")


def _of_tensorflow() -> Net:
    net = Net().conv(32).add("DepthToSpace", blocksize=2, mode="DCR")
    net._width = 8
    return net.conv(3)


def _padded_by_reflection() -> Net:
    net = _shuffled(2)
    net.add("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect")
    return net.add("Conv", np.ones((3, 8, 3, 3), np.float32))


def _strided() -> Net:
    return _shuffled(2).add("Conv", np.ones((3, 8, 3, 3), np.float32), pads=[1] * 4, strides=[2, 2])


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(_read_twice(), id="two read the pixels"),
        pytest.param(_of_tensorflow(), id="another order of channels"),
        pytest.param(_padded_by_reflection(), id="a node that looks at neighbours"),
        pytest.param(_strided(), id="strided"),
        pytest.param(_shuffled(2).conv(32), id="many outputs"),
        pytest.param(_shuffled(2, 3).conv(3), id="no fewer channels"),
        pytest.param(_shuffled(4).conv(3), id="more products"),
        pytest.param(_shuffled(2).conv(4, group=2), id="grouped"),
        pytest.param(Net().conv(8).conv(3), id="no shuffle"),
    ],
)
def test_others_are_left_alone(net: Net) -> None:
    model = net.model()
    assert _operators(in_blocks(model)) == _operators(model)


def test_weights_by_hand() -> None:
    """A kernel of one row of three, where each pixel of a block of two reads one of its own."""
    weights = np.zeros((1, 1, 3, 3), np.float32)
    weights[0, 0, 1] = [1, 2, 3]  # left, here, right
    found = block_weights(weights, 2)
    assert found.shape == (4, 4, 3, 3)
    top_left, top_right = found[0, :, 1], found[1, :, 1]
    # Columns: the block before, this one, the next; rows: the four pixels of a block.
    np.testing.assert_array_equal(top_left, [[0, 2, 0], [1, 3, 0], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(top_right, [[0, 1, 3], [0, 2, 0], [0, 0, 0], [0, 0, 0]])


def test_bundles_have_them() -> None:
    wrapped = pixels.wrap(_shuffled(2).conv(3).model(), "rgb24")
    operators = _operators(wrapped)
    assert operators.index("DepthToSpace") > len(operators) - 1 - operators[::-1].index("Conv")
