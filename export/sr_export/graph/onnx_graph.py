"""What several steps ask of an ONNX graph, and small changes that they share."""

from __future__ import annotations

import onnx
from onnx import TensorProto

# What these give depends on nothing but the shape of their input.
SHAPES = {"Shape", "Size"}


def copied(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose constants are all initializers, so that there is one place to look."""
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
    """Declare at least this version of the standard operators."""
    for each in model.opset_import:
        if each.domain in ("", "ai.onnx"):
            each.version = max(each.version, version)


def shape_values(graph: onnx.GraphProto) -> set[str]:
    """Return the names of the values that are made of shapes, and of nothing of the image."""
    constants = {"", *(each.name for each in graph.initializer)}
    found: set[str] = set()
    for node in graph.node:
        inputs = set(node.input) - constants
        if node.op_type in SHAPES or (inputs and inputs <= found):
            found.update(node.output)
    return found


def floats(model: onnx.ModelProto) -> set[str]:
    """Return the names of all values and constants that are float32."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    found = {each.name for each in values if each.type.tensor_type.elem_type == TensorProto.FLOAT}
    constants = [each for each in graph.initializer if each.data_type == TensorProto.FLOAT]
    return found.union(each.name for each in constants)


def first_branch(graph: onnx.GraphProto) -> str | None:
    """Return the operator of the first node that holds a graph of its own: If, Loop, Scan."""
    for node in graph.node:
        if any(each.HasField("g") for each in node.attribute):
            return node.op_type
    return None


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the constants that nothing reads."""
    used = {name for node in graph.node for name in node.input}
    kept = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
