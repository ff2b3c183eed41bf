"""Bounds on a stranger's ONNX file, checked before anything loads it.

Backends fold constants, inline functions and infer shapes while they load a file, in this process.
A file of 1 kB can ask them for all memory, or for work without end. So the graph is walked here
once, for a small image: shapes are computed, not values, except for the few numbers that shapes are
computed from. Where a shape is unknown, its size is assumed to be that of the largest input: the
check finds files that are made to harm, and never refuses a network because it is unusual.
"""

from __future__ import annotations

import itertools
import math
import mmap
from typing import TYPE_CHECKING, Any

from sr_deploy.bundle import onnx_file, onnx_shapes, onnx_values
from sr_deploy.bundle.onnx_shapes import Sized
from sr_deploy.errors import BundleError
from sr_deploy.machine import format_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sr_deploy.bundle.onnx_file import OnnxFile, OnnxGraph, OnnxNode, OnnxTensor
    from sr_deploy.bundle.onnx_shapes import Shape

    Scope = dict[str, Sized]

# Side of a free axis, and bytes of an element.
_SIDE = 64
_ELEMENT = 4
# A value may take this much, and a constant that a backend computes; in a network for large images
# only, so much for each element of the image: 4096 floats at each RGB pixel take a third of it.
_MOST_BYTES = 1 << 30
_MOST_CONSTANT = 256 << 20
_MOST_PER_ELEMENT = 16 << 10
_MOST_ITERATIONS = 1_000_000
_MOST_CALLS = 100
# A value that doubles in each turn of a loop is found within so many.
_TURNS = 32


def check(path: Path, *, external: bool = False) -> None:
    """Check that an ONNX file asks for bounded memory and work.

    Args:
        path: The file.
        external: Whether it may have weights in other files.

    Raises:
        BundleError: It is damaged, or made to harm.
    """
    sizes(path, external=external)


def sizes(path: Path, *, external: bool = False) -> dict[str, Sized]:
    """Check a file and return what is known about the values of its main graph, by name."""
    return walked(path, external=external)[1]


def walked(
    path: Path, images: Sequence[Shape] = (), *, external: bool = False
) -> tuple[OnnxGraph, dict[str, Sized]]:
    """Check a file; return its main graph and what is known about its values, by name.

    Args:
        path: The file.
        images: Shapes of its first inputs, for their free axes.
        external: Whether it may have weights in other files.
    """
    try:
        with path.open("rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        content = onnx_file.read(memoryview(data), external=external)
        return content.graph, _Walk(content, external=external).run(images)
    except (BundleError, ValueError) as error:  # ValueError: an empty file
        raise BundleError(f"{path}: {error}; the file is damaged or forged") from None


class _Walk:
    """One walk through a graph, its branches, loops and functions."""

    def __init__(self, file: OnnxFile, *, external: bool) -> None:
        self._file = file
        self._external = external
        self._visits = self._calls = 0
        self._most = _MOST_BYTES
        self._stored = 0

    def run(self, wanted: Sequence[Shape]) -> Scope:
        graph = self._file.graph
        images = {
            name: _image(shape, sides)
            for (name, shape), sides in zip(
                graph.arguments.items(),
                itertools.chain(wanted, itertools.repeat(None)),
                strict=False,
            )
        }
        elements = sum(each.count for each in images.values())
        self._most = max(_MOST_BYTES, _MOST_PER_ELEMENT * elements)
        for name, image in images.items():
            self._check_size(image, f"its input {name!r}")
        self._graph(graph, images)
        return images

    def _graph(self, graph: OnnxGraph, known: Scope) -> list[Sized | None]:
        """Compute the sizes of all values of a graph; return those of its outputs."""
        for constant in graph.constants:
            known[constant.name] = self._constant(constant)
        for node in graph.nodes:
            self._visits += 1
            if self._visits > onnx_file.MOST_NODES:
                raise BundleError(f"it expands to more than {onnx_file.MOST_NODES} nodes")
            for name, found in zip(node.outputs, self._results(node, known), strict=False):
                if found is not None:
                    self._check_size(found, f"the result {name!r} of {node.op}")
                    known[name] = found
        return [known.get(name) for name in graph.outputs]

    def _results(self, node: OnnxNode, known: Scope) -> Sequence[Sized | None]:
        inputs = [known.get(name) if name else None for name in node.inputs]
        function = self._file.functions.get((node.domain, node.op))
        if function is not None:
            return self._call(function, inputs)
        if node.op == "Constant":
            return [self._literal(node)]
        if node.op == "If":
            branches = [
                self._graph(node.attributes[name], dict(known))
                for name in ("then_branch", "else_branch")
                if isinstance(node.attributes.get(name), onnx_file.OnnxGraph)
            ]
            return [_larger(*each) for each in zip(*branches, strict=False)]
        if node.op == "Loop":
            return self._loop(node, inputs, known)
        for graph in node.attributes.values():  # Scan, and operators yet unknown
            if isinstance(graph, onnx_file.OnnxGraph):
                self._graph(graph, dict(known))
        results = onnx_values.results(node, inputs)
        unclear = [each for each in results if each.fixed and each.shape is None]
        if node.op in onnx_shapes.GROWING and unclear:
            raise BundleError(f"the size of the constant {node.outputs[0]!r} is unclear")
        return results

    def _call(self, function: OnnxGraph, inputs: Sequence[Sized | None]) -> list[Sized | None]:
        self._calls += 1
        if self._calls > _MOST_CALLS:
            raise BundleError(f"its functions call each other more than {_MOST_CALLS} deep")
        scope = {name: each for name, each in zip(function.inputs, inputs, strict=False) if each}
        found = self._graph(function, scope)
        self._calls -= 1
        return found

    def _loop(
        self, node: OnnxNode, inputs: Sequence[Sized | None], known: Scope
    ) -> list[Sized | None]:
        """Compute the sizes of a loop's results, as after its last turn."""
        turns = inputs[0] if inputs else None
        body = node.attributes.get("body")
        if turns is None or (turns.fixed and turns.values is None):
            raise BundleError(f"the number of turns of its loop {node.outputs[:1]} has no bound")
        count = _TURNS if turns.values is None else max(0, *turns.ints())
        if count > _MOST_ITERATIONS:
            raise BundleError(f"a loop has {count} turns; at most {_MOST_ITERATIONS} are allowed")
        carried = list(inputs[2:])
        if not isinstance(body, onnx_file.OnnxGraph):
            return carried
        collected: list[Sized | None] = []
        for _ in range(min(count, _TURNS)):
            scope = known | {
                name: each
                for name, each in zip(list(body.inputs)[2:], carried, strict=False)
                if each
            }
            found = self._graph(body, scope)[1:]
            before, carried, collected = carried, found[: len(carried)], found[len(carried) :]
            if [each and each.count for each in before] == [
                each and each.count for each in carried
            ]:
                break
        return carried + [each and Sized(None, each.count * count) for each in collected]

    def _literal(self, node: OnnxNode) -> Sized | None:
        """Return the value of a Constant node."""
        for content in node.attributes.values():
            if isinstance(content, onnx_file.OnnxTensor):
                return self._constant(content)
            if isinstance(content, (int, float, list)):
                values = onnx_file.array(content)
                small = values if values.size <= onnx_file.SMALL else None
                return Sized.of(values.shape, fixed=True, values=small)
        return None

    def _constant(self, tensor: OnnxTensor) -> Sized:
        claimed = math.prod(tensor.shape) * tensor.itemsize
        self._stored += _ELEMENT * tensor.stored
        if claimed > max(_MOST_CONSTANT, tensor.stored) and not self._external:
            raise BundleError(
                f"its constant {tensor.name!r} claims {format_bytes(claimed)}, of which it has "
                f"{format_bytes(tensor.stored)}"
            )
        return Sized.of(tensor.shape, fixed=True, values=tensor.values)

    def _check_size(self, value: Sized, what: str) -> None:
        size = value.count * _ELEMENT
        most = max(_MOST_CONSTANT, self._stored) if value.fixed else self._most
        if size > most:
            when = "" if value.fixed else f" for an image of {_SIDE}x{_SIDE}"
            raise BundleError(
                f"{what} takes {format_bytes(size)}{when}; at most {format_bytes(most)} are allowed"
            )


def _image(shape: Shape | None, wanted: Shape | None) -> Sized:
    """Return an image for an input: free axes get the wanted sides, else small ones, batch 1."""
    if shape is None:
        return Sized(None, _SIDE * _SIDE)
    if wanted is None or len(wanted) != len(shape):
        wanted = (1,) + (_SIDE,) * len(shape[1:])
    return Sized.of(tuple(side or free for side, free in zip(shape, wanted, strict=False)))


def _counts(values: Sequence[Sized | None]) -> list[int]:
    return [each.count if each else 0 for each in values]


def _larger(*values: Any) -> Sized | None:
    known = [each for each in values if each is not None]
    return max(known, key=lambda each: each.count, default=None)
