"""Rewrites ONNX files for TensorRT, without the package onnx.

TensorRT 8.6 supports operators up to opset 17, sets precisions by flags, and reads the scales of
quantizers as FP32 whatever their type. So it gets the same graph in opset 17 and FP32. If a network
fails in half precision, all layers but its convolutions can be cast to FP32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.bundle.protobuf import Message
from sr_deploy.errors import BackendError
from sr_export.trt.onnx_fields import (
    ATTRIBUTE_GRAPH,
    ATTRIBUTE_INT,
    ATTRIBUTE_INTS,
    ATTRIBUTE_NAME,
    ATTRIBUTE_TENSOR,
    ATTRIBUTE_TEXT,
    ATTRIBUTE_TYPE,
    ELEMENT_TYPE,
    GRAPH_CONSTANTS,
    GRAPH_NODES,
    GRAPH_VALUES,
    MODEL_GRAPH,
    MODEL_OPSETS,
    NODE_ATTRIBUTES,
    NODE_INPUTS,
    NODE_NAME,
    NODE_OPERATOR,
    NODE_OUTPUTS,
    OPSET_DOMAIN,
    OPSET_VERSION,
    TENSOR_INT32,
    TENSOR_INT64,
    TENSOR_NAME,
    TENSOR_RAW,
    TENSOR_TYPE,
    TYPE_INT,
    TYPE_INTS,
    TYPE_TENSOR,
    VALUE_TYPE,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOAT, _FLOAT16, _BFLOAT16 = 1, 10, 16  # TensorProto.DataType
_HALVES = (_FLOAT16, _BFLOAT16)
_OPSET = 17
_CONVOLUTIONS = ("Conv", "ConvTranspose")

# Attributes that opset 18 added to Resize; with these values, Resize works as in opset 17.
_RESIZE_DEFAULTS = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch", "axes": None}
# What a reduction without axes does, an attribute that opset 18 added.
_NO_AXES = "noop_with_empty_axes"
_REDUCTIONS = {
    f"Reduce{each}"
    for each in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}


def widened(model: bytes) -> bytes:
    """Return a model with all float16 and bfloat16 in FP32. Weights keep their rounded values."""
    return _changed(model, lambda graph: _widen(graph, set()))


def halves(model: bytes) -> set[str]:
    """Return the half types of a model's constants: fp16, bf16."""
    (graph,) = map(Message.read, Message.read(model).parts(MODEL_GRAPH))
    types = {
        number
        for each in graph.parts(GRAPH_CONSTANTS)
        for number in Message.read(each).numbers(TENSOR_TYPE)
    }
    return {name for name, number in (("fp16", _FLOAT16), ("bf16", _BFLOAT16)) if number in types}


def mixed(model: bytes) -> bytes:
    """Return a model in FP32, except for convolutions in half precision or INT8."""
    return _changed(model, _mix)


def lowered(model: bytes) -> bytes:
    """Return a model in opset 17 and FP32, for TensorRT 8.6.

    Raises:
        BackendError: the model uses features of a later opset.
    """
    message = Message.read(widened(model))

    def lower(opset: Message) -> None:
        if opset.text(OPSET_DOMAIN) in ("", "ai.onnx"):
            version = min(opset.numbers(OPSET_VERSION)[0], _OPSET)
            opset.put(OPSET_VERSION, version)

    message.change(MODEL_OPSETS, lower)
    message.change(MODEL_GRAPH, _lower)
    return message.to_bytes()


def _changed(model: bytes, edit: Callable[[Message], None]) -> bytes:
    message = Message.read(model)
    message.change(MODEL_GRAPH, edit)
    return message.to_bytes()


def _widen(graph: Message, kept: set[str]) -> None:
    """Convert the halves of a graph to FP32, except for the constants in `kept`."""

    def widen_tensor(tensor: Message) -> None:
        if tensor.text(TENSOR_NAME) not in kept:
            _widen_tensor(tensor)

    def widen_attribute(attribute: Message) -> None:
        attribute.change(ATTRIBUTE_TENSOR, _widen_tensor)
        attribute.change(ATTRIBUTE_GRAPH, lambda inner: _widen(inner, set()))

    def widen_node(node: Message) -> None:
        node.change(NODE_ATTRIBUTES, widen_attribute)
        if node.text(NODE_OPERATOR) == "Cast":
            node.change(NODE_ATTRIBUTES, _widen_number)

    graph.change(GRAPH_CONSTANTS, widen_tensor)
    graph.change(GRAPH_NODES, widen_node)
    for field in GRAPH_VALUES:
        graph.change(field, _widen_value)


def _widen_number(attribute: Message) -> None:
    """Convert the target type of a Cast."""
    if attribute.text(ATTRIBUTE_NAME) == "to" and attribute.numbers(ATTRIBUTE_INT)[0] in _HALVES:
        attribute.put(ATTRIBUTE_INT, _FLOAT)


def _widen_value(value: Message) -> None:
    def widen_tensor_type(kind: Message) -> None:
        if kind.numbers(ELEMENT_TYPE)[:1] in ([_FLOAT16], [_BFLOAT16]):
            kind.put(ELEMENT_TYPE, _FLOAT)

    value.change(VALUE_TYPE, lambda kind: kind.change(TYPE_TENSOR, widen_tensor_type))


def _widen_tensor(tensor: Message) -> None:
    kind = tensor.numbers(TENSOR_TYPE)[0]
    if kind not in _HALVES:
        return
    raw = b"".join(tensor.parts(TENSOR_RAW))
    # The bits of halves are raw bytes, or one integer each.
    bits = np.frombuffer(raw, "<u2") if raw else np.array(tensor.numbers(TENSOR_INT32), "<u2")
    if kind == _FLOAT16:
        values = bits.view("<f2").astype("<f4")
    else:  # bfloat16 is the upper half of FP32
        values = (bits.astype("<u4") << 16).view("<f4")
    tensor.drop(TENSOR_INT32)
    tensor.put(TENSOR_TYPE, _FLOAT)
    tensor.put(TENSOR_RAW, values.tobytes())


def _mix(graph: Message) -> None:
    """Convert a graph to FP32, with casts around convolutions that have half-precision weights."""
    constants = {
        tensor.text(TENSOR_NAME): tensor.numbers(TENSOR_TYPE)[0]
        for tensor in map(Message.read, graph.parts(GRAPH_CONSTANTS))
    }
    nodes = [Message.read(each) for each in graph.parts(GRAPH_NODES)]
    kept: set[str] = set()
    for node in nodes:
        weights = node.texts(NODE_INPUTS)[1:]
        if node.text(NODE_OPERATOR) in _CONVOLUTIONS and constants.get(weights[0]) in _HALVES:
            kept.update(weights)
    _widen(graph, kept)
    nodes = [Message.read(each) for each in graph.parts(GRAPH_NODES)]
    graph.drop(GRAPH_NODES)
    for node in nodes:
        source, *weights = node.texts(NODE_INPUTS) or [""]
        if node.text(NODE_OPERATOR) not in _CONVOLUTIONS or not kept.intersection(weights):
            graph.add(GRAPH_NODES, node)
            continue
        (result,) = node.texts(NODE_OUTPUTS)
        narrow, wide = f"{result}_narrow", f"{result}_wide"
        node.drop(NODE_INPUTS, NODE_OUTPUTS)
        for name in (narrow, *weights):
            node.add(NODE_INPUTS, name)
        node.add(NODE_OUTPUTS, wide)
        for each in (
            _cast(source, narrow, constants[weights[0]]),
            node,
            _cast(wide, result, _FLOAT),
        ):
            graph.add(GRAPH_NODES, each)


def _cast(source: str, target: str, kind: int) -> Message:
    attribute = Message()
    attribute.add(ATTRIBUTE_NAME, "to")
    attribute.add(ATTRIBUTE_INT, kind)
    attribute.add(ATTRIBUTE_TYPE, TYPE_INT)
    node = Message()
    node.add(NODE_INPUTS, source)
    node.add(NODE_OUTPUTS, target)
    node.add(NODE_NAME, f"{target}_cast")
    node.add(NODE_OPERATOR, "Cast")
    node.add(NODE_ATTRIBUTES, attribute)
    return node


def _lower(graph: Message) -> None:
    """Rewrite the operators that opset 18 changed."""
    tensors = {
        tensor.text(TENSOR_NAME): tensor
        for tensor in map(Message.read, graph.parts(GRAPH_CONSTANTS))
    }

    def lower_node(node: Message) -> None:
        operator = node.text(NODE_OPERATOR)
        inputs = node.texts(NODE_INPUTS)
        if operator == "Resize":
            _lower_resize(node)
        elif operator == "Pad" and len(inputs) > 3 and inputs[3]:
            raise _too_new("Pad with axes")
        elif operator in _REDUCTIONS:
            _lower_reduction(node, tensors)

    graph.change(GRAPH_NODES, lower_node)


def _lower_resize(node: Message) -> None:
    attributes = [Message.read(each) for each in node.parts(NODE_ATTRIBUTES)]
    node.drop(NODE_ATTRIBUTES)
    for each in attributes:
        name = each.text(ATTRIBUTE_NAME)
        if name not in _RESIZE_DEFAULTS:
            node.add(NODE_ATTRIBUTES, each)
            continue
        value = (each.parts(ATTRIBUTE_TEXT) or each.numbers(ATTRIBUTE_INT) or [None])[0]
        if value is None or value != _RESIZE_DEFAULTS[name]:
            raise _too_new(f"Resize with {name}")


def _lower_reduction(node: Message, tensors: dict[str, Message]) -> None:
    """Give a reduction its axes as an attribute, and no flag for the case without axes."""
    operator, inputs = node.text(NODE_OPERATOR), node.texts(NODE_INPUTS)
    if len(inputs) > 1 and inputs[1] not in tensors:
        raise _too_new(f"{operator} with computed axes")
    attributes = [Message.read(each) for each in node.parts(NODE_ATTRIBUTES)]
    node.drop(NODE_ATTRIBUTES)
    for each in attributes:
        if each.text(ATTRIBUTE_NAME) != _NO_AXES:
            node.add(NODE_ATTRIBUTES, each)
        elif each.numbers(ATTRIBUTE_INT) == [1] and len(inputs) < 2:
            raise _too_new(f"{operator} that reduces nothing")
    if len(inputs) > 1:
        _axes_to_attribute(node, tensors[inputs[1]])


def _too_new(what: str) -> BackendError:
    return BackendError(f"this TensorRT does not support {what} (opset 18); use TensorRT 10")


def _axes_to_attribute(node: Message, tensor: Message) -> None:
    raw = b"".join(tensor.parts(TENSOR_RAW))
    axes = np.frombuffer(raw, "<i8").tolist() if raw else tensor.numbers(TENSOR_INT64)
    source = node.texts(NODE_INPUTS)[0]
    node.put(NODE_INPUTS, source)
    attribute = Message()
    attribute.add(ATTRIBUTE_NAME, "axes")
    for axis in axes:
        attribute.add(ATTRIBUTE_INTS, axis % (1 << 64))  # negative varints are modulo 2**64
    attribute.add(ATTRIBUTE_TYPE, TYPE_INTS)
    node.add(NODE_ATTRIBUTES, attribute)
