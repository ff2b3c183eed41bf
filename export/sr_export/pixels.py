"""All pixel work inside the graph: bytes in, bytes out.

Around the float network (NCHW, white is 1) goes the conversion from and to the bytes of a frame
(NHWC). A runtime then moves a quarter of the data, needs no conversion code, and its compiler
fuses the conversion with the network.

The order of the operators is what TensorRT takes: a uint8 input must go into a Cast directly, and
a uint8 output must come out of one; float to uint8 truncates, so rounding and clipping come first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from sr_deploy.manifest import PixelFormat

PREFIX = "pixels_"


@dataclass(frozen=True)
class Layout:
    """How one pixel of a format lies in memory."""

    channels: int
    bytes_per_value: int

    @property
    def white(self) -> float:
        """The largest value."""
        return float(256**self.bytes_per_value - 1)


LAYOUTS: dict[PixelFormat, Layout] = {
    "gray8": Layout(1, 1),
    "gray16": Layout(1, 2),
    "rgb24": Layout(3, 1),
    "rgb48": Layout(3, 2),
}


def formats(channels: int) -> tuple[PixelFormat, PixelFormat]:
    """Return the 8-bit and the 16-bit format of a network's channels."""
    return ("gray8", "gray16") if channels == 1 else ("rgb24", "rgb48")


def wrap(model: onnx.ModelProto, pixel_format: PixelFormat) -> onnx.ModelProto:
    """Return a copy of a float model that takes and gives frames of a pixel format."""
    wrapped = onnx.ModelProto()
    wrapped.CopyFrom(model)
    graph = wrapped.graph
    layout = LAYOUTS[pixel_format]
    source, result = graph.input[0], graph.output[0]
    inner_input, inner_output = source.name, result.name

    before = _Chain("pixels")
    _unpack(before, layout)
    after = _Chain(inner_output)
    _pack(after, layout)
    before.nodes[-1].output[0] = inner_input
    after.nodes[-1].output[0] = "upscaled"

    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    _retype(source, "pixels", layout)
    _retype(result, "upscaled", layout)
    onnx.checker.check_model(wrapped)
    return wrapped


class _Chain:
    """Nodes that follow one another, each taking the output of the last."""

    def __init__(self, name: str) -> None:
        self.value = name
        self._stem = f"{PREFIX}{name}_"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *constants: NDArray[Any], **attributes: Any) -> str:
        """Append a node whose further inputs are constants."""
        self.value = self.join(operator, [self.value, *map(self.constant, constants)], **attributes)
        return self.value

    def join(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node with any inputs; return its output."""
        output = f"{self._stem}{len(self.nodes)}_{operator.lower()}"
        self.nodes.append(
            helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        )
        return output

    def constant(self, value: object) -> str:
        """Add a constant; return its name."""
        name = f"{self._stem}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name


def _unpack(chain: _Chain, layout: Layout) -> None:
    """Bytes NHWC to float NCHW, white is 1."""
    chain.add("Cast", to=TensorProto.FLOAT)
    if layout.bytes_per_value == 2:
        low = chain.join("Slice", [chain.value, *_every_second(chain, 0)])
        high = chain.join("Slice", [chain.value, *_every_second(chain, 1)])
        chain.value = chain.join("Mul", [high, chain.constant(np.float32(256))])
        chain.value = chain.join("Add", [chain.value, low])
    chain.add("Transpose", perm=[0, 3, 1, 2])
    chain.add("Mul", np.float32(1 / layout.white))


def _every_second(chain: _Chain, start: int) -> list[str]:
    """Return the arguments of a Slice of every second value along the last axis."""
    arguments = (start, np.iinfo(np.int64).max, 3, 2)
    return [chain.constant(np.array([each], np.int64)) for each in arguments]


def _pack(chain: _Chain, layout: Layout) -> None:
    """Float NCHW, white is 1, to bytes NHWC."""
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
        pair = [chain.join("Unsqueeze", [each, _last(chain)]) for each in (low, high)]
        chain.value = chain.join("Concat", pair, axis=4)
        chain.add("Reshape", np.array([0, 0, 0, 2 * layout.channels], np.int64))
    chain.add("Cast", to=TensorProto.UINT8)


def _last(chain: _Chain) -> str:
    return chain.constant(np.array([4], np.int64))


def _retype(value: onnx.ValueInfoProto, name: str, layout: Layout) -> None:
    """Turn a float NCHW input or output of the graph into a uint8 NHWC one."""
    batch, _, height, width = value.type.tensor_type.shape.dim
    dims = [each.dim_param or each.dim_value or None for each in (batch, height, width)]
    shape = [*dims, layout.channels * layout.bytes_per_value]
    value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.UINT8, shape))
