"""Freeing the size and the batch of ONNX files that accept one only.

Exporters without dynamic axes write sizes into the graph: as the target of a Reshape (a pixel
shuffle, before there was an operator for it), or of a Resize. These are replaced by operators that
follow from the input. What remains frozen shows when the graph runs at other sizes; whether it then
computes the same, when its result is compared with the file's own, run on parts of an image.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_export import photos
from sr_export.graph import onnx_graph, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sr_export.graph.padding import Padding

    Run = Callable[[NDArray[Any]], NDArray[Any]]

# Orders of axes between the two Reshapes of a pixel shuffle, and the mode of DepthToSpace.
_SHUFFLES = {(0, 1, 4, 2, 5, 3): ("CRD", 2), (0, 3, 4, 1, 5, 2): ("DCR", 1)}
_UNSHUFFLE = (0, 1, 3, 5, 2, 4)


def freed(model: onnx.ModelProto, *, size: bool, batch: bool) -> onnx.ModelProto:
    """Return a copy with a free size or batch, as far as operators permit.

    Args:
        model: A float NCHW graph with one input and one output.
        size: Whether height and width become free.
        batch: Whether the batch becomes free.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    if size or batch:
        alone = onnx.ModelProto()
        alone.CopyFrom(model)
        dims = alone.graph.input[0].type.tensor_type.shape.dim
        dims[0].dim_value = dims[0].dim_value or 1
        shaped = onnx.shape_inference.infer_shapes(alone, data_prop=True).graph
        shapes = {
            value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in (*shaped.value_info, *shaped.input, *shaped.output)
        }
        _free_resizes(result.graph, shapes)
        _free_shuffles(result.graph, shapes)
    for value, prefix in ((result.graph.input[0], ""), (result.graph.output[0], "out_")):
        dims = value.type.tensor_type.shape.dim
        if batch:
            dims[0].dim_param = "batch"
        if size or prefix:
            dims[2].dim_param, dims[3].dim_param = f"{prefix}height", f"{prefix}width"
    return result


def _free_resizes(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> None:
    """Replace constant sizes of Resize by the factors that they mean."""
    constants = {each.name: each for each in graph.initializer}
    for node in graph.node:
        shape = shapes.get(node.input[0], []) if node.op_type == "Resize" else []
        if len(node.input) < 4 or node.input[3] not in constants or not all(shape):
            continue
        target = numpy_helper.to_array(constants[node.input[3]])
        if len(target) != len(shape):
            continue
        factors = (target / np.array(shape)).astype(np.float32)
        name = f"{node.output[0]}_factors"
        graph.initializer.append(numpy_helper.from_array(factors, name))
        del node.input[2:]
        node.input.append(name)


def _free_shuffles(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> None:
    """Replace Reshape, Transpose, Reshape by DepthToSpace or SpaceToDepth where they mean it."""
    makers = {name: node for node in graph.node for name in node.output}
    nodes = []
    for last in graph.node:
        turn = makers.get(last.input[0]) if last.op_type == "Reshape" else None
        first = makers.get(turn.input[0]) if turn and turn.op_type == "Transpose" else None
        if turn is None or first is None or first.op_type != "Reshape":
            nodes.append(last)
            continue
        source = first.input[0]
        inner = shapes.get(first.output[0], [])
        order = tuple(turn.attribute[0].ints)
        given, taken = shapes.get(source, []), shapes.get(last.output[0], [])
        nodes += _shuffle(graph, source, last, order, inner, given, taken) or [last]
    del graph.node[:]
    graph.node.extend(nodes)
    onnx_graph.keep_needed(graph)


def _shuffle(
    graph: onnx.GraphProto,
    source: str,
    last: onnx.NodeProto,
    order: tuple[int, ...],
    inner: list[int],
    given: list[int],
    taken: list[int],
) -> list[onnx.NodeProto]:
    """Return the nodes that replace a pixel shuffle or its inverse; empty if it is neither."""
    if len(inner) != 6 or len(given) != 4 or len(taken) != 4 or not all((*inner, *given, *taken)):
        return []
    output = last.output[0]
    if order in _SHUFFLES:
        mode, axis = _SHUFFLES[order]
        block, channels = inner[axis], math.prod(inner[1:4]) // inner[axis] ** 2
        wanted = [given[0], channels, given[2] * block, given[3] * block]
        if inner[axis + 1] == block and inner[4:] == given[2:] and taken == wanted:
            options: dict[str, Any] = {"blocksize": block, "mode": mode}
            return [helper.make_node("DepthToSpace", [source], [output], **options)]
    if order == _UNSHUFFLE and inner[3] == inner[5]:
        block, channels = inner[3], given[1]
        if taken == [given[0], channels * block**2, given[2] // block, given[3] // block]:
            index = np.arange(channels * block**2).reshape(block**2, channels).T.reshape(-1)
            graph.initializer.append(numpy_helper.from_array(index, f"{output}_order"))
            deep = f"{output}_deep"
            return [
                helper.make_node("SpaceToDepth", [source], [deep], blocksize=block),
                helper.make_node("Gather", [deep, f"{output}_order"], [output], axis=1),
            ]
    return []


def prove(
    original: Run,
    run: Run,
    size: tuple[int, int],
    channels: int,
    padding: Padding,
    tolerance: float,
) -> None:
    """Compare a freed graph with the file's own result on parts of a larger image.

    A part has borders where the image goes on, so only what is far from them can be compared: at
    each corner of the image, the quarter that lies in the corner, and the middle of a part in the
    middle.

    Args:
        original: The file, which accepts `size` only.
        run: The freed graph.
        size: Height and width.
        channels: Number of channels.
        padding: What the graph needs; parts begin on its grid.
        tolerance: The largest difference.

    Raises:
        ExportError: They differ.
    """
    grid, scale = padding.grid, padding.scale
    height, width = (side + max(side // 2 // grid, 1) * grid for side in size)
    image = photos.as_float(photos.batch(1, height, width, channels))
    whole = run(image)
    for rows, columns in itertools.product(
        *(
            list(_parts(side, whole_side, grid))
            for side, whole_side in zip(size, (height, width), strict=True)
        )
    ):
        part = original(np.ascontiguousarray(image[:, :, rows[0], columns[0]]))
        length = part.shape[2:]
        window = tuple(
            slice(each[0].start * scale, each[0].start * scale + side)
            for each, side in zip((rows, columns), length, strict=True)
        )
        kept = tuple(
            slice(round(low * side), round(high * side))
            for (_, low, high), side in zip((rows, columns), length, strict=True)
        )
        verify.difference(
            whole[:, :, window[0], window[1]][:, :, kept[0], kept[1]],
            part[:, :, kept[0], kept[1]],
            "at a part of a larger image",
            tolerance,
        )


def _parts(side: int, whole: int, grid: int) -> Iterator[tuple[slice, float, float]]:
    """Yield parts of a side: which, and from where to where it is far from cuts."""
    for start, low, high in (
        (0, 0.0, 0.5),
        ((whole - side) // 2 // grid * grid, 0.375, 0.625),
        (whole - side, 0.5, 1.0),
    ):
        yield slice(start, start + side), low, high


def check_batch(run: Run, channels: int, size: tuple[int, int]) -> None:
    """Check that a batch gives what its images give alone.

    Raises:
        ExportError: It does not.
    """
    images = np.random.default_rng(0).random((2, channels, *size), np.float32)
    alone = np.concatenate([run(image[None]) for image in images])
    verify.difference(run(images), alone, "for a batch of two")
