"""Optimizing the rounding of weights on real activations, layer by layer.

The inputs of a layer are changed by the quantized layers before it, but its output should stay what
it was in FP32. So its weights are first moved towards the least-squares solution for these inputs.
Then they are rounded one after the other, and each rounding error is compensated by the weights
that are not rounded yet, as far as their inputs correlate (Frantar et al., "GPTQ", 2022). The mean
error goes into the bias. This needs no gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import numpy_helper

from sr_export.checkpoint.int8_record import LEVELS
from sr_export.graph import onnx_graph
from sr_export.quantize.layerwise import LayerwiseRun
from sr_export.quantize.placement import FittedWeights, scale_of, weight_scales

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray

    from sr_export.quantize.placement import Layer

_MOST_TILES = 32
# Per layer, over all tiles.
_PATCHES = 32 << 10
# Regularization towards the original weights, relative to the mean variance of the inputs. On a
# Compact network of 18 layers, 0.01, 0.1, 1 and no move at all gave 42.2, 43.1, 43.7 and 43.2 dB
# against FP32: with little regularization, weights overfit the calibration images.
_PULL = 1.0
# Added to the diagonal of the covariance, relative to its mean, since the sample is finite.
_DAMPING = 0.01
_BLOCK = 64


class _LayerStatistics:
    """Means and covariances of a layer's quantized inputs and its FP32 outputs."""

    def __init__(
        self, node: onnx.NodeProto, weights: NDArray[np.float32], threshold: float
    ) -> None:
        self._node = node
        self._weights = weights
        self._flat = weights.reshape(len(weights), -1)
        self._scale = scale_of(np.float32(threshold))
        outputs, inputs = self._flat.shape
        self._products = np.zeros((inputs, inputs))
        self._cross = np.zeros((outputs, inputs))
        self._wanted = np.zeros(outputs)
        self._given = np.zeros(inputs)
        self._count = 0

    def add(
        self,
        exact: NDArray[np.float32],
        found: NDArray[np.float32],
        most: int,
        rng: np.random.Generator,
    ) -> None:
        """Add random patches of the layer's input.

        Args:
            exact: The input in FP32, (N, C, H, W).
            found: The input after the INT8 layers before.
            most: Number of patches.
            rng: Chooses the patches.
        """
        # INT8 has one more level below 0, which runtimes use.
        found = np.clip(np.rint(found / self._scale), -LEVELS - 1, LEVELS) * self._scale
        windows = [_windows(each, self._node, self._weights) for each in (exact, found)]
        places = windows[0].shape[:3]
        chosen = np.unravel_index(rng.permutation(int(np.prod(places)))[:most], places)
        wanted, given = (each[chosen].reshape(len(chosen[0]), -1) for each in windows)
        wanted = wanted @ self._flat.T
        self._products += given.T @ given
        self._cross += wanted.T @ given
        self._wanted += wanted.sum(axis=0)
        self._given += given.sum(axis=0)
        self._count += len(given)

    def round(self, bias: NDArray[np.float32]) -> FittedWeights:
        """Return the weights on INT8 levels."""
        wanted, given = self._wanted / self._count, self._given / self._count
        covariance = self._products / self._count - np.outer(given, given)
        cross = self._cross / self._count - np.outer(wanted, given)
        best = _best(self._flat, covariance, cross)
        scales = weight_scales(best, axis=0)
        found = _on_levels(best, covariance, scales)
        return FittedWeights(
            found.reshape(self._weights.shape).astype(np.float32),
            scales,
            (bias + wanted - found @ given).astype(np.float32),
        )


def optimize_rounding(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    thresholds: Mapping[str, float],
    tiles: Sequence[NDArray[np.uint8]],
    report: Callable[[str], None],
) -> dict[str, FittedWeights]:
    """Return weights with optimized rounding for the dense convolutions among the layers, by name.

    Args:
        model: Float32, NCHW.
        layers: The layers that will compute in INT8.
        thresholds: Clipping threshold of each layer's input, by value name.
        tiles: Images (H, W, C) for calibration.
        report: Called with the progress.

    Raises:
        ExportError: ONNX Runtime cannot run the graph.
    """
    plain = onnx_graph.copied(model)
    constants = {each.name: each for each in plain.graph.initializer}
    names = {each.name for each in layers}
    nodes = [node for node in plain.graph.node if node.name in names and _fits(node, plain.graph)]
    stages = LayerwiseRun(plain, layers, thresholds, tiles[:: -(-len(tiles) // _MOST_TILES)])
    rng = np.random.default_rng(0)
    found: dict[str, FittedWeights] = {}
    for node in nodes:
        report(f"optimizing rounding: layer {len(found) + 1} of {len(nodes)}")
        stages.run_to(node.name, found)
        weights = numpy_helper.to_array(constants[node.input[1]])
        seen = _LayerStatistics(node, weights, thresholds[node.input[0]])
        for exact, quantized in stages.values(node.input[0]):
            seen.add(exact, quantized, -(-_PATCHES // len(stages)), rng)
        found[node.name] = seen.round(_bias(node, len(weights), constants))
    return found


def _fits(node: onnx.NodeProto, graph: onnx.GraphProto) -> bool:
    """Return whether a layer is a dense convolution with weights and bias of its own."""
    constants = {each.name for each in graph.initializer}
    attributes = {each.name: each for each in node.attribute}
    dense = node.op_type == "Conv" and ("group" not in attributes or attributes["group"].i == 1)
    simple = "dilations" not in attributes or set(attributes["dilations"].ints) == {1}
    read = [name for each in graph.node for name in each.input]
    bias_known = len(node.input) < 3 or node.input[2] in constants
    return dense and simple and bias_known and read.count(node.input[1]) == 1


def _bias(
    node: onnx.NodeProto, outputs: int, constants: Mapping[str, onnx.TensorProto]
) -> NDArray[np.float32]:
    if len(node.input) > 2:
        return numpy_helper.to_array(constants[node.input[2]])
    return np.zeros(outputs, np.float32)


def _windows(
    value: NDArray[np.float32], node: onnx.NodeProto, weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return the input patch of each output pixel: a view (N, rows, columns, C, height, width)."""
    attributes = {each.name: list(each.ints) for each in node.attribute if each.ints}
    top, left, bottom, right = attributes.get("pads", [0] * 4)
    strides = attributes.get("strides", [1, 1])
    padded = np.pad(value, ((0, 0), (0, 0), (top, bottom), (left, right)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weights.shape[2:], axis=(2, 3))
    return windows[:, :, :: strides[0], :: strides[1]].transpose(0, 2, 3, 1, 4, 5)


def _best(
    weights: NDArray[np.float32],
    covariance: NDArray[np.float64],
    cross: NDArray[np.float64],
) -> NDArray[np.float32]:
    """Return the least-squares weights (outputs, inputs), regularized towards the original ones.

    Args:
        weights: The original weights.
        covariance: Covariance of the quantized inputs.
        cross: Covariance of the FP32 outputs with these inputs.
    """
    pull = max(_PULL * float(np.diag(covariance).mean()), 1e-12)
    damped = covariance + pull * np.eye(len(covariance))
    moved = np.linalg.solve(damped, (cross - weights @ covariance).T).T
    return (weights + moved).astype(np.float32)


def _on_levels(
    weights: NDArray[np.float32],
    covariance: NDArray[np.float64],
    scales: NDArray[np.float32],
) -> NDArray[np.float64]:
    """Round weights (outputs, inputs) to each output's levels, with error compensation."""
    size = len(covariance)
    damping = max(_DAMPING * float(np.diag(covariance).mean()), 1e-12)
    covariance = covariance + damping * np.eye(size)
    # The inputs with the largest variance first, while others can still compensate.
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
