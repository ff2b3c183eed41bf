"""Rewrites ONNX files so that TensorRT fuses more, without the package onnx; the values stay equal.

TensorRT runs a PRelu by itself, a pass over the whole image, but fuses the same function written in
elementary operators with the convolution before it: about half of the bytes per frame. A transposed
convolution with quantizers runs in half precision anyway, so quantizing only costs it a pass and
accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.bundle.protobuf import Message
from sr_export.trt.onnx_fields import (
    GRAPH_CONSTANTS,
    GRAPH_NODES,
    MODEL_GRAPH,
    NODE_INPUTS,
    NODE_NAME,
    NODE_OPERATOR,
    NODE_OUTPUTS,
    TENSOR_NAME,
    TENSOR_RAW,
    TENSOR_TYPE,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

_TYPES = {1: "<f4", 10: "<f2"}  # TensorProto.DataType and numpy's
_SIZES = {1: 4, 10: 2, 16: 2}
_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def fusible(model: bytes) -> bytes:
    """Return a model with equal results that TensorRT fuses better."""
    message = Message.read(model)
    message.change(MODEL_GRAPH, _rewrite)
    return message.to_bytes()


def _rewrite(graph: Message) -> None:
    constants = {
        tensor.text(TENSOR_NAME): tensor
        for tensor in map(Message.read, graph.parts(GRAPH_CONSTANTS))
    }
    nodes = [Message.read(each) for each in graph.parts(GRAPH_NODES)]
    quantized = _quantized(nodes)
    zeros: dict[str, Message] = {}
    rewritten: list[Message] = []
    for node in nodes:
        operator, inputs = node.text(NODE_OPERATOR), node.texts(NODE_INPUTS)
        if operator == "PRelu" and constants.get(inputs[1], Message()).numbers(TENSOR_TYPE):
            rewritten += _elementary(node, constants[inputs[1]], zeros)
            continue
        if operator == "ConvTranspose":
            node.drop(NODE_INPUTS)
            for name in inputs:
                node.add(NODE_INPUTS, quantized.get(name, name))
        rewritten.append(node)
    graph.drop(GRAPH_NODES)
    for node in _used(rewritten):
        graph.add(GRAPH_NODES, node)
    for zero in zeros.values():
        graph.add(GRAPH_CONSTANTS, zero)


def _quantized(nodes: list[Message]) -> Mapping[str, str]:
    """Return the values before each pair of quantizers, by the pair's output."""
    sources = {
        node.texts(NODE_OUTPUTS)[0]: node.texts(NODE_INPUTS)[0]
        for node in nodes
        if node.text(NODE_OPERATOR) == _QUANTIZERS[0]
    }
    return {
        node.texts(NODE_OUTPUTS)[0]: sources[node.texts(NODE_INPUTS)[0]]
        for node in nodes
        if node.text(NODE_OPERATOR) == _QUANTIZERS[1] and node.texts(NODE_INPUTS)[0] in sources
    }


def _elementary(node: Message, slope: Message, zeros: dict[str, Message]) -> list[Message]:
    """Return the nodes that replace a PRelu.

    Args:
        node: The PRelu.
        slope: Its constant.
        zeros: Constants that the nodes need, by name; extended.
    """
    source, factor = node.texts(NODE_INPUTS)
    (result,) = node.texts(NODE_OUTPUTS)
    scaled, low, high = (f"{result}_{each}" for each in ("scaled", "low", "high"))
    if _at_most_1(slope):
        return [_node("Mul", [source, factor], scaled), _node("Max", [source, scaled], result)]
    kind = slope.numbers(TENSOR_TYPE)[0]
    zero = f"zero_{kind}_of_prelu"
    if zero not in zeros:
        zeros[zero] = tensor = Message()
        tensor.add(TENSOR_TYPE, kind)
        tensor.add(TENSOR_NAME, zero)
        tensor.add(TENSOR_RAW, bytes(_SIZES[kind]))
    return [
        _node("Min", [source, zero], low),
        _node("Mul", [low, factor], scaled),
        _node("Max", [source, zero], high),
        _node("Add", [high, scaled], result),
    ]


def _at_most_1(slope: Message) -> bool:
    """Return whether all slopes are known to be at most 1, so that x * slope > x only below 0."""
    raw = b"".join(slope.parts(TENSOR_RAW))
    kind = _TYPES.get(slope.numbers(TENSOR_TYPE)[0])
    return bool(raw) and kind is not None and bool((np.frombuffer(raw, kind) <= 1).all())


def _node(operator: str, inputs: list[str], output: str) -> Message:
    node = Message()
    for name in inputs:
        node.add(NODE_INPUTS, name)
    node.add(NODE_OUTPUTS, output)
    node.add(NODE_NAME, output)
    node.add(NODE_OPERATOR, operator)
    return node


def _used(nodes: list[Message]) -> list[Message]:
    """Return the nodes without the quantizers that nothing reads any more."""
    for operator in reversed(_QUANTIZERS):
        read = {name for node in nodes for name in node.texts(NODE_INPUTS)}
        nodes = [
            node
            for node in nodes
            if node.text(NODE_OPERATOR) != operator or node.texts(NODE_OUTPUTS)[0] in read
        ]
    return nodes
