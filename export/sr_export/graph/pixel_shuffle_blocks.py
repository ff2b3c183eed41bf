"""Convolutions that make few channels after a pixel shuffle, made to make blocks of pixels instead.

Many networks shuffle their features to the size of the result, and only then make three channels
of them. Processors compute channels in groups of 16 or so, so that three cost as much as sixteen,
and the shuffle moves all features at the size of the result. A convolution that reads the
features as they lie before the shuffle, and makes all pixels of a block as channels of their own,
gives the same numbers: its weights are those of the original, and zeros. Then only the result has
to be shuffled.

It comes last, after quantisation, which it leaves as it was: a channel's levels become those of
all pixels of its block.
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

# How many channels processors compute together.
_TOGETHER = 16
_QUANTISERS = {"QuantizeLinear", "DequantizeLinear"}
# What may lie between the shuffle and the convolution, as it treats all pixels of a channel alike.
_BETWEEN = {"Relu", "LeakyRelu", "PRelu", "Clip", *_QUANTISERS}


class _Tail(NamedTuple):
    """A convolution that can make blocks."""

    shuffle: onnx.NodeProto
    between: list[onnx.NodeProto]
    """From the shuffle to the convolution."""
    conv: onnx.NodeProto
    weights: str
    """The constant that holds them."""
    quantisers: list[onnx.NodeProto]
    """From the constant to the convolution; none where it is not quantised."""
    side: int
    """Of a block."""


def in_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a graph that computes the same, with blocks where that takes no more products."""
    copy = onnx_graph.copied(model)
    while tail := next(_Finder(copy.graph).tails(), None):
        _rewrite(copy.graph, tail)
    onnx_graph.drop_unused(copy.graph)
    return copy


class _Finder:
    """Looks for convolutions that can make blocks."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self._graph = graph
        self._shapes = {each.name: list(each.dims) for each in graph.initializer}
        self._makers = {output: node for node in graph.node for output in node.output}
        self._reads = Counter(name for node in graph.node for name in node.input)
        self._reads.update(each.name for each in graph.output)

    def tails(self) -> Iterator[_Tail]:
        """Yield them in the order in which they run, as the graph is now."""
        for conv in self._graph.node:
            if conv.op_type != "Conv":
                continue
            shuffled, between = self._above(conv.input[0], _BETWEEN)
            weights, quantisers = self._above(conv.input[1], _QUANTISERS)
            shuffle = self._makers.get(shuffled)
            constants = {weights, *conv.input[2:]} <= self._shapes.keys()
            if shuffle is None or not constants or self._reads[shuffled] > 1:
                continue
            side, shape = _block(shuffle), self._shapes[weights]
            usual = _keeps_size(conv, shape[2:]) and all(map(self._alike, between))
            if side and usual and _pays(shape, side):
                yield _Tail(shuffle, between, conv, weights, quantisers, side)

    def _above(self, value: str, operators: set[str]) -> tuple[str, list[onnx.NodeProto]]:
        """Return the nodes of some kinds that only a value is made by, and what the first reads."""
        found: list[onnx.NodeProto] = []
        while value in self._makers and self._reads[value] == 1:
            node = self._makers[value]
            if node.op_type not in operators:
                break
            found.insert(0, node)
            value = node.input[0]
        return value, found

    def _alike(self, node: onnx.NodeProto) -> bool:
        """Return whether a node does the same to all pixels of a channel, by constants."""
        names = [name for name in node.input[1:] if name]
        if not self._shapes.keys() >= set(names):
            return False
        shapes = [self._shapes[name] for name in names]
        if node.op_type == "PRelu":
            return all(math.prod(shape[1:]) == 1 for shape in shapes)
        return all(math.prod(shape) == 1 for shape in shapes)


def _keeps_size(conv: onnx.NodeProto, kernel: Sequence[int]) -> bool:
    """Return whether a convolution keeps the size of what it reads, in the usual way."""
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
    """Return the side of the blocks that a pixel shuffle lays out; 0: it is none of PyTorch's."""
    attributes = _attributes(node)
    ours = node.op_type == "DepthToSpace" and attributes.get("mode") == b"CRD"
    return attributes["blocksize"] if ours else 0


def _attributes(node: onnx.NodeProto) -> Mapping[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _pays(shape: Sequence[int], side: int) -> bool:
    """Return whether blocks take no more products than the pixels do, as processors pad both."""
    outputs, channels, kernel = shape[:3]
    low, high = _reach(kernel, side)
    blocks = _padded(outputs * side**2) * (high - low + 1) ** 2
    return outputs < channels and blocks <= _padded(outputs) * kernel**2


def _padded(channels: int) -> int:
    return -(-channels // _TOGETHER) * _TOGETHER


def _reach(kernel: int, side: int) -> tuple[int, int]:
    """Return the first and the last block that a block depends on, where its own is 0."""
    radius = kernel // 2
    return -radius // side, (side - 1 + radius) // side


def _rewrite(graph: onnx.GraphProto, tail: _Tail) -> None:
    """Give a convolution the weights of blocks, and move the shuffle behind it."""
    conv, shuffle = tail.conv, tail.shuffle
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}

    def constant(node: onnx.NodeProto, i: int, values: NDArray[Any]) -> None:
        node.input[i] = f"{node.input[i]}_of_{node.output[0]}_in_blocks"
        graph.initializer.append(numpy_helper.from_array(values, node.input[i]))

    # What there is one of for each channel, there is for each pixel of a block; a slope may be
    # shared by all channels, but the only channel of a gray image has a bias and levels of its own.
    for node in (*tail.between, *tail.quantisers, conv):
        for i, name in enumerate(node.input):
            values = constants.get(name)
            if i == 0 or name == tail.weights or values is None:
                continue
            if values.size > 1 or (values.ndim and node not in tail.between):
                constant(node, i, np.repeat(values, tail.side**2, axis=0))
    weights = constants[tail.weights]
    reader, i = (tail.quantisers[0], 0) if tail.quantisers else (conv, 1)
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
    # The shapes in it are those of before.
    del graph.value_info[:]


def block_weights(weights: NDArray[Any], side: int) -> NDArray[Any]:
    """Return the weights of a convolution for blocks, to and from what is not shuffled.

    Args:
        weights: (outputs, channels, kernel, kernel) of one that reads and makes pixels.
        side: Of a block.

    Returns:
        (outputs * side**2, channels * side**2, blocks, blocks).
    """
    outputs, channels, kernel, _ = weights.shape
    low, high = _reach(kernel, side)
    reach = high - low + 1
    found = np.zeros((outputs, side, side, channels, side, side, reach, reach), weights.dtype)
    # Each pixel of a block and each tap of its kernel: which block that reads, and where in it.
    for row, column, y, x in np.ndindex(side, side, kernel, kernel):
        down, top = divmod(row + y - kernel // 2, side)
        right, left = divmod(column + x - kernel // 2, side)
        taps = found[:, row, column, :, top, left, down - low, right - low]
        taps[...] = weights[:, :, y, x]
    return found.reshape(outputs * side**2, channels * side**2, reach, reach)
