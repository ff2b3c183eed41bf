"""Moving a convolution with few outputs before the pixel shuffle that precedes it.

Many networks first shuffle their features to the output size and then compute three channels. CPUs
compute channels in groups of about 16, so three cost as much as sixteen, and the shuffle moves all
features at the output size. An equivalent convolution reads the features before the shuffle and
computes every pixel of a block as a channel of its own; its weights are the original ones and
zeros. Then only the result is shuffled.

This pass runs last, after quantization, which it preserves: a channel's scale becomes that of all
pixels of its block.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import onnx
from onnx import helper, numpy_helper

from sr_export.graph import onnx_graph

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

# Channels that a CPU computes together.
_CHANNEL_GROUP = 16
_QUANTIZERS = {"QuantizeLinear", "DequantizeLinear"}
# Operators allowed between shuffle and convolution: they treat all pixels of a channel alike.
_BETWEEN = {"Relu", "LeakyRelu", "PRelu", "Clip", *_QUANTIZERS}


class _Candidate(NamedTuple):
    """A convolution that can move before its pixel shuffle."""

    shuffle: onnx.NodeProto
    between: list[onnx.NodeProto]
    """The nodes from the shuffle to the convolution."""
    conv: onnx.NodeProto
    weights: str
    """Name of the constant."""
    quantizers: list[onnx.NodeProto]
    """The nodes from the constant to the convolution; none if it is not quantized."""
    side: int
    """Side of a block in pixels."""


def in_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an equivalent graph with blocks where they need no more multiplications."""
    copy = onnx_graph.copied(model)
    while candidate := next(_Finder(copy.graph).candidates(), None):
        _rewrite(copy.graph, candidate)
    onnx_graph.drop_unused(copy.graph)
    return copy


class _Finder:
    """Finds the convolutions that can move."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._shapes = {each.name: list(each.dims) for each in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}
        self._reads = Counter(name for node in graph.node for name in node.input)
        self._reads.update(each.name for each in graph.output)

    def candidates(self) -> Iterator[_Candidate]:
        """Yield the convolutions that can move, in execution order."""
        for conv in self._graph.node:
            if conv.op_type != "Conv":
                continue
            shuffled, between = self._above(conv.input[0], _BETWEEN)
            weights, quantizers = self._above(conv.input[1], _QUANTIZERS)
            shuffle = self._makers.get(shuffled)
            constants = {weights, *conv.input[2:]} <= self._shapes.keys()
            if shuffle is None or not constants or self._reads[shuffled] > 1:
                continue
            side, shape = _block(shuffle), self._shapes[weights]
            supported = _keeps_size(conv, shape[2:]) and all(map(self._is_uniform, between))
            if side and supported and _pays(shape, side):
                yield _Candidate(shuffle, between, conv, weights, quantizers, side)

    def _above(self, value: str, operators: set[str]) -> tuple[str, list[onnx.NodeProto]]:
        """Follow a value up through nodes of some kinds that nothing else reads.

        Returns:
            The input of the first node, and the nodes in execution order.
        """
        found: list[onnx.NodeProto] = []
        while value in self._makers and self._reads[value] == 1:
            node = self._makers[value]
            if node.op_type not in operators:
                break
            found.insert(0, node)
            value = node.input[0]
        return value, found

    def _is_uniform(self, node: onnx.NodeProto) -> bool:
        """Return whether a node's constants are the same for all pixels of a channel."""
        names = [name for name in node.input[1:] if name]
        if not self._shapes.keys() >= set(names):
            return False
        shapes = [self._shapes[name] for name in names]
        if node.op_type == "PRelu":
            return all(math.prod(shape[1:]) == 1 for shape in shapes)
        return all(math.prod(shape) == 1 for shape in shapes)


def _keeps_size(conv: onnx.NodeProto, kernel: Sequence[int]) -> bool:
    """Return whether a convolution keeps the image size: odd kernel, same padding, stride 1."""
    attributes = _attributes(conv)
    return (
        len(kernel) == 2
        and kernel[0] == kernel[1]
        and kernel[0] % 2 == 1
        and attributes.get("pads", [0] * 4) == [kernel[0] // 2] * 4
        and attributes.get("group", 1) == 1
        and attributes.get("auto_pad", b"NOTSET") == b"NOTSET"
        and {*attributes.get("strides", ()), *attributes.get("dilations", ())} <= {1}
    )


def _block(node: onnx.NodeProto) -> int:
    """Return the block side of a pixel shuffle in PyTorch's channel order; 0 for other nodes."""
    attributes = _attributes(node)
    is_shuffle = node.op_type == "DepthToSpace" and attributes.get("mode") == b"CRD"
    return attributes["blocksize"] if is_shuffle else 0


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _pays(shape: Sequence[int], side: int) -> bool:
    """Return whether blocks need no more multiplications, with channels padded to groups."""
    outputs, channels, kernel = shape[:3]
    low, high = _reach(kernel, side)
    blocks = _padded(outputs * side**2) * (high - low + 1) ** 2
    return outputs < channels and blocks <= _padded(outputs) * kernel**2


def _padded(channels: int) -> int:
    return -(-channels // _CHANNEL_GROUP) * _CHANNEL_GROUP


def _reach(kernel: int, side: int) -> tuple[int, int]:
    """Return the offsets of the first and the last block that a block depends on."""
    radius = kernel // 2
    return -radius // side, (side - 1 + radius) // side


def _rewrite(graph: onnx.GraphProto, tail: _Candidate) -> None:
    """Give a convolution block weights, and move the shuffle behind it."""
    conv, shuffle = tail.conv, tail.shuffle
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}

    def constant(node: onnx.NodeProto, i: int, values: NDArray[Any]) -> None:
        node.input[i] = f"{node.input[i]}_of_{node.output[0]}_in_blocks"
        graph.initializer.append(numpy_helper.from_array(values, node.input[i]))

    # Per-channel constants are repeated for each pixel of a block. A single PReLU slope is shared
    # by all channels, but a single bias or scale belongs to the only channel of a gray image.
    for node in (*tail.between, *tail.quantizers, conv):
        for i, name in enumerate(node.input):
            values = constants.get(name)
            if i == 0 or name == tail.weights or values is None:
                continue
            if values.size > 1 or (values.ndim and node not in tail.between):
                constant(node, i, np.repeat(values, tail.side**2, axis=0))
    weights = constants[tail.weights]
    reader, i = (tail.quantizers[0], 0) if tail.quantizers else (conv, 1)
    constant(reader, i, block_weights(weights, tail.side))
    low, high = _reach(weights.shape[2], tail.side)
    for attribute in conv.attribute:
        if attribute.name == "kernel_shape":
            attribute.ints[:] = [high - low + 1] * 2
        if attribute.name == "pads":
            attribute.ints[:] = [-low, -low, high, high]

    (*tail.between, conv)[0].input[0] = shuffle.input[0]
    result, blocks = conv.output[0], f"{conv.output[0]}_in_blocks"
    conv.output[0] = shuffle.input[0] = blocks
    shuffle.output[0] = result
    nodes = [node for node in graph.node if shuffle.output[0] not in node.output]
    position = next(i for i, node in enumerate(nodes) if blocks in node.output)
    nodes.insert(position + 1, shuffle)
    del graph.node[:]
    graph.node.extend(nodes)
    # The recorded shapes are out of date.
    del graph.value_info[:]


def block_weights(weights: NDArray[Any], side: int) -> NDArray[Any]:
    """Return the weights of the equivalent convolution before the shuffle.

    Args:
        weights: (outputs, channels, kernel, kernel) of the convolution after the shuffle.
        side: Side of a block.

    Returns:
        (outputs * side**2, channels * side**2, blocks, blocks).
    """
    outputs, channels, kernel, _ = weights.shape
    low, high = _reach(kernel, side)
    reach = high - low + 1
    found = np.zeros((outputs, side, side, channels, side, side, reach, reach), weights.dtype)
    # For each pixel of a block and each kernel tap: which block the tap reads, and where in it.
    for row, column, y, x in np.ndindex(side, side, kernel, kernel):
        down, top = divmod(row + y - kernel // 2, side)
        right, left = divmod(column + x - kernel // 2, side)
        taps = found[:, row, column, :, top, left, down - low, right - low]
        taps[...] = weights[:, :, y, x]
    return found.reshape(outputs * side**2, channels * side**2, reach, reach)
