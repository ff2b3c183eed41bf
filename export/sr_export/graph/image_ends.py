"""The image input and output of an ONNX file: their layout and type, and which output it is.

Files of other exporters have images as NCHW or NHWC, as float32, float16 or bytes. Both directions
are here: running the file itself on NCHW float32 images, and changing its graph to have them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from sr_deploy.errors import CheckpointError, ExportError
from sr_export import photos
from sr_export.graph import onnx_graph
from sr_export.graph.onnx_graph import NodeChain
from sr_export.graph.onnx_runner import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Layout = Literal["NCHW", "NHWC"]
_TO_NCHW, _TO_NHWC = (0, 3, 1, 2), (0, 2, 3, 1)
_TYPES: dict[int, np.dtype[Any]] = {
    TensorProto.FLOAT: np.dtype(np.float32),
    TensorProto.FLOAT16: np.dtype(np.float16),
    TensorProto.UINT8: np.dtype(np.uint8),
}
# Sides to try where the file does not tell which it accepts.
_SIDES = (64, 96, 128, 256)


@dataclass(frozen=True)
class ImageEnd:
    """One end of the file: a batch of images."""

    name: str
    layout: Layout
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class ImageEnds:
    """Both ends of the file, and the sizes that it accepts."""

    given: ImageEnd
    result: ImageEnd
    channels: Literal[1, 3]
    batch: int | None
    """The only batch that it accepts; None: any."""
    size: tuple[int, int] | None
    """The only (height, width) that it accepts; None: any."""
    choice: str
    """Which output was chosen of several, for the user; empty for the only one."""

    @property
    def bytes(self) -> bool:
        """Whether images are bytes at one end at least."""
        return np.uint8 in (self.given.dtype, self.result.dtype)


class Original:
    """The file itself, as a function on NCHW float32 images; bytes become [0, 1]."""

    def __init__(self, session: OnnxSession, ends: ImageEnds) -> None:
        self._session = session
        self._ends = ends

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """Run the file, if it accepts one batch only, on parts of a batch.

        Raises:
            ExportError: ONNX Runtime failed.
        """
        count, accepted = len(image), self._ends.batch or len(image)
        missing = -count % accepted
        padded = np.concatenate([image, image[:1].repeat(missing, axis=0)]) if missing else image
        parts = [
            self._run(padded[first : first + accepted]) for first in range(0, len(padded), accepted)
        ]
        return np.concatenate(parts)[:count]

    def _run(self, image: NDArray[Any]) -> NDArray[Any]:
        result = self._ends.result
        (output,) = self._session.run(_feed(self._ends.given, image), [result.name])
        output = output.transpose(_TO_NCHW) if result.layout == "NHWC" else output
        found = np.ascontiguousarray(output, np.float32)
        return found / 255 if result.dtype == np.uint8 else found


def _feed(end: ImageEnd, image: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return an image, NCHW float32, in the form of an input, by its name."""
    values = (image * 255).round().clip(0, 255) if end.dtype == np.uint8 else image
    values = values.transpose(_TO_NHWC) if end.layout == "NHWC" else values
    return {end.name: np.ascontiguousarray(values.astype(end.dtype))}


def find(model: onnx.ModelProto, wanted: str | None) -> tuple[ImageEnds, Original]:
    """Return the ends of a file, and the file as a function; both are found by running it.

    Args:
        model: A model that ONNX Runtime executes.
        wanted: Name or number of the output to use; None: the only one that is an image.

    Raises:
        CheckpointError: It is no network from one image to another, or has several such outputs.
    """
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    outputs = {each.name: each for each in model.graph.output}
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs)
        raise CheckpointError(
            f"it has {len(inputs)} inputs ({names}); only networks with one image as input are "
            "supported: make the others constants, and export it again"
        )
    if wanted is not None and wanted.isdecimal() and int(wanted) < len(outputs):
        wanted = wanted if wanted in outputs else list(outputs)[int(wanted)]
    if wanted is not None and wanted not in outputs:
        raise CheckpointError(f"it has no output {wanted!r}; it has {', '.join(outputs)}")
    try:
        session = OnnxSession(model)
    except ExportError as error:
        raise CheckpointError(str(error)) from error
    failure = ""
    for given, channels, batch, size in _possible(inputs[0]):
        for probed in [size] if size else [(side, side) for side in _SIDES]:
            photo = photos.as_float(photos.batch(batch or 1, *probed, channels))
            try:
                found = session.run(_feed(given, photo), list(outputs))
            except ExportError as error:
                failure = failure or " ".join(str(error).split())[:200]
                continue
            shapes = {name: each.shape for name, each in zip(outputs, found, strict=True)}
            name, layout = _chosen(shapes, channels, probed, wanted)
            result = ImageEnd(name, layout, _dtype(outputs[name]))
            choice = f"output {name!r} of {', '.join(outputs)}" if len(outputs) > 1 else ""
            ends = ImageEnds(given, result, channels, batch, size, choice)
            return ends, Original(session, ends)
    raise CheckpointError(f"it accepts no image: {failure}")


def _chosen(
    shapes: dict[str, tuple[int, ...]], channels: int, size: tuple[int, int], wanted: str | None
) -> tuple[str, Layout]:
    """Return the name and the layout of the output that is an image.

    Args:
        shapes: The shapes of all outputs by name.
        channels: Number of channels of the input.
        size: Height and width of the input.
        wanted: Name of the output to use.
    """
    found: dict[str, tuple[int, Layout]] = {}
    for name, shape in shapes.items():
        layouts: tuple[tuple[Layout, int, int], ...] = (("NHWC", 3, 1), ("NCHW", 1, 2))
        for layout, axis, first in layouts:
            if len(shape) == 4 and shape[axis] == channels:
                missing = [
                    -new % old for new, old in zip(shape[first : first + 2], size, strict=True)
                ]
                if missing[0] == missing[1]:
                    found[name] = missing[0], layout
    listed = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())
    if wanted is not None:
        found = {name: each for name, each in found.items() if name == wanted}
    elif whole := {name: each for name, each in found.items() if each[0] == 0}:
        found = whole
    if not found:
        of = f"its output {wanted!r}" if wanted else "no output"
        is_not = "is no" if wanted else "is an"
        raise CheckpointError(
            f"{of} {is_not} image of a whole multiple of {size[0]}x{size[1]} with {channels} "
            f"channel{'s' * (channels > 1)}; its outputs are {listed}"
        )
    if len(found) > 1:
        raise CheckpointError(
            f"{len(found)} of its outputs are images ({', '.join(found)}); choose one with "
            f"--network-output NAME; its outputs are {listed}"
        )
    ((name, (_, layout)),) = found.items()
    return name, layout


def _dtype(value: onnx.ValueInfoProto) -> np.dtype[Any]:
    kind = value.type.tensor_type.elem_type
    if kind not in _TYPES:
        raise CheckpointError(
            f"{value.name!r} is of type {TensorProto.DataType.Name(kind)}; only images of float32, "
            "float16 or uint8 are supported"
        )
    return _TYPES[kind]


def _possible(
    value: onnx.ValueInfoProto,
) -> Iterator[tuple[ImageEnd, Literal[1, 3], int | None, tuple[int, int] | None]]:
    """Yield what an input may be, likeliest first: its form, channels, batch and size."""
    dims = [max(each.dim_value, 0) for each in value.type.tensor_type.shape.dim]
    if len(dims) != 4 and value.type.tensor_type.HasField("shape"):
        raise CheckpointError(
            f"{value.name!r} has rank {len(dims)}; only batches of images (rank 4) are supported"
        )
    dims, dtype = dims or [0, 0, 0, 0], _dtype(value)
    layouts: tuple[tuple[Layout, int], ...] = (("NCHW", 1), ("NHWC", 3))
    sure = [each for each in layouts if dims[each[1]] in (1, 3)]
    possible = sure or ([] if dims[1] or dims[3] else layouts)
    if not possible:
        raise CheckpointError(
            f"{value.name!r} has shape {'x'.join(str(each or '?') for each in dims)}; only images "
            "with 1 or 3 channels are supported"
        )
    channels: Literal[1, 3]
    for layout, axis in possible:
        height, width = dims[2:] if layout == "NCHW" else dims[1:3]
        for channels in (3, 1):
            if dims[axis] in (0, channels):
                size = (height, width) if height and width else None
                yield ImageEnd(value.name, layout, dtype), channels, dims[0] or None, size


def float_nchw(model: onnx.ModelProto, ends: ImageEnds) -> onnx.ModelProto:
    """Return a graph with one input and one output, NCHW float32; bytes become [0, 1].

    Args:
        model: A float32 model of a modern opset.
        ends: Its ends.
    """
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    given, output = ends.given, ends.result
    before, after = NodeChain(given.name), NodeChain(output.name)
    if given.dtype == np.uint8:
        before.add("Mul", np.float32(255))
        if not _read_by_casts(graph, given.name):
            before.add("Clip", np.float32(0), np.float32(255))
            before.add("Round")
            before.add("Cast", to=TensorProto.UINT8)
    if given.layout == "NHWC":
        before.add("Transpose", perm=_TO_NHWC)
    if output.layout == "NHWC":
        after.add("Transpose", perm=_TO_NCHW)
    if output.dtype == np.uint8:
        offset = _without_rounding(graph, output.name)
        after.add("Cast", to=TensorProto.FLOAT)
        after.add("Add", np.float32(offset))
        after.add("Mul", np.float32(1 / 255))
    for node in graph.node:
        for i, name in enumerate(node.input):
            if name == given.name:
                node.input[i] = before.value
    nodes = [*before.nodes, *graph.node, *after.nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*before.constants, *after.constants])
    del graph.input[:], graph.output[:]
    float32 = TensorProto.FLOAT
    sides = ends.size or ("height", "width")
    shape = (ends.batch or "batch", ends.channels, *sides)
    graph.input.append(helper.make_tensor_value_info(given.name, float32, shape))
    shape = (ends.batch or "batch", ends.channels, None, None)
    graph.output.append(helper.make_tensor_value_info(after.value, float32, shape))
    onnx_graph.keep_needed(graph)
    return result


def _read_by_casts(graph: onnx.GraphProto, name: str) -> bool:
    """Return whether every reader of a value converts it to float, possibly transposed before."""
    readers = [node for node in graph.node if name in node.input]
    return all(
        node.op_type == "Cast"
        or (node.op_type == "Transpose" and _read_by_casts(graph, node.output[0]))
        for node in readers
    )


def _without_rounding(graph: onnx.GraphProto, name: str) -> float:
    """Make a graph return values before they are rounded to bytes.

    Returns:
        What has to be added to them, so that rounding gives the same bytes: a Cast truncates.
    """
    offset = 0.0
    makers = {output: node for node in graph.node for output in node.output}
    node = makers.get(name)
    while node is not None:
        if node.op_type == "Cast" and node.attribute[0].i == TensorProto.UINT8:
            node.attribute[0].i = TensorProto.FLOAT
            offset = -0.5
        elif node.op_type == "Round" or (node.op_type == "Floor" and offset):
            offset = 0.0 if node.op_type == "Round" else offset
            node.op_type = "Identity"
            break
        elif node.op_type not in ("Transpose", "Clip", "Min", "Max", "Identity"):
            break
        node = makers.get(node.input[0])
    return offset
