"""Pixel conversion inside the graph: bytes in, bytes out.

The float network (NCHW, white is 1) is wrapped in conversions from and to the bytes of a frame
(NHWC). The runtime then moves a quarter of the data and needs no conversion code, and its compiler
fuses the conversion with the network.

The order of the operators follows TensorRT's rules: a uint8 input is read by a Cast only, and a
uint8 output is written by one. Casting float to uint8 truncates, so rounding and clipping come
first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper

from sr_export.graph import yuv
from sr_export.graph.onnx_graph import NodeChain
from sr_export.graph.pixel_shuffle_blocks import in_blocks

if TYPE_CHECKING:
    from sr_deploy.bundle.manifest import PixelFormat


@dataclass(frozen=True)
class PixelLayout:
    """Memory layout of one pixel."""

    channels: int
    bytes_per_value: int

    @property
    def white(self) -> float:
        """The value of white."""
        return float(256**self.bytes_per_value - 1)


LAYOUTS: dict[PixelFormat, PixelLayout] = {
    "gray8": PixelLayout(1, 1),
    "gray16": PixelLayout(1, 2),
    "rgb24": PixelLayout(3, 1),
    "rgb48": PixelLayout(3, 2),
}


def formats(channels: int) -> tuple[PixelFormat, PixelFormat]:
    """Return the 8-bit and the 16-bit pixel format for 1 or 3 channels."""
    return ("gray8", "gray16") if channels == 1 else ("rgb24", "rgb48")


def wrap(model: onnx.ModelProto, pixel_format: PixelFormat) -> onnx.ModelProto:
    """Return a copy of a float model with frames of a pixel format as input and output.

    For YUV formats, the color matrix is a second input; see `yuv`. A generator keeps its noise as
    the input. The network inside is optimized; see `pixel_shuffle_blocks`.
    """
    if len(model.graph.input[0].type.tensor_type.shape.dim) == 2:
        return _wrap_generator(model, LAYOUTS[pixel_format])
    wrapped = in_blocks(model)
    graph = wrapped.graph
    source, result = graph.input[0], graph.output[0]
    inner_input, inner_output = source.name, result.name
    if pixel_format in yuv.LAYOUTS:
        video = yuv.LAYOUTS[pixel_format]
        before, after = yuv.around(inner_input, inner_output, video)
        graph.input.append(yuv.color_input())
        bytes_per_pixel = video.bytes_per_value
    else:
        layout = LAYOUTS[pixel_format]
        before, after = _unpack("pixels", layout), _pack(inner_output, layout)
        bytes_per_pixel = layout.channels * layout.bytes_per_value
    before.nodes[-1].output[0] = inner_input
    after.nodes[-1].output[0] = "upscaled"

    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    for value, name in ((source, "pixels"), (result, "upscaled")):
        _retype(value, name, bytes_per_pixel, subsampled=pixel_format in yuv.LAYOUTS)
    onnx.checker.check_model(wrapped)
    return wrapped


def _wrap_generator(model: onnx.ModelProto, layout: PixelLayout) -> onnx.ModelProto:
    """Return a copy of a generator with frames as its output."""
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    result = wrapped.graph.output[0]
    after = _pack(result.name, layout)
    after.nodes[-1].output[0] = "pixels"
    wrapped.graph.node.extend(after.nodes)
    wrapped.graph.initializer.extend(after.constants)
    _retype(result, "pixels", layout.channels * layout.bytes_per_value, subsampled=False)
    onnx.checker.check_model(wrapped)
    return wrapped


def _unpack(source: str, layout: PixelLayout) -> NodeChain:
    """Convert bytes NHWC to float NCHW, white is 1."""
    chain = NodeChain(source)
    chain.add("Cast", to=TensorProto.FLOAT)
    if layout.bytes_per_value == 2:
        low = chain.join("Slice", [chain.value, *_every_second(chain, 0)])
        high = chain.join("Slice", [chain.value, *_every_second(chain, 1)])
        chain.value = chain.join("Mul", [high, chain.constant(np.float32(256))])
        chain.value = chain.join("Add", [chain.value, low])
    chain.add("Transpose", perm=[0, 3, 1, 2])
    chain.add("Mul", np.float32(1 / layout.white))
    return chain


def _every_second(chain: NodeChain, start: int) -> list[str]:
    """Return the Slice arguments for every second value of the last axis."""
    return [chain.indices(each) for each in (start, np.iinfo(np.int64).max, 3, 2)]


def _pack(source: str, layout: PixelLayout) -> NodeChain:
    """Convert float NCHW, white is 1, to bytes NHWC."""
    chain = NodeChain(source)
    chain.add("Mul", np.float32(layout.white))
    chain.add("Clip", np.float32(0), np.float32(layout.white))
    chain.add("Round")
    chain.add("Transpose", perm=[0, 2, 3, 1])
    if layout.bytes_per_value == 2:
        value = chain.value
        scaled = chain.join("Mul", [value, chain.constant(np.float32(1 / 256))])
        high = chain.join("Floor", [scaled])
        chain.value = chain.join("Mul", [high, chain.constant(np.float32(256))])
        low = chain.join("Sub", [value, chain.value])
        pair = [chain.join("Unsqueeze", [each, chain.indices(4)]) for each in (low, high)]
        chain.value = chain.join("Concat", pair, axis=4)
        chain.add("Reshape", np.array([0, 0, 0, 2 * layout.channels], np.int64))
    chain.add("Cast", to=TensorProto.UINT8)
    return chain


def _retype(
    value: onnx.ValueInfoProto, name: str, bytes_per_pixel: int, *, subsampled: bool
) -> None:
    """Change a float NCHW input or output of the graph to uint8 NHWC."""
    batch, _, height, width = value.type.tensor_type.shape.dim
    dims = [each.dim_param or each.dim_value or None for each in (batch, height, width)]
    if subsampled:
        dims[1] = height.dim_value * 3 // 2 or None
    shape = [*dims, bytes_per_pixel]
    value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
