"""Bytes in, bytes out: the wrapped graph does exactly what numpy would."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sr_deploy.bundle.manifest import PixelFormat
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.pixels import LAYOUTS, wrap


def _scaling(factor: float, channels: int) -> onnx.ModelProto:
    """A float graph that multiplies its image by a factor."""
    shape = ["batch", channels, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node("Mul", ["input", "factor"], ["output"])],
        "scaling",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, shape)],
        [helper.make_tensor("factor", TensorProto.FLOAT, [], [factor])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _frames(pixel_format: PixelFormat) -> tuple[np.ndarray, np.ndarray]:
    """Random frames, as values and as the bytes that go into the graph."""
    layout = LAYOUTS[pixel_format]
    kind = np.dtype("u1" if layout.bytes_per_value == 1 else "<u2")
    values = np.random.default_rng(0).integers(
        0, np.iinfo(kind).max + 1, (2, 5, 7, layout.channels)
    )
    values = values.astype(kind)
    return values, values.view(np.uint8)


@pytest.mark.parametrize("pixel_format", list(LAYOUTS))
def test_identity_gives_back_every_byte(pixel_format: PixelFormat) -> None:
    model = wrap(_scaling(1.0, LAYOUTS[pixel_format].channels), pixel_format)
    _, frames = _frames(pixel_format)
    np.testing.assert_array_equal(OnnxRunner(model)(frames), frames)


@pytest.mark.parametrize("pixel_format", list(LAYOUTS))
@pytest.mark.parametrize("factor", [0.37, 1.9, -1.0])
def test_values_are_rounded_and_clipped(pixel_format: PixelFormat, factor: float) -> None:
    model = wrap(_scaling(factor, LAYOUTS[pixel_format].channels), pixel_format)
    values, frames = _frames(pixel_format)
    found = OnnxRunner(model)(frames).view(values.dtype)
    expected = np.clip(values * factor, 0, LAYOUTS[pixel_format].white)
    # Half a level is rounding; the rest is float32 at the height of 65535.
    assert np.abs(found - expected).max() <= 0.51


def test_every_16_bit_value_survives() -> None:
    model = wrap(_scaling(1.0, 1), "gray16")
    values = np.arange(65536, dtype="<u2").reshape(1, 256, 256, 1)
    np.testing.assert_array_equal(OnnxRunner(model)(values.view(np.uint8)).view("<u2"), values)


@pytest.mark.parametrize("pixel_format", list(LAYOUTS))
def test_border_is_what_tensorrt_takes(pixel_format: PixelFormat) -> None:
    graph = wrap(_scaling(1.0, LAYOUTS[pixel_format].channels), pixel_format).graph
    casts = [node for node in graph.node if node.op_type == "Cast"]
    assert len(casts) == 2
    first, last = casts
    assert list(first.input) == [graph.input[0].name]
    assert list(last.output) == [graph.output[0].name]
    assert graph.input[0].type.tensor_type.elem_type == TensorProto.UINT8
    assert graph.output[0].type.tensor_type.elem_type == TensorProto.UINT8


def test_model_itself_stays_as_it_was() -> None:
    model = _scaling(1.0, 3)
    before = model.SerializeToString()
    wrap(model, "rgb24")
    assert model.SerializeToString() == before
