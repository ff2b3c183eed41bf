"""ONNX files of strangers in every form, compared with ONNX Runtime on the file itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from sr_deploy.errors import CheckpointError
from sr_export import photos
from sr_export.graph import foreign_onnx, pixel_values
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.models.ranges import Ranges

_NODE = helper.make_node
_RANDOM = np.random.default_rng(0)
_FREE: tuple[str | int, ...] = ("n", 3, "h", "w")


def _weights(**shapes: tuple[int, ...]) -> list[onnx.TensorProto]:
    return [
        numpy_helper.from_array((_RANDOM.random(shape, np.float32) - 0.4) / 5, name)
        for name, shape in shapes.items()
    ]


def _model(
    nodes: list[NodeProto],
    weights: list[onnx.TensorProto],
    *,
    shape: tuple[str | int, ...] = _FREE,
    opset: int = 18,
    kind: int = TensorProto.FLOAT,
    outputs: tuple[str, ...] = ("y",),
    ir: int = 8,
) -> onnx.ModelProto:
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    if ir == 3:  # weights had to be inputs as well
        inputs += [helper.make_tensor_value_info(w.name, w.data_type, w.dims) for w in weights]
    free: list[None] = [None] * 4
    results = [helper.make_tensor_value_info(name, kind, free) for name in outputs]
    graph = helper.make_graph(nodes, "g", inputs, results, weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def _convolution(given: str = "x", result: str = "a", weight: str = "w", pad: int = 1) -> NodeProto:
    return _NODE("Conv", [given, weight], [result], pads=[pad] * 4)


def _read(model: onnx.ModelProto, folder: Path, output: str | None = None) -> foreign_onnx.Foreign:
    path = folder / "stranger.onnx"
    onnx.save_model(model, path)
    return foreign_onnx.read(path, output)


def _photo(height: int, width: int, channels: int = 3) -> NDArray[np.float32]:
    return photos.as_float(photos.batch(1, height, width, channels))


def _origin(model: onnx.ModelProto, given: NDArray[Any], output: str = "y") -> NDArray[Any]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (found,) = session.run([output], {"x": given})
    return np.asarray(found)


def _old(operator: str) -> tuple[list[NodeProto], int]:
    """An operator whose arguments were attributes once, behind a convolution; and its opset."""
    cases = {
        "nearest": ("Upsample", 7, {"mode": "nearest", "scales": [1.0, 1.0, 2.0, 2.0]}),
        "linear": ("Upsample", 7, {"mode": "linear", "scales": [1.0, 1.0, 2.0, 2.0]}),
        "clip": ("Clip", 7, {"min": 0.1, "max": 0.3}),
        "dropout": ("Dropout", 7, {"ratio": 0.5}),
    }
    name, opset, attributes = cases[operator]
    return [_convolution(), _NODE(name, ["a"], ["y"], **attributes)], opset


@pytest.mark.parametrize("operator", ["nearest", "linear", "clip", "dropout"])
def test_operators_of_old_opsets(operator: str, tmp_path: Path) -> None:
    nodes, opset = _old(operator)
    model = _model(nodes, _weights(w=(3, 3, 3, 3)), opset=opset, ir=3)
    found = _read(model, tmp_path)
    image = _photo(13, 22)
    np.testing.assert_allclose(OnnxRunner(found.model)(image), _origin(model, image), atol=1e-5)


def test_padding_and_cropping_of_old_opsets(tmp_path: Path) -> None:
    nodes = [
        _NODE("Pad", ["x"], ["p"], mode="reflect", pads=[0, 0, 2, 2, 0, 0, 2, 2]),
        _convolution("p", "a"),
        _NODE("Slice", ["a"], ["y"], axes=[2, 3], starts=[2, 2], ends=[-2, -2]),
    ]
    model = _model(nodes, _weights(w=(3, 3, 3, 3)), opset=7, ir=3)
    found = _read(model, tmp_path)
    image = _photo(13, 22)
    np.testing.assert_allclose(OnnxRunner(found.model)(image), _origin(model, image), atol=1e-5)


def test_opset_6_with_slopes_of_one_axis(tmp_path: Path) -> None:
    nodes = [_convolution(), _NODE("PRelu", ["a", "s"], ["y"])]
    weights = _weights(w=(3, 3, 3, 3), s=(3,))
    found = _read(_model(nodes, weights, opset=6), tmp_path)
    image = _photo(8, 12)
    convolved = _origin(_model([_convolution(result="y")], weights[:1]), image)
    slopes = numpy_helper.to_array(weights[1]).reshape(3, 1, 1)
    expected = np.where(convolved < 0, convolved * slopes, convolved)
    np.testing.assert_allclose(OnnxRunner(found.model)(image), expected, atol=1e-6)


def _shuffled(size: tuple[int, int], order: tuple[int, ...], shape: list[int]) -> onnx.ModelProto:
    """ESPCN as PyTorch exported it for one size: the shuffle is two Reshapes."""
    height, width = size
    targets = {"t": shape, "u": [-1, 1, 3 * height, 3 * width]}
    weights = _weights(w=(9, 1, 5, 5)) + [
        numpy_helper.from_array(np.array(each, np.int64), name) for name, each in targets.items()
    ]
    nodes = [
        _convolution(pad=2),
        _NODE("Reshape", ["a", "t"], ["b"]),
        _NODE("Transpose", ["b"], ["c"], perm=order),
        _NODE("Reshape", ["c", "u"], ["y"]),
    ]
    return _model(nodes, weights, shape=("n", 1, height, width), opset=10, ir=4)


@pytest.mark.parametrize(
    ("order", "shape"),
    [
        ((0, 1, 4, 2, 5, 3), [-1, 1, 3, 3, 20, 24]),
        ((0, 3, 4, 1, 5, 2), [-1, 3, 3, 1, 20, 24]),
    ],
)
def test_a_shuffle_of_one_size_is_freed(
    order: tuple[int, ...], shape: list[int], tmp_path: Path
) -> None:
    model = _shuffled((20, 24), order, shape)
    found = _read(model, tmp_path)
    assert (found.scale, found.channels, found.fixed_size, found.fixed_batch) == (3, 1, None, None)
    image = _photo(33, 40, 1)
    # the file itself, on the part in a corner: two pixels from the cut, the border has no effect
    part = _origin(model, np.ascontiguousarray(image[..., :20, :24]))[..., :54, :66]
    np.testing.assert_allclose(OnnxRunner(found.model)(image)[..., :54, :66], part, atol=1e-5)


def test_luma_with_the_colors_enlarged_beside(tmp_path: Path) -> None:
    """Like super-resolution-10 of the ONNX zoo, whose program interpolates Cb and Cr."""
    model = _shuffled((20, 24), (0, 1, 4, 2, 5, 3), [-1, 1, 3, 3, 20, 24])
    found = _read(model, tmp_path)
    colored = pixel_values.put_into(found.model, Ranges(color="ycbcr"), found.scale)
    red, green, blue = image = _photo(20, 24)[0]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    given = np.stack([luma, (blue - luma) / 1.772, (red - luma) / 1.402]).astype(np.float32)
    upscaled = _origin(model, given[None, :1])[0, 0]
    first, second = (
        np.asarray(Image.fromarray(each).resize((72, 60), Image.Resampling.BICUBIC))
        for each in given[1:]
    )
    # As in a file with 8 bits.
    upscaled, first, second = (
        each.clip(low, high)
        for each, low, high in ((upscaled, 0, 1), (first, -0.5, 0.5), (second, -0.5, 0.5))
    )
    red, blue = upscaled + 1.402 * second, upscaled + 1.772 * first
    expected = np.stack([red, (upscaled - 0.299 * red - 0.114 * blue) / 0.587, blue])
    off = np.abs(OnnxRunner(colored)(image[None])[0] - expected)
    # Pillow and ONNX Runtime weight the pixels at borders otherwise
    assert off[:, 6:-6, 6:-6].max() < 1e-5
    assert off.max() < 0.25 / 255


def test_an_unshuffle_and_a_resize_of_one_size_are_freed(tmp_path: Path) -> None:
    targets = {"t": [4, 3, 10, 2, 12, 2], "u": [4, 12, 10, 12], "s": [4, 3, 40, 48]}
    weights = _weights(w=(3, 12, 3, 3)) + [
        numpy_helper.from_array(np.array(each, np.int64), name) for name, each in targets.items()
    ]
    nodes = [
        _NODE("Reshape", ["x", "t"], ["a"]),
        _NODE("Transpose", ["a"], ["b"], perm=(0, 1, 3, 5, 2, 4)),
        _NODE("Reshape", ["b", "u"], ["c"]),
        _convolution("c", "d"),
        _NODE("Resize", ["d", "", "", "s"], ["y"], mode="nearest"),
    ]
    model = _model(nodes, weights, shape=(4, 3, 20, 24))
    found = _read(model, tmp_path)
    assert (found.scale, found.grid, found.fixed_size, found.fixed_batch) == (2, 2, None, None)
    image = _photo(20, 24)
    expected = _origin(model, image.repeat(4, axis=0))[:1]
    np.testing.assert_allclose(OnnxRunner(found.model)(image), expected, atol=1e-5)


@pytest.mark.parametrize("size", [("h", "w"), (40, 48)])
def test_a_network_that_crops_gets_a_border(size: tuple[str | int, ...], tmp_path: Path) -> None:
    """Like waifu2x: two unpadded convolutions, and an unpadded upsampling one."""
    nodes = [
        _convolution(pad=0),
        _convolution("a", "b", "v", pad=0),
        _NODE("ConvTranspose", ["b", "u"], ["y"], strides=[2, 2], pads=[3, 3, 3, 3]),
    ]
    weights = _weights(w=(4, 3, 3, 3), v=(4, 4, 3, 3), u=(4, 3, 4, 4))
    model = _model(nodes, weights, shape=("n", 3, *size))
    found = _read(model, tmp_path)
    # 4 pixels by the convolutions; 4 of the output by the last one
    assert (found.scale, found.fixed_size) == (2, None)
    image = _photo(30, 35)
    bordered = np.pad(image, ((0, 0), (0, 0), (3, 3), (3, 3)), mode="edge")
    free = _model(nodes, weights)
    np.testing.assert_allclose(OnnxRunner(found.model)(image), _origin(free, bordered), atol=1e-5)


def test_channels_last(tmp_path: Path) -> None:
    nodes = [
        _NODE("Transpose", ["x"], ["t"], perm=(0, 3, 1, 2)),
        _convolution("t"),
        _NODE("DepthToSpace", ["a"], ["d"], blocksize=2),
        _NODE("Transpose", ["d"], ["y"], perm=(0, 2, 3, 1)),
    ]
    model = _model(nodes, _weights(w=(12, 3, 3, 3)), shape=("n", "h", "w", 3))
    found = _read(model, tmp_path)
    assert (found.scale, found.channels) == (2, 3)
    image = _photo(9, 14)
    expected = _origin(model, image.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    np.testing.assert_allclose(OnnxRunner(found.model)(image), expected, atol=1e-6)


@pytest.mark.parametrize("rounding", [None, "Round", "Floor"])
def test_bytes_in_and_out(rounding: str | None, tmp_path: Path) -> None:
    constants = {"low": 0.0, "high": 255.0, "white": 255.0}
    weights = _weights(w=(3, 3, 3, 3)) + [
        numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()
    ]
    nodes = [
        _NODE("Transpose", ["x"], ["t"], perm=(0, 3, 1, 2)),
        _NODE("Cast", ["t"], ["f"], to=TensorProto.FLOAT),
        _NODE("Div", ["f", "white"], ["g"]),
        _convolution("g"),
        _NODE("Mul", ["a", "white"], ["m"]),
        _NODE("Clip", ["m", "low", "high"], ["c"]),
        _NODE(rounding or "Identity", ["c"], ["r"]),
        _NODE("Cast", ["r"], ["u"], to=TensorProto.UINT8),
        _NODE("Transpose", ["u"], ["y"], perm=(0, 2, 3, 1)),
    ]
    model = _model(nodes, weights, shape=("n", "h", "w", 3), kind=TensorProto.UINT8)
    found = _read(model, tmp_path)
    assert found.bytes
    frames = photos.batch(1, 40, 50, 3)
    levels = 255 * OnnxRunner(found.model)(photos.as_float(frames)).transpose(0, 2, 3, 1)
    expected = _origin(model, frames)
    off = np.abs(levels.round().clip(0, 255) - expected)
    # a value on the edge of two levels may fall on either side
    assert off.max() <= 1
    assert (off > 0).mean() < 0.01


def test_half_precision_weights_behind_casts(tmp_path: Path) -> None:
    (weight,) = _weights(w=(3, 3, 3, 3))
    half = numpy_helper.from_array(numpy_helper.to_array(weight).astype(np.float16), "w")
    nodes = [
        _NODE("Cast", ["x"], ["h"], to=TensorProto.FLOAT16),
        _convolution("h"),
        _NODE("Cast", ["a"], ["y"], to=TensorProto.FLOAT),
    ]
    model = _model(nodes, [half])
    found = _read(model, tmp_path)
    image = _photo(8, 12)
    # half has 11 bits
    np.testing.assert_allclose(OnnxRunner(found.model)(image), _origin(model, image), atol=4e-3)


def _with_two_outputs(second: Callable[[], NodeProto]) -> onnx.ModelProto:
    nodes = [_convolution(result="y"), second()]
    return _model(nodes, _weights(w=(3, 3, 3, 3)), outputs=("y", "z"))


def test_the_output_that_is_an_image_is_found(tmp_path: Path) -> None:
    found = _read(
        _with_two_outputs(lambda: _NODE("ReduceMean", ["y"], ["z"], keepdims=1)), tmp_path
    )
    assert found.choice == "output 'y' of y, z"
    assert len(found.model.graph.output) == 1


def test_one_of_several_images_is_chosen(tmp_path: Path) -> None:
    model = _with_two_outputs(lambda: _NODE("Neg", ["y"], ["z"]))
    with pytest.raises(CheckpointError, match=r"y, z.*--network-output"):
        _read(model, tmp_path)
    with pytest.raises(CheckpointError, match=r"'sr'.*y, z"):
        _read(model, tmp_path, "sr")
    image = _photo(8, 12)
    for name in ("z", "1"):
        found = _read(model, tmp_path, name)
        expected = _origin(model, image, "z")
        np.testing.assert_allclose(OnnxRunner(found.model)(image), expected, atol=1e-6)


def test_a_quantized_network_is_refused(tmp_path: Path) -> None:
    scale = numpy_helper.from_array(np.float32(0.01), "scale")
    zero = numpy_helper.from_array(np.uint8(0), "zero")
    nodes = [
        _NODE("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        _NODE("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        _convolution("d", "y"),
    ]
    model = _model(nodes, [scale, zero, *_weights(w=(3, 3, 3, 3))])
    with pytest.raises(CheckpointError, match=r"quantized \(DequantizeLinear, QuantizeLinear\)"):
        _read(model, tmp_path)


def test_several_inputs_are_named(tmp_path: Path) -> None:
    model = _model([_NODE("Add", ["x", "sigma"], ["y"])], [])
    model.graph.input.append(helper.make_tensor_value_info("sigma", TensorProto.FLOAT, [1]))
    with pytest.raises(CheckpointError, match=r"2 inputs \(x, sigma\)"):
        _read(model, tmp_path)
