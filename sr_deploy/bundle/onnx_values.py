"""What is known about the results of ONNX operations: shapes, and the few values that give them.

Exporters compute the shapes of reshaped and resized images inside the graph, from the image's
shape. Only such values are computed, of up to 1024 elements.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.bundle import onnx_file, onnx_shapes
from sr_deploy.bundle.onnx_shapes import Sized

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sr_deploy.bundle.onnx_file import OnnxNode
    from sr_deploy.bundle.onnx_shapes import Shape

    Compute = Callable[[OnnxNode, Sequence[Any], Shape], Any]


def results(node: OnnxNode, inputs: Sequence[Sized | None]) -> list[Sized]:
    """Return what is known about the results of an operation of ONNX itself."""
    fixed = all(each.fixed for each in inputs if each is not None)
    try:
        shapes = onnx_shapes.shapes(node, inputs)
    except onnx_shapes.UNKNOWN:
        return [Sized(None, onnx_shapes.estimate(node, inputs), fixed)] * len(node.outputs)
    found = [Sized.of(shape, fixed=fixed) for shape in shapes]
    if len(found) == 1 and found[0].count <= onnx_file.SMALL and node.op in _COMPUTED:
        try:
            with np.errstate(all="ignore"):
                values = np.asarray(_COMPUTED[node.op](node, inputs, shapes[0]))
        except onnx_shapes.UNKNOWN:
            return found
        if values.size <= onnx_file.SMALL:
            return [Sized.of(values.shape, fixed=fixed, values=values)]
    return found


def _array(function: Callable[..., Any]) -> Compute:
    """Return a computation on the values of all inputs."""

    def compute(_: OnnxNode, inputs: Sequence[Any], shape: Shape) -> Any:
        arrays = [each.values for each in inputs]
        if any(each is None for each in arrays):
            raise ValueError
        return function(*arrays)

    return compute


def _divide(left: NDArray[Any], right: NDArray[Any]) -> Any:
    whole = left.dtype.kind in "iu" and right.dtype.kind in "iu"
    return np.floor_divide(left, right) if whole else np.divide(left, right)


def _cast(node: OnnxNode, inputs: Sequence[Any], _: Shape) -> Any:
    return inputs[0].values.astype(onnx_file.TYPES[node.attributes["to"]])


def _concat(node: OnnxNode, inputs: Sequence[Any], _: Shape) -> Any:
    return np.concatenate([each.values for each in inputs], node.attributes["axis"])


def _gather(node: OnnxNode, inputs: Sequence[Any], _: Shape) -> Any:
    values, indices = inputs[0].values, inputs[1].values
    return np.take(values, indices.astype(int), node.attributes.get("axis", 0))


def _reshaped(_: OnnxNode, inputs: Sequence[Any], shape: Shape) -> Any:
    return inputs[0].values.reshape(shape)


def _fill(node: OnnxNode, _: Sequence[Any], shape: Shape) -> Any:
    value = node.attributes.get("value")
    return np.full(shape, np.float32(0) if value is None else value.values.reshape(-1)[0])


_COMPUTED: dict[str, Compute] = {
    "Shape": lambda node, x, _: np.array(x[0].known[onnx_shapes.shape_range(node)], np.int64),
    "Size": lambda _, x, __: np.array(math.prod(x[0].known), np.int64),
    "Add": _array(np.add),
    "Sub": _array(np.subtract),
    "Mul": _array(np.multiply),
    "Div": _array(_divide),
    "Mod": _array(np.mod),
    "Pow": _array(np.power),
    "Max": _array(lambda *each: np.maximum.reduce(np.broadcast_arrays(*each))),
    "Min": _array(lambda *each: np.minimum.reduce(np.broadcast_arrays(*each))),
    "Neg": _array(np.negative),
    "Abs": _array(np.abs),
    "Floor": _array(np.floor),
    "Ceil": _array(np.ceil),
    "Round": _array(np.round),
    "Sqrt": _array(np.sqrt),
    "Exp": _array(np.exp),
    "Equal": _array(np.equal),
    "Less": _array(np.less),
    "Greater": _array(np.greater),
    "Not": _array(np.logical_not),
    "Where": _array(np.where),
    "Identity": _array(lambda each: each),
    "Cast": _cast,
    "ReduceProd": lambda _, x, shape: np.reshape(np.prod(x[0].ints()), shape),
    "ReduceSum": lambda _, x, shape: np.reshape(np.sum(x[0].ints()), shape),
    "Concat": _concat,
    "Gather": _gather,
    "Slice": lambda node, x, _: x[0].values[tuple(onnx_shapes.slices(node, x))],
    "Reshape": _reshaped,
    "Unsqueeze": _reshaped,
    "Squeeze": _reshaped,
    "Flatten": _reshaped,
    "Transpose": lambda node, x, _: x[0].values.transpose(node.attributes.get("perm")),
    "Expand": lambda _, x, shape: np.broadcast_to(x[0].values, shape),
    "Tile": lambda _, x, __: np.tile(x[0].values, x[1].ints()),
    "Range": lambda _, x, __: np.arange(*(each.values.reshape(-1)[0] for each in x)),
    "ConstantOfShape": _fill,
}
