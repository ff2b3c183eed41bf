"""YUV conversion inside the graph: 4:2:0 video frames in and out.

A frame is one tensor in memory order, (N, H*3/2, W, bytes): luma in the first H rows, then chroma.
The color matrix differs between videos, so it is a second input, `colour`, float32 (7, 3): three
rows of the matrix to RGB, three of the matrix from RGB, and the YUV values of black:

    rgb = colour[0:3] @ (yuv - colour[6])
    yuv = colour[3:6] @ rgb + colour[6]

Chroma is repeated for the four pixels that share it, and averaged over them again. Only the result
is rounded. The network gets RGB clipped to [0, 1], as in training; the part that was clipped is
added to its output. So an identity network returns its input unchanged.

Everything here is float32. Products are computed element by element, because runtimes may compute a
matrix product in lower precision: OpenVINO in BF16 together with the network, TensorRT in TF32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto, helper

from sr_export.graph.onnx_graph import EXACT, NodeChain

if TYPE_CHECKING:
    import onnx

    from sr_deploy.bundle.manifest import PixelFormat

COLOUR = "colour"


@dataclass(frozen=True)
class YuvLayout:
    """Memory layout of a frame.

    Attributes:
        interleaved: U and V alternate; otherwise all of U comes before all of V.
        bits: Bits of a sample, stored in the high bits of one or two bytes.
    """

    interleaved: bool
    bits: int

    @property
    def bytes_per_value(self) -> int:
        """Bytes of a sample."""
        return -(-self.bits // 8)

    @property
    def step(self) -> float:
        """The difference between adjacent sample values as stored."""
        return float(2 ** (8 * self.bytes_per_value - self.bits))

    @property
    def largest(self) -> float:
        """The largest sample value."""
        return float(2**self.bits - 1)


LAYOUTS: dict[PixelFormat, YuvLayout] = {
    "yuv420p": YuvLayout(interleaved=False, bits=8),
    "nv12": YuvLayout(interleaved=True, bits=8),
    "p010": YuvLayout(interleaved=True, bits=10),
}


def color_input() -> onnx.ValueInfoProto:
    """Return the declaration of the graph's second input."""
    return helper.make_tensor_value_info(COLOUR, TensorProto.FLOAT, [7, 3])


def around(source: str, result: str, layout: YuvLayout) -> tuple[NodeChain, NodeChain]:
    """Return the nodes before and after a network.

    Args:
        source: Name of the network's input: float RGB, NCHW, white is 1.
        result: Name of its output.
        layout: Layout of the frames.
    """
    before = _unpack("pixels", layout)
    wide = before.value
    before.add("Clip", np.float32(0), np.float32(1))
    after = NodeChain(result, EXACT)
    beyond = after.join("Sub", [wide, source])
    sizes = [
        after.join("Slice", [after.join("Shape", [value]), *map(after.indices, bounds)])
        for value, bounds in ((source, (0, 2)), (result, (2, 4)))
    ]
    beyond = _repeated(after, beyond, "", after.join("Concat", sizes, axis=0))
    after.value = after.join("Add", [result, beyond])
    _pack(after, layout)
    return before, after


def _unpack(source: str, layout: YuvLayout) -> NodeChain:
    """Convert a frame to float RGB, NCHW."""
    chain = NodeChain(source, EXACT)
    chain.add("Cast", to=TensorProto.FLOAT)
    shape = chain.join("Shape", [chain.value])
    count, rows, width = (chain.join("Gather", [shape, chain.indices(i)]) for i in range(3))
    half = chain.join("Div", [rows, chain.indices(3)])
    height = chain.join("Mul", [half, chain.indices(2)])
    half_width = chain.join("Div", [width, chain.indices(2)])
    if layout.bytes_per_value == 2:
        _join_bytes(chain, layout)
    values, axis = chain.value, chain.indices(1)
    luma = chain.join("Slice", [values, chain.indices(0), height, axis])
    luma = chain.join("Transpose", [luma], perm=[0, 3, 1, 2])
    chroma = chain.join("Slice", [values, height, rows, axis])
    two = chain.indices(2)
    order = [half, half_width, two] if layout.interleaved else [two, half, half_width]
    shape = chain.join("Concat", [count, *order], axis=0)
    chroma = chain.join("Reshape", [chroma, shape])
    if layout.interleaved:
        chroma = chain.join("Transpose", [chroma], perm=[0, 3, 1, 2])

    luma = chain.join("Sub", [luma, _coefficients(chain, (6, 7), (0, 1), 1, 1, 1, 1)])
    luma = chain.join("Mul", [luma, _coefficients(chain, (0, 3), (0, 1), 1, 3, 1, 1)])
    chroma = chain.join("Sub", [chroma, _coefficients(chain, (6, 7), (1, 3), 1, 2, 1, 1)])
    chroma = _mixed(chain, chroma, _coefficients(chain, (0, 3), (1, 3), 1, 3, 2, 1, 1))
    chroma = _repeated(chain, chroma, chain.constant(np.array([1, 1, 2, 2], np.float32)))
    chain.value = chain.join("Add", [luma, chroma])
    return chain


def _pack(chain: NodeChain, layout: YuvLayout) -> None:
    """Convert float RGB, NCHW, to a frame."""
    source = chain.value
    flat = chain.join("Reshape", [source, chain.indices(0, 3, -1)])
    luma = _coefficients(chain, (6, 7), (0, 1), 1, 1, 1)
    for i in range(3):
        color = chain.join("Slice", [flat, *map(chain.indices, (i, i + 1, 1))])
        weight = _coefficients(chain, (3, 4), (i, i + 1), 1, 1, 1)
        luma = chain.join("Add", [luma, chain.join("Mul", [color, weight])])
    luma = _rounded(chain, luma, layout)

    chroma = chain.join("AveragePool", [source], kernel_shape=[2, 2], strides=[2, 2])
    chroma = _mixed(chain, chroma, _coefficients(chain, (4, 6), (0, 3), 1, 2, 3, 1, 1))
    chroma = chain.join("Add", [chroma, _coefficients(chain, (6, 7), (1, 3), 1, 2, 1, 1)])
    chroma = _rounded(chain, chroma, layout)
    if layout.interleaved:
        chroma = chain.join("Transpose", [chroma], perm=[0, 2, 3, 1])
    shape = chain.join("Shape", [source])
    count, width = (chain.join("Gather", [shape, chain.indices(i)]) for i in (0, 3))
    rows = chain.join("Concat", [count, chain.indices(-1), width, chain.indices(1)], axis=0)
    both = [chain.join("Reshape", [plane, rows]) for plane in (luma, chroma)]
    chain.value = chain.join("Concat", both, axis=1)
    if layout.bytes_per_value == 2:
        _split_bytes(chain, layout)
    chain.add("Cast", to=TensorProto.UINT8)


def _coefficients(
    chain: NodeChain, rows: tuple[int, int], columns: tuple[int, int], *shape: int
) -> str:
    """Return part of the `colour` input, reshaped."""
    (top, bottom), (left, right) = rows, columns
    bounds = [chain.indices(top, left), chain.indices(bottom, right), chain.indices(0, 1)]
    part = chain.join("Slice", [COLOUR, *bounds])
    return chain.join("Reshape", [part, chain.indices(*shape)])


def _mixed(chain: NodeChain, planes: str, matrix: str) -> str:
    """Multiply a matrix (1, K, C, 1, 1) with every pixel of planes (N, C, H, W)."""
    each = chain.join("Unsqueeze", [planes, chain.indices(1)])
    products = chain.join("Mul", [each, matrix])
    return chain.join("ReduceSum", [products, chain.indices(2)], keepdims=0)


def _repeated(chain: NodeChain, planes: str, *scales_or_sizes: str) -> str:
    return chain.join(
        "Resize",
        [planes, "", *scales_or_sizes],
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _rounded(chain: NodeChain, planes: str, layout: YuvLayout) -> str:
    bounds = chain.constant(np.float32(0)), chain.constant(np.float32(layout.largest))
    return chain.join("Round", [chain.join("Clip", [planes, *bounds])])


def _join_bytes(chain: NodeChain, layout: YuvLayout) -> None:
    """Convert little-endian byte pairs (.., 2) to sample values (.., 1)."""
    weights = np.array([1, 256], np.float32) / np.float32(layout.step)
    chain.add("Mul", weights)
    chain.add("ReduceSum", np.array([3], np.int64))


def _split_bytes(chain: NodeChain, layout: YuvLayout) -> None:
    """Convert sample values (.., 1) to little-endian byte pairs (.., 2)."""
    value = chain.value
    per_high = np.float32(256 / layout.step)
    chain.add("Mul", np.float32(1 / per_high))
    high = chain.add("Floor")
    chain.add("Mul", per_high)
    low = chain.join("Sub", [value, chain.value])
    low = chain.join("Mul", [low, chain.constant(np.float32(layout.step))])
    chain.value = chain.join("Concat", [low, high], axis=3)
