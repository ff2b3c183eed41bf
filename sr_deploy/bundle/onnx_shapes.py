"""Shapes of the results of ONNX operations, for `onnx_bounds`.

A rule per operation; it raises any of `UNKNOWN` where it cannot tell, for example because an input
has no known shape.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sr_deploy.bundle.onnx_file import OnnxNode

    Shape = tuple[int, ...]


@dataclass(frozen=True)
class Sized:
    """What is known about a value.

    Attributes:
        shape: Its shape; None: unknown.
        count: Its elements; an estimate without a shape.
        fixed: It depends on constants only, so that a backend computes it while loading.
        values: The elements, of small values that depend on shapes and constants only.
    """

    shape: Shape | None
    count: int
    fixed: bool = False
    values: NDArray[Any] | None = None

    @classmethod
    def of(cls, shape: Shape, *, fixed: bool = False, values: Any = None) -> Sized:
        """Return a value of a known shape."""
        return cls(shape, math.prod(shape), fixed, values)

    @property
    def known(self) -> Shape:
        """Its shape, where a rule needs it."""
        if self.shape is None:
            raise ValueError
        return self.shape

    def ints(self) -> list[int]:
        """Return its elements as integers, where a rule needs them."""
        if self.values is None:
            raise ValueError
        return [int(each) for each in self.values.reshape(-1)]


UNKNOWN = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
_FAR = 1 << 30


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Their size comes from the values of inputs: of constants only, it must be known.
GROWING = _words(
    "ConstantOfShape Expand Tile Range Resize Upsample Pad OneHot RandomNormal RandomUniform"
)


def estimate(node: OnnxNode, inputs: Sequence[Any]) -> int:
    """Return the elements of a result whose shape is unknown."""
    counts = [each.count for each in inputs if each is not None]
    largest = max(counts, default=1)
    try:
        if node.op == "Concat":
            return sum(counts)
        if node.op == "Tile":
            return largest * math.prod(inputs[1].ints())
        if node.op == "Expand":
            return max(largest, math.prod(inputs[1].ints()))
        if node.op == "Conv":
            outputs, channels, *_ = inputs[1].known
            return counts[0] * outputs // (channels * node.attributes.get("group", 1))
    except UNKNOWN:
        pass
    return largest


def shapes(node: OnnxNode, inputs: Sequence[Any]) -> list[Shape]:
    """Return the shapes of the results of an operation of ONNX itself.

    Raises:
        UNKNOWN: One of these, where they are unknown.
    """
    if node.op == "Split":
        return _split(node, inputs)
    if node.op in _SAME:
        return [inputs[0].known] * len(node.outputs)
    if node.op in _BROADCAST:
        return [_broadcast([each.known for each in inputs])]
    return [_RULES[node.op](node, inputs)] * len(node.outputs)


_SAME = _words(
    "Relu LeakyRelu Elu Selu Celu Gelu Sigmoid HardSigmoid HardSwish Mish Tanh Softmax "
    "LogSoftmax Softplus Softsign Erf Exp Log Sqrt Reciprocal Abs Neg Sign Sin Cos Floor Ceil "
    "Round Not Clip Cast CastLike Identity Dropout BatchNormalization InstanceNormalization "
    "LayerNormalization LRN GroupNormalization LpNormalization QuantizeLinear DequantizeLinear "
    "CumSum ScatterND ScatterElements Trilu EyeLike RandomNormalLike RandomUniformLike PRelu "
    "Swish"
)
_REDUCING = _words(
    "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare "
    "ReduceLogSum ReduceLogSumExp ArgMax ArgMin"
)
_BROADCAST = _words(
    "Add Sub Mul Div Pow Mod Max Min Mean Sum Where And Or Xor Equal Greater Less "
    "GreaterOrEqual LessOrEqual BitShift"
)


def _broadcast(shapes: Sequence[Shape]) -> Shape:
    found = []
    for sides in itertools.zip_longest(*(shape[::-1] for shape in shapes), fillvalue=1):
        found.append(0 if 0 in sides else max(sides))
    return tuple(found[::-1])


def _spatial(node: OnnxNode, sides: Shape, kernel: Sequence[int]) -> Shape:
    """Return the sides of the result of a convolution or pooling."""
    stride, dilation, pads = _window(node, len(sides))
    if node.attributes.get("auto_pad", b"NOTSET").startswith(b"SAME"):
        return tuple(-(-side // step) for side, step in zip(sides, stride, strict=True))
    return tuple(
        max(1, (side + before + after - gap * (reach - 1) - 1) // step + 1)
        for side, before, after, gap, reach, step in zip(
            sides, pads[: len(sides)], pads[len(sides) :], dilation, kernel, stride, strict=True
        )
    )


def _window(node: OnnxNode, rank: int) -> tuple[list[int], list[int], list[int]]:
    stride = node.attributes.get("strides") or [1] * rank
    dilation = node.attributes.get("dilations") or [1] * rank
    return stride, dilation, node.attributes.get("pads") or [0] * 2 * rank


def _conv(node: OnnxNode, inputs: Sequence[Any], weight: int = 1) -> Shape:
    batch, _, *sides = inputs[0].known
    outputs, _, *kernel = inputs[weight].known
    return (batch, outputs, *_spatial(node, tuple(sides), kernel))


def _conv_transpose(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    batch, _, *sides = inputs[0].known
    _, outputs, *kernel = inputs[1].known
    stride, dilation, pads = _window(node, len(sides))
    more = node.attributes.get("output_padding") or [0] * len(sides)
    found = node.attributes.get("output_shape") or [
        (side - 1) * step + extra + gap * (reach - 1) + 1 - before - after
        for side, step, extra, gap, reach, before, after in zip(
            sides, stride, more, dilation, kernel, pads, pads[len(sides) :], strict=False
        )
    ]
    return (batch, outputs * node.attributes.get("group", 1), *found[-len(sides) :])


def _pool(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    batch, channels, *sides = inputs[0].known
    return (batch, channels, *_spatial(node, tuple(sides), node.attributes["kernel_shape"]))


def _matmul(left: Shape, right: Shape) -> Shape:
    rows, columns = left[-2:-1], right[-1:] if len(right) > 1 else ()
    return (*_broadcast([left[:-2], right[:-2]]), *rows, *columns)


def _gemm(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    left, right = inputs[0].known, inputs[1].known
    rows = left[1 if node.attributes.get("transA") else 0]
    return rows, right[0 if node.attributes.get("transB") else 1]


def _einsum(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    terms, _, output = node.attributes["equation"].decode().replace(" ", "").partition("->")
    sides: dict[str, int] = {}
    for term, value in zip(terms.split(","), inputs, strict=True):
        for label, side in zip(term, value.known, strict=True):
            sides[label] = max(side, sides.get(label, 1))
    return tuple(sides[label] for label in output)


def _concat(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shapes = [each.known for each in inputs]
    axis, found = node.attributes["axis"], list(shapes[0])
    found[axis] = sum(shape[axis] for shape in shapes)
    return tuple(found)


def _split(node: OnnxNode, inputs: Sequence[Any]) -> list[Shape]:
    shape, axis = list(inputs[0].known), node.attributes.get("axis", 0)
    count = len(node.outputs)
    sizes = node.attributes.get("split") or (
        inputs[1].ints() if inputs[1:] else [-(-shape[axis] // count)] * count
    )
    return [(*shape[:axis], size, *shape[axis:][1:]) for size in sizes]


def _reshape(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    wanted = inputs[1].ints()
    if not node.attributes.get("allowzero"):
        wanted = [inputs[0].known[i] if side == 0 else side for i, side in enumerate(wanted)]
    rest = math.prod(side for side in wanted if side != -1)
    return tuple(inputs[0].count // max(1, rest) if side == -1 else side for side in wanted)


def _flatten(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    axis = node.attributes.get("axis", 1)
    rows = math.prod(inputs[0].known[:axis])
    return rows, math.prod(inputs[0].known[axis:])


def _transpose(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape = inputs[0].known
    return tuple(shape[i] for i in node.attributes.get("perm") or range(len(shape))[::-1])


def _axes(node: OnnxNode, inputs: Sequence[Any], index: int = 1) -> list[int] | None:
    found: list[int] | None = node.attributes.get("axes")
    if found is None and inputs[index:] and inputs[index] is not None:
        found = inputs[index].ints()
    return found


def _unsqueeze(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape, axes = list(inputs[0].known), _axes(node, inputs) or []
    rank = len(shape) + len(axes)
    for axis in sorted(each % rank for each in axes):
        shape.insert(axis, 1)
    return tuple(shape)


def _squeeze(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape, axes = inputs[0].known, _axes(node, inputs)
    gone = [i for i, side in enumerate(shape) if side == 1] if axes is None else axes
    gone = [each % len(shape) for each in gone]
    return tuple(side for i, side in enumerate(shape) if i not in gone)


def _reduce(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape, axes = inputs[0].known, _axes(node, inputs)
    if node.op.startswith("Arg"):
        axes = [node.attributes.get("axis", 0)]
    gone = range(len(shape)) if axes is None else [each % len(shape) for each in axes]
    kept = [1] if node.attributes.get("keepdims", 1) else []
    return tuple(
        itertools.chain(*([side] if i not in gone else kept for i, side in enumerate(shape)))
    )


def _gather(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape, axis = inputs[0].known, node.attributes.get("axis", 0) % len(inputs[0].known)
    return (*shape[:axis], *inputs[1].known, *shape[axis + 1 :])


def _gather_nd(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape, indices = inputs[0].known, inputs[1].known
    return (*indices[:-1], *shape[node.attributes.get("batch_dims", 0) + indices[-1] :])


def slices(node: OnnxNode, inputs: Sequence[Any]) -> list[slice]:
    """Return the ranges of Slice for every axis."""
    if "starts" in node.attributes:
        starts, ends = node.attributes["starts"], node.attributes["ends"]
    else:
        starts, ends = inputs[1].ints(), inputs[2].ints()
    axes = _axes(node, inputs, 3) or list(range(len(starts)))
    steps = inputs[4].ints() if inputs[4:] else [1] * len(starts)
    rank = len(inputs[0].known)
    found = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # Backwards, an end far below 0 includes the first element.
        found[axis] = slice(start, None if step < 0 and end < -_FAR else end, step)
    return found


def _slice(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    ranges = slices(node, inputs)
    return tuple(
        len(range(*each.indices(side))) for each, side in zip(ranges, inputs[0].known, strict=True)
    )


def _pad(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape = list(inputs[0].known)
    pads = node.attributes.get("pads") or node.attributes.get("paddings") or inputs[1].ints()
    axes = _axes(node, inputs, 3) or range(len(shape))
    for axis, before, after in zip(axes, pads, pads[len(pads) // 2 :], strict=False):
        shape[axis] = max(0, shape[axis] + before + after)
    return tuple(shape)


def _resize(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape = inputs[0].known
    found, axes = list(shape), node.attributes.get("axes") or range(len(shape))
    if inputs[3:] and inputs[3] is not None:
        for axis, side in zip(axes, inputs[3].ints(), strict=True):
            found[axis] = side
        return tuple(found)
    scales = node.attributes.get("scales")
    if scales is None:  # input 1 of Upsample and of the first Resize, else input 2
        scales = inputs[-1].values.reshape(-1).tolist()
    for axis, scale in zip(axes, scales, strict=True):
        found[axis] = int(shape[axis] * scale)
    return tuple(found)


def _range(_: OnnxNode, inputs: Sequence[Any]) -> Shape:
    start, end, step = (float(each.values.reshape(-1)[0]) for each in inputs)
    return (max(0, math.ceil((end - start) / step)),)


def _depth_to_space(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    batch, channels, height, width = inputs[0].known
    block = node.attributes["blocksize"]
    return batch, channels // (block * block), height * block, width * block


def _space_to_depth(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    batch, channels, height, width = inputs[0].known
    block = node.attributes["blocksize"]
    return batch, channels * block * block, height // block, width // block


def _one_hot(node: OnnxNode, inputs: Sequence[Any]) -> Shape:
    shape, axis = inputs[0].known, node.attributes.get("axis", -1)
    axis = axis % (len(shape) + 1)
    return (*shape[:axis], inputs[1].ints()[0], *shape[axis:])


_RULES: dict[str, Callable[[Any, Sequence[Any]], Shape]] = {
    "Conv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": lambda node, inputs: _conv(node, inputs, 3),
    "ConvTranspose": _conv_transpose,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": lambda _, x: (*x[0].known[:2], *[1] * len(x[0].known[2:])),
    "MatMul": lambda _, x: _matmul(x[0].known, x[1].known),
    "MatMulInteger": lambda _, x: _matmul(x[0].known, x[1].known),
    "QLinearMatMul": lambda _, x: _matmul(x[0].known, x[3].known),
    "Gemm": _gemm,
    "Einsum": _einsum,
    "Concat": _concat,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Flatten": _flatten,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "GatherElements": lambda _, x: x[1].known,
    "Slice": _slice,
    "Pad": _pad,
    "Resize": _resize,
    "Upsample": _resize,
    "Expand": lambda _, x: _broadcast([x[0].known, tuple(x[1].ints())]),
    "Tile": lambda _, x: tuple(a * b for a, b in zip(x[0].known, x[1].ints(), strict=True)),
    "ConstantOfShape": lambda _, x: tuple(x[0].ints()),
    "RandomNormal": lambda node, _: tuple(node.attributes["shape"]),
    "RandomUniform": lambda node, _: tuple(node.attributes["shape"]),
    "Range": _range,
    "Shape": lambda node, x: (len(x[0].known[shape_range(node)]),),
    "Size": lambda _, x: (),
    "DepthToSpace": _depth_to_space,
    "SpaceToDepth": _space_to_depth,
    "OneHot": _one_hot,
}
_RULES |= dict.fromkeys(_REDUCING, _reduce)


def shape_range(node: OnnxNode) -> slice:
    """Return the range of axes that Shape gives."""
    return slice(node.attributes.get("start"), node.attributes.get("end"))
