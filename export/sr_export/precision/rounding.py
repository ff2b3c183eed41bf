"""Weights rounded to INT8 so that the layer's output keeps, not each weight by itself.

A weight is rounded up or down, and the error that this makes in the output is taken up by the
weights that are not rounded yet, as far as their inputs go together (Frantar et al., "GPTQ", 2022).
The mean that remains goes into the bias. Only the inputs are needed, no gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from sr_export import graphs
from sr_export.precision.activations import watched
from sr_export.precision.placement import LEVELS, Fitted, scale_of, weight_scales

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from sr_export.precision.placement import Layer

# What the covariances of a group of layers may take; with more layers, there are more passes.
_GROUP_BYTES = 384 << 20
_MOST_TILES = 32
_PATCHES_PER_TILE = 1024
# Added to the diagonal of the covariance, as a part of its mean: the inputs that were seen are not
# all there are.
_DAMPING = 0.01
_BLOCK = 64


class _Seen:
    """What the inputs of one layer are like: means, and the covariance after quantisation."""

    def __init__(
        self, node: onnx.NodeProto, weights: NDArray[np.float32], threshold: float
    ) -> None:
        self.node = node
        self.weights = weights
        self._scale = scale_of(np.float32(threshold))
        size = weights[0].size
        self._products = np.zeros((size, size))
        self._exact = np.zeros(size)
        self._quantised = np.zeros(size)
        self._count = 0

    def add(self, value: NDArray[np.float32], rng: np.random.Generator) -> None:
        """Take in patches of one input (1, C, H, W)."""
        quantised = np.clip(np.rint(value / self._scale), -LEVELS, LEVELS) * self._scale
        exact, rounded = (_patches(each, self.node, self.weights) for each in (value, quantised))
        chosen = rng.permutation(exact.shape[0])[:_PATCHES_PER_TILE]
        exact, rounded = exact[chosen], rounded[chosen]
        self._products += rounded.T @ rounded
        self._exact += exact.sum(axis=0)
        self._quantised += rounded.sum(axis=0)
        self._count += len(chosen)

    def round(self, bias: NDArray[np.float32]) -> Fitted:
        """Return the weights on their levels."""
        exact, quantised = self._exact / self._count, self._quantised / self._count
        covariance = self._products / self._count - np.outer(quantised, quantised)
        flat = self.weights.reshape(len(self.weights), -1)
        scales = weight_scales(self.weights, axis=0)
        found = _on_levels(flat, covariance, scales)
        return Fitted(
            found.reshape(self.weights.shape).astype(np.float32),
            scales,
            (bias + flat @ exact - found @ quantised).astype(np.float32),
        )


def rounded(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    thresholds: Mapping[str, float],
    tiles: Sequence[NDArray[np.uint8]],
    report: Callable[[str], None],
) -> dict[str, Fitted]:
    """Return the rounded weights of all dense convolutions among some layers, by their names.

    Args:
        model: Float32, NCHW.
        layers: Those that are to compute in INT8.
        thresholds: Where the input of each is clipped.
        tiles: Images (H, W, C) to see the inputs on.
        report: Called with how far it is.

    Raises:
        ExportError: ONNX Runtime cannot run the graph.
    """
    plain = graphs.copied(model)
    constants = {each.name: each for each in plain.graph.initializer}
    names = {each.name for each in layers}
    nodes = [node for node in plain.graph.node if node.name in names and _fits(node, plain.graph)]
    tiles = tiles[:: -(-len(tiles) // _MOST_TILES)]
    rng = np.random.default_rng(0)
    found: dict[str, Fitted] = {}
    for group in _groups(nodes, constants):
        seen = [
            _Seen(node, numpy_helper.to_array(constants[node.input[1]]), thresholds[node.input[0]])
            for node in group
        ]
        inputs = [node.input[0] for node in group]
        for values in watched(plain, inputs, tiles):
            for each, value in zip(seen, values, strict=True):
                each.add(value, rng)
        for each in seen:
            report(f"rounding weights: layer {len(found) + 1} of {len(nodes)}")
            found[each.node.name] = each.round(_bias(each, constants))
    return found


def _fits(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Return whether a layer is a dense convolution whose weights and bias are its own."""
    constants = {each.name for each in graph.initializer}
    attributes = {each.name: each for each in node.attribute}
    dense = node.op_type == "Conv" and ("group" not in attributes or attributes["group"].i == 1)
    simple = "dilations" not in attributes or set(attributes["dilations"].ints) == {1}
    read = [name for each in graph.node for name in each.input]
    bias_known = len(node.input) < 3 or node.input[2] in constants
    return dense and simple and bias_known and read.count(node.input[1]) == 1


def _groups(
    nodes: Sequence[onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> Iterator[list[onnx.NodeProto]]:
    """Divide layers into groups whose covariances fit into memory together."""
    group: list[onnx.NodeProto] = []
    room = _GROUP_BYTES
    for node in nodes:
        taken = 8 * int(np.prod(constants[node.input[1]].dims[1:])) ** 2
        if group and taken > room:
            yield group
            group, room = [], _GROUP_BYTES
        group.append(node)
        room -= taken
    if group:
        yield group


def _bias(seen: _Seen, constants: Mapping[str, onnx.TensorProto]) -> NDArray[np.float32]:
    if len(seen.node.input) > 2:
        return numpy_helper.to_array(constants[seen.node.input[2]])
    return np.zeros(len(seen.weights), np.float32)


def _patches(
    value: NDArray[np.float32], node: onnx.NodeProto, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what each output pixel is made of, (pixels, inputs of one output)."""
    attributes = {each.name: list(each.ints) for each in node.attribute if each.ints}
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    strides = attributes.get("strides", [1, 1])
    padded = np.pad(value[0], ((0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], axis=(1, 2))
    windows = windows[:, :: strides[0], :: strides[1]]
    return windows.transpose(1, 2, 0, 3, 4).reshape(-1, weights[0].size)


def _on_levels(
    weights: NDArray[np.float32], covariance: NDArray[np.float64], scales: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return weights (outputs, inputs) on the levels of each output, errors passed on."""
    size = len(covariance)
    damping = max(_DAMPING * float(np.diag(covariance).mean()), 1e-12)
    covariance = covariance + damping * np.eye(size)
    # The inputs that matter most are rounded first, while there are others to make up for it.
    order = np.argsort(-np.diag(covariance))
    influence = np.linalg.cholesky(np.linalg.inv(covariance[np.ix_(order, order)])).T
    left = weights[:, order].astype(np.float64)
    levels = np.zeros_like(left)
    for start in range(0, size, _BLOCK):
        end = min(start + _BLOCK, size)
        errors = np.zeros((len(left), end - start))
        for i in range(start, end):
            level = np.clip(np.rint(left[:, i] / scales), -LEVELS, LEVELS)
            levels[:, i] = level * scales
            errors[:, i - start] = (left[:, i] - levels[:, i]) / influence[i, i]
            left[:, i:end] -= np.outer(errors[:, i - start], influence[i, i:end])
        left[:, end:] -= errors @ influence[start:end, end:]
    result = np.empty_like(levels)
    result[:, order] = levels
    return result
