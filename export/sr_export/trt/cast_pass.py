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

if TYPE_CHECKING:
    from collections.abc import Callable

_FLOAT, _FLOAT16, _BFLOAT16 = 1, 10, 16  # TensorProto.DataType
_HALVES = (_FLOAT16, _BFLOAT16)
_OPSET = 17
_CONVOLUTIONS = ("Conv", "ConvTranspose")

# Field numbers in onnx.proto.
_MODEL_GRAPH, _MODEL_OPSETS = 7, 8
_OPSET_DOMAIN, _OPSET_VERSION = 1, 2
_GRAPH_NODES, _GRAPH_CONSTANTS, _GRAPH_VALUES = 1, 5, (11, 12, 13)
_NODE_INPUTS, _NODE_OUTPUTS, _NODE_NAME, _NODE_OPERATOR, _NODE_ATTRIBUTES = 1, 2, 3, 4, 5
_ATTRIBUTE_NAME, _ATTRIBUTE_INT, _ATTRIBUTE_TEXT, _ATTRIBUTE_TENSOR = 1, 3, 4, 5
_ATTRIBUTE_GRAPH, _ATTRIBUTE_INTS, _ATTRIBUTE_TYPE = 6, 8, 20
_TYPE_INT, _TYPE_INTS = 2, 7
_TENSOR_TYPE, _TENSOR_INT32, _TENSOR_INT64, _TENSOR_NAME, _TENSOR_RAW = 2, 5, 7, 8, 9
_VALUE_TYPE, _TYPE_TENSOR, _ELEMENT_TYPE = 2, 1, 1

# Attributes that opset 18 added to Resize; with these values, Resize works as in opset 17.
_RESIZE_DEFAULTS = {"antialias": 0, "keep_aspect_ratio_policy": b"stretch", "axes": None}
_REDUCTIONS = {
    f"Reduce{each}"
    for each in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "SumSquare")
}


def widened(model: bytes) -> bytes:
    """Return a model with all float16 and bfloat16 in FP32. Weights keep their rounded values."""
    return _changed(model, lambda graph: _widen(graph, set()))


def halves(model: bytes) -> set[str]:
    """Return the half types of a model's constants: fp16, bf16."""
    (graph,) = map(Message.read, Message.read(model).parts(_MODEL_GRAPH))
    types = {
        number
        for each in graph.parts(_GRAPH_CONSTANTS)
        for number in Message.read(each).numbers(_TENSOR_TYPE)
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
        if opset.text(_OPSET_DOMAIN) in ("", "ai.onnx"):
            version = min(opset.numbers(_OPSET_VERSION)[0], _OPSET)
            opset.put(_OPSET_VERSION, version)

    message.change(_MODEL_OPSETS, lower)
    message.change(_MODEL_GRAPH, _lower)
    return message.to_bytes()


def _changed(model: bytes, edit: Callable[[Message], None]) -> bytes:
    message = Message.read(model)
    message.change(_MODEL_GRAPH, edit)
    return message.to_bytes()


def _widen(graph: Message, kept: set[str]) -> None:
    """Convert the halves of a graph to FP32, except for the constants in `kept`."""

    def widen_tensor(tensor: Message) -> None:
        if tensor.text(_TENSOR_NAME) not in kept:
            _widen_tensor(tensor)

    def widen_attribute(attribute: Message) -> None:
        attribute.change(_ATTRIBUTE_TENSOR, _widen_tensor)
        attribute.change(_ATTRIBUTE_GRAPH, lambda inner: _widen(inner, set()))

    def widen_node(node: Message) -> None:
        node.change(_NODE_ATTRIBUTES, widen_attribute)
        if node.text(_NODE_OPERATOR) == "Cast":
            node.change(_NODE_ATTRIBUTES, _widen_number)

    graph.change(_GRAPH_CONSTANTS, widen_tensor)
    graph.change(_GRAPH_NODES, widen_node)
    for field in _GRAPH_VALUES:
        graph.change(field, _widen_value)


def _widen_number(attribute: Message) -> None:
    """Convert the target type of a Cast."""
    if attribute.text(_ATTRIBUTE_NAME) == "to" and attribute.numbers(_ATTRIBUTE_INT)[0] in _HALVES:
        attribute.put(_ATTRIBUTE_INT, _FLOAT)


def _widen_value(value: Message) -> None:
    def widen_tensor_type(kind: Message) -> None:
        if kind.numbers(_ELEMENT_TYPE)[:1] in ([_FLOAT16], [_BFLOAT16]):
            kind.put(_ELEMENT_TYPE, _FLOAT)

    value.change(_VALUE_TYPE, lambda kind: kind.change(_TYPE_TENSOR, widen_tensor_type))


def _widen_tensor(tensor: Message) -> None:
    kind = tensor.numbers(_TENSOR_TYPE)[0]
    if kind not in _HALVES:
        return
    raw = b"".join(tensor.parts(_TENSOR_RAW))
    # The bits of halves are raw bytes, or one integer each.
    bits = np.frombuffer(raw, "<u2") if raw else np.array(tensor.numbers(_TENSOR_INT32), "<u2")
    if kind == _FLOAT16:
        values = bits.view("<f2").astype("<f4")
    else:  # bfloat16 is the upper half of FP32
        values = (bits.astype("<u4") << 16).view("<f4")
    tensor.drop(_TENSOR_INT32)
    tensor.put(_TENSOR_TYPE, _FLOAT)
    tensor.put(_TENSOR_RAW, values.tobytes())


def _mix(graph: Message) -> None:
    """Convert a graph to FP32, with casts around convolutions that have half-precision weights."""
    constants = {
        tensor.text(_TENSOR_NAME): tensor.numbers(_TENSOR_TYPE)[0]
        for tensor in map(Message.read, graph.parts(_GRAPH_CONSTANTS))
    }
    nodes = [Message.read(each) for each in graph.parts(_GRAPH_NODES)]
    kept: set[str] = set()
    for node in nodes:
        weights = node.texts(_NODE_INPUTS)[1:]
        if node.text(_NODE_OPERATOR) in _CONVOLUTIONS and constants.get(weights[0]) in _HALVES:
            kept.update(weights)
    _widen(graph, kept)
    nodes = [Message.read(each) for each in graph.parts(_GRAPH_NODES)]
    graph.drop(_GRAPH_NODES)
    for node in nodes:
        source, *weights = node.texts(_NODE_INPUTS) or [""]
        if node.text(_NODE_OPERATOR) not in _CONVOLUTIONS or not kept.intersection(weights):
            graph.add(_GRAPH_NODES, node)
            continue
        (result,) = node.texts(_NODE_OUTPUTS)
        narrow, wide = f"{result}_narrow", f"{result}_wide"
        node.drop(_NODE_INPUTS, _NODE_OUTPUTS)
        for name in (narrow, *weights):
            node.add(_NODE_INPUTS, name)
        node.add(_NODE_OUTPUTS, wide)
        for each in (
            _cast(source, narrow, constants[weights[0]]),
            node,
            _cast(wide, result, _FLOAT),
        ):
            graph.add(_GRAPH_NODES, each)


def _cast(source: str, target: str, kind: int) -> Message:
    attribute = Message()
    attribute.add(_ATTRIBUTE_NAME, "to")
    attribute.add(_ATTRIBUTE_INT, kind)
    attribute.add(_ATTRIBUTE_TYPE, _TYPE_INT)
    node = Message()
    node.add(_NODE_INPUTS, source)
    node.add(_NODE_OUTPUTS, target)
    node.add(_NODE_NAME, f"{target}_cast")
    node.add(_NODE_OPERATOR, "Cast")
    node.add(_NODE_ATTRIBUTES, attribute)
    return node


def _lower(graph: Message) -> None:
    """Rewrite the operators that opset 18 changed."""
    tensors = {
        tensor.text(_TENSOR_NAME): tensor
        for tensor in map(Message.read, graph.parts(_GRAPH_CONSTANTS))
    }

    def lower_node(node: Message) -> None:
        operator = node.text(_NODE_OPERATOR)
        inputs = node.texts(_NODE_INPUTS)
        if operator == "Resize":
            _lower_resize(node)
        elif operator == "Pad" and len(inputs) > 3 and inputs[3]:
            raise _too_new("Pad with axes")
        elif operator in _REDUCTIONS and len(inputs) > 1:
            if inputs[1] not in tensors:
                raise _too_new(f"{operator} with computed axes")
            _axes_to_attribute(node, tensors[inputs[1]])

    graph.change(_GRAPH_NODES, lower_node)


def _lower_resize(node: Message) -> None:
    attributes = [Message.read(each) for each in node.parts(_NODE_ATTRIBUTES)]
    node.drop(_NODE_ATTRIBUTES)
    for each in attributes:
        name = each.text(_ATTRIBUTE_NAME)
        if name not in _RESIZE_DEFAULTS:
            node.add(_NODE_ATTRIBUTES, each)
            continue
        value = (each.parts(_ATTRIBUTE_TEXT) or each.numbers(_ATTRIBUTE_INT) or [None])[0]
        if value is None or value != _RESIZE_DEFAULTS[name]:
            raise _too_new(f"Resize with {name}")


def _too_new(what: str) -> BackendError:
    return BackendError(f"this TensorRT does not support {what} (opset 18); use TensorRT 10")


def _axes_to_attribute(node: Message, tensor: Message) -> None:
    raw = b"".join(tensor.parts(_TENSOR_RAW))
    axes = np.frombuffer(raw, "<i8").tolist() if raw else tensor.numbers(_TENSOR_INT64)
    source = node.texts(_NODE_INPUTS)[0]
    node.put(_NODE_INPUTS, source)
    attribute = Message()
    attribute.add(_ATTRIBUTE_NAME, "axes")
    for axis in axes:
        attribute.add(_ATTRIBUTE_INTS, axis % (1 << 64))  # negative varints are modulo 2**64
    attribute.add(_ATTRIBUTE_TYPE, _TYPE_INTS)
    node.add(_NODE_ATTRIBUTES, attribute)
