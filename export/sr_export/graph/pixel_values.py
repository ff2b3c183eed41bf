"""Put the conversion of pixel values around a float NCHW graph, which then uses RGB in [0, 1]."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx

from sr_export.graph.onnx_graph import EXACT, NodeChain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_export.models.ranges import Ranges

_INPUT, _OUTPUT = "ranged_input", "ranged_output"


def put_into(model: onnx.ModelProto, ranges: Ranges, scale: int = 1) -> onnx.ModelProto:
    """Return a copy of a float graph that uses RGB in [0, 1].

    Args:
        model: A graph with one NCHW input and output.
        ranges: The pixel values that it uses.
        scale: The scale of the graph alone, without `ranges.enlarge`.
    """
    ranged = onnx.ModelProto()
    ranged.CopyFrom(model)
    if ranges.plain:
        return ranged
    graph = ranged.graph
    source, result = graph.input[0].name, graph.output[0].name
    _rename(graph, source, _INPUT)
    _rename(graph, result, _OUTPUT)
    channels = graph.input[0].type.tensor_type.shape.dim[1].dim_value
    luma = ranges.luma_only and channels == 1

    before = NodeChain(source, EXACT)
    colors = _mixed(before, source, *ranges.to_color()) if ranges.color != "rgb" else source
    image = before.join("Slice", [colors, *map(before.indices, (0, 1, 1))]) if luma else colors
    given = _enlarged(before, image, ranges.enlarge, ranges.cubic)
    inner = NodeChain(given, "ranged_")
    inner.add("Mul", ranges.input_map()[0])
    inner.add("Add", ranges.input_map()[1])
    _end(inner, _INPUT)

    after = NodeChain(_OUTPUT, "ranged_")
    after.add("Mul", ranges.output_map()[0])
    after.add("Add", ranges.output_map()[1])
    outer = NodeChain(after.value, EXACT)
    if ranges.residual != "none":
        outer.value = outer.join("Add", [outer.value, given])
    if luma:
        chroma = outer.join("Slice", [colors, *map(outer.indices, (1, 3, 1))])
        chroma = _enlarged(outer, chroma, scale * ranges.enlarge, ranges.cubic)
        outer.value = outer.join("Concat", [outer.value, chroma], axis=1)
    if ranges.luma_only:
        bounds = outer.constant(np.float32(0)), outer.constant(np.float32(1))
        outer.value = outer.join("Clip", [outer.value, *bounds])
    if ranges.color != "rgb":
        outer.value = _mixed(outer, outer.value, *ranges.from_color())
    _end(outer if outer.nodes else after, result)

    chains = (before, inner, after, outer)
    nodes = [*before.nodes, *inner.nodes, *graph.node, *after.nodes, *outer.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(constant for chain in chains for constant in chain.constants)
    if luma:
        for value in (graph.input[0], graph.output[0]):
            value.type.tensor_type.shape.dim[1].dim_value = 3
    if ranges.enlarge > 1:
        _enlarge_fixed_sides(graph, ranges.enlarge)
    onnx.checker.check_model(ranged)
    return ranged


def _end(chain: NodeChain, name: str) -> None:
    """Rename the output of a chain's last node."""
    chain.nodes[-1].output[0] = chain.value = name


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value inside the graph; the input or output of the graph keeps its name."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _mixed(
    chain: NodeChain, planes: str, matrix: NDArray[np.float32], offset: NDArray[np.float32]
) -> str:
    """Multiply a matrix with every pixel, and add an offset.

    Element by element: a matrix product may run in lower precision.
    """
    if not np.any(offset) and np.isin(matrix, (0, 1)).all():
        order = chain.constant(matrix.argmax(axis=1).astype(np.int64))
        return chain.join("Gather", [planes, order], axis=1)
    each = chain.join("Unsqueeze", [planes, chain.indices(1)])
    products = chain.join("Mul", [each, chain.constant(matrix.reshape(1, *matrix.shape, 1, 1))])
    mixed = chain.join("ReduceSum", [products, chain.indices(2)], keepdims=0)
    return chain.join("Add", [mixed, chain.constant(offset.reshape(1, -1, 1, 1))])


def _enlarged(chain: NodeChain, planes: str, factor: int, coefficient: float) -> str:
    if factor == 1:
        return planes
    scales = chain.constant(np.array([1, 1, factor, factor], np.float32))
    return chain.join(
        "Resize",
        [planes, "", scales],
        mode="cubic",
        cubic_coeff_a=coefficient,
        coordinate_transformation_mode="half_pixel",
    )


def _enlarge_fixed_sides(graph: onnx.GraphProto, factor: int) -> None:
    """Divide the sides of a fixed input: the graph enlarges them itself."""
    for dim in graph.input[0].type.tensor_type.shape.dim[2:]:
        if dim.dim_value:
            dim.dim_value //= factor
