"""YUV in, YUV out: the conversions in the graph are those of the standards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.runtime.yuv import YuvFrame
from sr_export import photos
from sr_export.graph import onnx_graph, pixels, yuv_reference
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.quantize.half import Half, rounded_to_bf16, to_half
from tests.sr_deploy import yuv_oracle
from tests.sr_deploy.yuv_oracle import FORMATS, KINDS, Kind
from tests.sr_export.quantize.nets import Net

MIXING = np.array([[0.8, 0.1, 0.1], [0.0, 0.7, 0.2], [0.3, 0.0, 0.6]], np.float32)


def _identity() -> onnx.ModelProto:
    """A network that computes, but changes nothing."""
    middle = np.zeros((3, 3, 3, 3), np.float32)
    middle[range(3), range(3), 1, 1] = 1
    return Net().add("Conv", middle, pads=[1] * 4).model()


def _mixing(scale: int) -> onnx.ModelProto:
    """A network that mixes colours and repeats pixels."""
    sizes = np.array([1, 1, scale, scale], np.float32)
    net = Net().add("Conv", MIXING[..., None, None])
    nearest = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return net.add("Resize", None, sizes, mode="nearest", **nearest).model()


def _run(model: onnx.ModelProto, frame: YuvFrame, batch: int = 1) -> YuvFrame:
    found = OnnxRunner(model)(np.repeat(frame.pixels[None], batch, axis=0), frame.coefficients)
    assert found.dtype == np.uint8
    for each in found:
        np.testing.assert_array_equal(each, found[0])
    values = np.ascontiguousarray(found[0]).view(frame.samples.dtype)
    return replace(frame, samples=values[..., 0])


def _difference(found: YuvFrame, expected: np.ndarray) -> float:
    return float(np.abs(yuv_oracle.codes(found) - expected).max())


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize(("height", "width"), [(2, 2), (6, 10), (26, 12)])
def test_what_the_network_leaves_alone_comes_back_as_it_was(
    kind: Kind, height: int, width: int
) -> None:
    """All numbers, so that most colours are beyond what RGB shows: nothing may be clipped."""
    frame = kind.noise(height, width)
    found = _run(pixels.wrap(_identity(), kind.pixel_format), frame, batch=2)
    # float32 is off by some ten thousandths of a level, so that rounding hides all of it.
    np.testing.assert_array_equal(found.samples, frame.samples)


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("scale", [1, 2, 3])
def test_the_conversions_are_those_of_the_standards(kind: Kind, scale: int) -> None:
    frame = kind.noise(10, 8)
    found = _run(pixels.wrap(_mixing(scale), kind.pixel_format), frame)
    rgb = yuv_oracle.to_rgb(frame)
    inside = rgb.clip(0, 1)
    changed = inside @ MIXING.astype(float).T + (rgb - inside)
    repeated = changed.repeat(scale, axis=0).repeat(scale, axis=1)
    # Half a level is rounding; the rest is float32.
    assert _difference(found, yuv_oracle.from_rgb(repeated, kind)) <= 0.51


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_it_equals_the_way_through_8_bit_rgb(kind: Kind) -> None:
    """On colours that RGB shows, where that way loses nothing but by rounding."""
    photo = 0.1 + 0.8 * photos.as_float(photos.batch(1, 64, 96, 3))[0].transpose(1, 2, 0)
    smooth = photo.reshape(32, 2, 48, 2, 3).mean(axis=(1, 3)).repeat(2, axis=0).repeat(2, axis=1)
    frame = kind.frame(np.rint(yuv_oracle.from_rgb(smooth, kind)).astype(int))
    found = _run(pixels.wrap(_mixing(2), kind.pixel_format), frame)

    rgb = np.rint(yuv_oracle.to_rgb(frame) * 255)
    assert rgb.min() >= 0
    assert rgb.max() <= 255
    upscaled = OnnxRunner(pixels.wrap(_mixing(2), "rgb24"))(rgb[None].astype(np.uint8))
    expected = yuv_oracle.from_rgb(upscaled[0] / 255, kind)
    levels = _difference(found, np.rint(expected)) * 255 / kind.largest
    assert levels <= 2


def test_the_network_sees_nothing_beyond_rgb() -> None:
    """A root of what is below black would be no number."""
    kind = Kind("nv12", full_range=True)
    frame = kind.noise(8, 8)
    found = _run(pixels.wrap(Net().add("Sqrt").model(), "nv12"), frame)
    rgb = yuv_oracle.to_rgb(frame)
    inside = rgb.clip(0, 1)
    expected = yuv_oracle.from_rgb(np.sqrt(inside) + rgb - inside, kind)
    assert (rgb < 0).any()
    assert _difference(found, expected) <= 0.51


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_half_precision_is_that_of_the_network_alone(kind: Kind, half: Half) -> None:
    frame = kind.noise(20, 12)
    wrapped = pixels.wrap(_identity(), kind.pixel_format)
    model = to_half(wrapped, "fp16") if half == "fp16" else rounded_to_bf16(wrapped)
    found = _run(model, frame)
    # White has 11 and 8 bits in them: half a step below it is 0.25 and 2 levels of 1023.
    largest = 1 if half == "fp16" or kind.bits == 8 else 2
    assert _difference(found, yuv_oracle.codes(frame)) <= largest


@pytest.mark.parametrize("pixel_format", FORMATS)
@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_the_conversions_stay_in_float(pixel_format: YuvFormat, half: Half) -> None:
    model = to_half(pixels.wrap(_mixing(2), pixel_format), half)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    types = {each.name: each.type.tensor_type.elem_type for each in inferred.value_info}
    kinds = {TensorProto.FLOAT, TensorProto.INT64}
    exact = {name: each for name, each in types.items() if name.startswith(onnx_graph.EXACT)}
    assert set(exact.values()) == kinds
    assert {TensorProto.FLOAT16, TensorProto.BFLOAT16}.intersection(types.values())


@pytest.mark.parametrize("pixel_format", FORMATS)
def test_border_is_what_tensorrt_takes(pixel_format: YuvFormat) -> None:
    graph = pixels.wrap(_mixing(2), pixel_format).graph
    (reader,) = (node for node in graph.node if "pixels" in node.input)
    (writer,) = (node for node in graph.node if "upscaled" in node.output)
    assert reader.op_type == writer.op_type == "Cast"
    assert [each.name for each in graph.input] == ["pixels", "colour"]
    types = [each.type.tensor_type.elem_type for each in (*graph.input, *graph.output)]
    assert types == [TensorProto.UINT8, TensorProto.FLOAT, TensorProto.UINT8]
    depth = graph.input[0].type.tensor_type.shape.dim[3].dim_value
    assert depth == (2 if pixel_format == "p010" else 1)


def test_a_network_of_one_size_declares_the_rows_of_a_frame() -> None:
    model = _identity()
    for value in (model.graph.input[0], model.graph.output[0]):
        for dim, side in zip(value.type.tensor_type.shape.dim[2:], (12, 8), strict=True):
            dim.dim_value = side
    dims = pixels.wrap(model, "nv12").graph.input[0].type.tensor_type.shape.dim
    assert [each.dim_value for each in dims[1:]] == [18, 8, 1]


def test_the_networks_own_values_are_kept() -> None:
    model = _mixing(2)
    before = model.SerializeToString()
    wrapped = pixels.wrap(model, "nv12")
    assert model.SerializeToString() == before
    weights = [each for each in wrapped.graph.initializer if each.dims == [3, 3, 1, 1]]
    np.testing.assert_array_equal(numpy_helper.to_array(weights[0])[..., 0, 0], MIXING)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_numpys_conversions_are_those_of_the_standards(kind: Kind) -> None:
    """Those that the exporter verifies its graphs with."""
    frame = kind.noise(8, 6)
    rgb = yuv_oracle.to_rgb(frame)
    # The coefficients are float32.
    np.testing.assert_allclose(yuv_reference.to_rgb(frame).transpose(1, 2, 0), rgb, atol=1e-5)
    image = np.random.default_rng(1).uniform(-0.2, 1.2, (3, 8, 6))
    expected = yuv_oracle.from_rgb(image.transpose(1, 2, 0), kind)
    np.testing.assert_allclose(yuv_reference.from_rgb(image, frame), expected, atol=1e-3)
    np.testing.assert_array_equal(yuv_reference.values(frame), yuv_oracle.codes(frame))
    made = yuv_reference.frame_of(image, frame)
    assert _difference(made, expected) <= 0.501
    assert (made.pixel_format, made.matrix) == (kind.pixel_format, kind.matrix)
