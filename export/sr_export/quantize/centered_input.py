"""Quantizing the input image without loss: its 256 levels are centered around 0.

Symmetric INT8 has only 127 levels from black to white, but a frame has 256. So gray is subtracted
from the input of the first convolution and added again by its bias. If the convolution pads with
zeros, that is no longer black, so the image is padded before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_export.graph import onnx_graph

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from sr_export.quantize.placement import Layer

GRAY = np.float32(128 / 255)
"""The value that is subtracted from the image."""


def center(
    model: onnx.ModelProto, layers: Iterable[Layer]
) -> tuple[onnx.ModelProto, frozenset[str]]:
    """Return an equivalent graph, and the names of its centered images.

    Args:
        model: Float32, NCHW in [0, 1].
        layers: The layers that will compute in INT8. Only convolutions that read the image itself
            change; there are none if the network first normalizes the image.
    """
    copy = onnx_graph.copied(model)
    graph = copy.graph
    names = {each.name for each in layers if each.input == graph.input[0].name}
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    nodes: list[onnx.NodeProto] = []
    found = []
    for node in graph.node:
        if node.name in names and _centrable(node, constants):
            before, values = _centre(node, constants)
            nodes += before
            found.append(node.input[0])
            graph.initializer.extend(
                numpy_helper.from_array(each, name) for name, each in values.items()
            )
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx_graph.drop_unused(graph)
    onnx.checker.check_model(copy)
    return copy, frozenset(found)


def _centrable(node: onnx.NodeProto, constants: dict[str, NDArray[np.float32]]) -> bool:
    """Return whether a convolution has explicit padding and a constant bias."""
    automatic = any(each.name == "auto_pad" and each.s != b"NOTSET" for each in node.attribute)
    return node.op_type == "Conv" and not automatic and constants.keys() >= set(node.input[1:])


def _centre(
    conv: onnx.NodeProto, constants: dict[str, NDArray[np.float32]]
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    """Let a convolution read the centered image; return the nodes that center it, and constants."""
    stem = f"{conv.name}_image"
    weights, *biases = (constants[name] for name in conv.input[1:])
    bias = sum(biases, weights.sum(axis=tuple(range(1, weights.ndim))) * GRAY)
    values: dict[str, NDArray[np.generic]] = {
        f"{stem}_grey": np.asarray(GRAY),
        f"{stem}_bias": np.asarray(bias, np.float32),
    }
    result = f"{stem}_centred"
    nodes = [helper.make_node("Sub", [conv.input[0], f"{stem}_grey"], [result], result)]
    padding = next((each for each in conv.attribute if each.name == "pads"), None)
    if padding is not None and any(padding.ints):
        inputs = [result, f"{stem}_pads", f"{stem}_black"]
        half = len(padding.ints) // 2
        around = [0, 0, *padding.ints[:half], 0, 0, *padding.ints[half:]]
        values |= {inputs[1]: np.array(around, np.int64), inputs[2]: np.asarray(-GRAY)}
        padding.ints[:] = [0] * (2 * half)
        result = f"{stem}_padded"
        nodes.append(helper.make_node("Pad", inputs, [result], result))
    conv.input[:] = [result, conv.input[1], f"{stem}_bias"]
    return nodes, values
