"""The image itself in INT8, without a loss: its 256 levels, moved to lie around 0.

From black to white, symmetric INT8 has half of its levels, 127 for the 256 of a frame. So grey is
taken away from what the first convolution reads, and given back by its bias; where it pads with
black, which is 0 no longer, that is done before.
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

GREY = np.float32(128 / 255)
"""What is taken away from the image."""


def centred(
    model: onnx.ModelProto, layers: Iterable[Layer]
) -> tuple[onnx.ModelProto, frozenset[str]]:
    """Return a graph that computes the same, and the names of what is the image around 0 in it.

    Args:
        model: Float32, NCHW in [0, 1].
        layers: Those that are to compute in INT8. Only convolutions that read the image itself are
            changed; there may be none, as where a network begins by normalising the image.
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
    """Return whether a layer says how it pads, and its bias is known."""
    automatic = any(each.name == "auto_pad" and each.s != b"NOTSET" for each in node.attribute)
    return node.op_type == "Conv" and not automatic and constants.keys() >= set(node.input[1:])


def _centre(
    conv: onnx.NodeProto, constants: dict[str, NDArray[np.float32]]
) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.generic]]]:
    """Have a convolution read the image around 0; return the nodes that make it, and constants."""
    stem = f"{conv.name}_image"
    weights, *biases = (constants[name] for name in conv.input[1:])
    bias = sum(biases, weights.sum(axis=tuple(range(1, weights.ndim))) * GREY)
    values: dict[str, NDArray[np.generic]] = {
        f"{stem}_grey": np.asarray(GREY),
        f"{stem}_bias": np.asarray(bias, np.float32),
    }
    result = f"{stem}_centred"
    nodes = [helper.make_node("Sub", [conv.input[0], f"{stem}_grey"], [result], result)]
    padding = next((each for each in conv.attribute if each.name == "pads"), None)
    if padding is not None and any(padding.ints):
        inputs = [result, f"{stem}_pads", f"{stem}_black"]
        half = len(padding.ints) // 2
        around = [0, 0, *padding.ints[:half], 0, 0, *padding.ints[half:]]
        values |= {inputs[1]: np.array(around, np.int64), inputs[2]: np.asarray(-GREY)}
        padding.ints[:] = [0] * (2 * half)
        result = f"{stem}_padded"
        nodes.append(helper.make_node("Pad", inputs, [result], result))
    conv.input[:] = [result, conv.input[1], f"{stem}_bias"]
    return nodes, values
