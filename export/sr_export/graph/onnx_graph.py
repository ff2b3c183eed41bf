"""Shared helpers for reading and editing ONNX graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

PREFIX = "pixels_"
"""Name prefix of every node around the network."""
EXACT = f"{PREFIX}exact_"
"""Name prefix of those nodes that stay in float32 at any precision of the network."""
# Operators whose result depends only on the shape of their input.
SHAPES = {"Shape", "Size"}


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which every Constant node is an initializer: one place for all constants."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    nodes = []
    for node in graph.node:
        value = next((each.t for each in node.attribute if each.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            constant = graph.initializer.add()
            constant.CopyFrom(value)
            constant.name = node.output[0]
        else:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return copy


def raise_opset(model: onnx.ModelProto, version: int) -> None:
    """Raise the declared version of the standard operators to at least this one."""
    for each in model.opset_import:
        if each.domain in ("", "ai.onnx"):
            each.version = max(each.version, version)


def shape_values(graph: onnx.GraphProto) -> set[str]:
    """Return the names of values computed from shapes only, not from the image."""
    constants = {"", *(each.name for each in graph.initializer)}
    found: set[str] = set()
    for node in graph.node:
        inputs = set(node.input) - constants
        if node.op_type in SHAPES or (inputs and inputs <= found):
            found.update(node.output)
    return found


def floats(model: onnx.ModelProto) -> set[str]:
    """Return the names of all float32 values and constants."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {each.name for each in values if each.type.tensor_type.elem_type == TensorProto.FLOAT}
    constants = [each for each in graph.initializer if each.data_type == TensorProto.FLOAT]
    return found.union(each.name for each in constants)


def first_branch(graph: onnx.GraphProto) -> str | None:
    """Return the operator of the first node with a subgraph (If, Loop, Scan), if there is one."""
    for node in graph.node:
        if any(each.HasField("g") for each in node.attribute):
            return node.op_type
    return None


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove unused initializers."""
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def keep_needed(graph: onnx.GraphProto) -> None:
    """Remove nodes and initializers that no output of the graph depends on."""
    needed = {each.name for each in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(_read(node))
            kept.append(node)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    weights = [each for each in graph.initializer if each.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(weights)


def _read(node: onnx.NodeProto) -> Iterator[str]:
    """Yield the names of all values that a node reads, those of its subgraphs included."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            yield from (each.name for each in graph.output)
            for inner in graph.node:
                yield from _read(inner)


class NodeChain:
    """A sequence of nodes; each reads the output of the one before.

    Args:
        value: The input of the first node.
        prefix: Prefix of the node names.
    """

    def __init__(self, value: str, prefix: str = PREFIX) -> None:
        self.value = value
        self._stem = f"{prefix}{value}_"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *constants: NDArray[Any], **attributes: Any) -> str:
        """Append a node that reads the current value and constants; return its output."""
        self.value = self.join(operator, [self.value, *map(self.constant, constants)], **attributes)
        return self.value

    def join(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node with arbitrary inputs; return its output."""
        output = f"{self._stem}{len(self.nodes)}_{operator.lower()}"
        self.nodes.append(
            helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        )
        return output

    def constant(self, value: object) -> str:
        """Add a constant and return its name."""
        name = f"{self._stem}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def indices(self, *values: int) -> str:
        """Add an int64 constant, such as axes or a shape, and return its name."""
        return self.constant(np.array(values, np.int64))
