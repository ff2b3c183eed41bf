"""Quantization-aware training: its starting point from calibration, and its result in a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from onnx import numpy_helper

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint.int8_record import KEY, SMALLEST_SCALE, Trained
from sr_export.graph import onnx_graph
from sr_export.quantize import centered_input, placement
from sr_export.quantize.placement import FittedWeights
from sr_export.quantize.quantizer import Quantizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sr_export.quantize.placement import Layer

# Tolerance in levels: float32 rounding where a network multiplies a weight by a factor of 1.
_OFF_LEVEL = 1e-2


@dataclass(frozen=True, eq=False)
class QatStart:
    """The starting point of quantization-aware training for one convolution."""

    trained: Trained
    weight: Tensor
    """The weight with optimized rounding."""
    correction: Tensor
    """To add to the bias."""


@dataclass(frozen=True)
class QatLayers:
    """The layers of a graph that were trained in INT8."""

    model: onnx.ModelProto
    """A graph equivalent to the exported one."""
    layers: tuple[Layer, ...]
    thresholds: Mapping[str, float]
    """Clipping thresholds by name of the input value."""
    fitted: Mapping[str, FittedWeights]
    """Weights by layer name."""


def calibrated(
    model: onnx.ModelProto,
    layers: Mapping[str, Layer],
    tiles: Sequence[NDArray[np.uint8]],
    report: Callable[[str], None],
) -> dict[str, QatStart]:
    """Return the starting point of training: the layers as post-training quantization leaves them.

    Args:
        model: Float32, NCHW in [0, 1].
        layers: The layers to train, by name of their weight.
        tiles: Images (H, W, C) for calibration.
        report: Called with the progress.

    Raises:
        ExportError: ONNX Runtime cannot run the graph, or a value is not finite.
    """
    chosen = {each.name for each in layers.values()}
    quantizer = Quantizer(model, tiles, "percentile", report, chosen)
    placed = {each.name: each for each in quantizer.layers}
    found = {}
    for name, layer in layers.items():
        node, before = _own(model, layer)
        layer = placed[layer.name]
        each = quantizer.fitted.get(layer.name) or _own(quantizer.model, layer)[1]
        bias, centred = each.bias, layer.input in quantizer.images
        if centred:
            bias = bias - centered_input.GRAY * each.weights.sum(axis=(1, 2, 3))
        # The threshold of an input that is always 0 makes no difference.
        threshold = quantizer.thresholds[layer.input] or SMALLEST_SCALE
        axis = placement.OUTPUT_AXIS[node.op_type]
        found[name] = QatStart(
            Trained(threshold, axis, torch.from_numpy(each.scales), centred),
            torch.from_numpy(each.weights.copy()),
            torch.from_numpy(bias - before.bias),
        )
    return found


def _own(model: onnx.ModelProto, layer: Layer) -> tuple[onnx.NodeProto, FittedWeights]:
    """Return a layer's node and its unchanged weights."""
    constants = {each.name: each for each in onnx_graph.copied(model).graph.initializer}
    node = next(each for each in model.graph.node if each.name == layer.name)
    axis = placement.OUTPUT_AXIS[node.op_type]
    weights = numpy_helper.to_array(constants[node.input[1]])
    scales = placement.weight_scales(weights, axis)
    if len(node.input) > 2:
        return node, FittedWeights(weights, scales, numpy_helper.to_array(constants[node.input[2]]))
    return node, FittedWeights(weights, scales, np.zeros(scales.shape, np.float32))


def names(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Map the names of a checkpoint's weights to those of a module's parameters.

    Loaders rename weights, so they are matched by value. Weights with equal values, such as all
    zeros, are left out.

    Args:
        module: The network.
        tensors: Its weights by their names in the checkpoint.
    """
    theirs = _by_value(dict(module.named_parameters()))
    return {
        ours[0]: theirs[value][0]
        for value, ours in _by_value(tensors).items()
        if len(ours) == 1 and len(theirs.get(value, ())) == 1
    }


def _by_value(tensors: Mapping[str, Tensor]) -> dict[tuple[tuple[int, ...], bytes], list[str]]:
    found: dict[tuple[tuple[int, ...], bytes], list[str]] = {}
    for name, tensor in tensors.items():
        value = tuple(tensor.shape), tensor.detach().cpu().contiguous().numpy().tobytes()
        found.setdefault(value, []).append(name)
    return found


def layers(model: onnx.ModelProto, weights: Mapping[str, str]) -> dict[str, Layer]:
    """Return the layers that can compute in INT8, by name of their weight.

    Args:
        model: Float32, NCHW.
        weights: Names of weights in the graph, by the names to return. A weight that is not used by
            exactly one such layer is left out.
    """
    nodes = {each.name: each for each in model.graph.node}
    found: dict[str, list[Layer]] = {}
    for layer in placement.layers(model):
        found.setdefault(nodes[layer.name].input[1], []).append(layer)
    return {
        name: found[constant][0]
        for name, constant in weights.items()
        if len(found.get(constant, ())) == 1
    }


def placed(
    model: onnx.ModelProto, weights: Mapping[str, str], trained: Mapping[str, Trained]
) -> QatLayers:
    """Return the INT8 layers of a graph from the record of their training.

    Args:
        model: Float32, NCHW.
        weights: Names of weights in the graph, by the names in `trained`.
        trained: The INT8 parameters from training.

    Raises:
        CheckpointError: A layer cannot compute as it did in training.
    """
    able = layers(model, weights)
    for name in trained:
        if name not in able:
            raise CheckpointError(
                f"{KEY!r} lists {name!r}, but in the exported graph that is not the weight of "
                "exactly one convolution that can compute in INT8; train without that layer, or "
                f"save the network without {KEY!r} to calibrate INT8"
            )
    model, images = centered_input.center(
        model, [able[name] for name in trained if trained[name].centred]
    )
    able = layers(model, weights)
    thresholds: dict[str, float] = {}
    fitted: dict[str, FittedWeights] = {}
    for name, each in trained.items():
        layer = able[name]
        if each.centred and layer.input not in images:
            raise CheckpointError(
                f"{KEY!r} says that the input of {name!r} is centered, but in the exported graph "
                "that input is not the image"
            )
        if thresholds.setdefault(layer.input, each.threshold) != each.threshold:
            raise CheckpointError(
                f"{KEY!r} clips the input of {name!r} at {each.threshold:g}, but another layer "
                f"with the same input clips it at {thresholds[layer.input]:g}; use one threshold"
            )
        fitted[layer.name] = _as_trained(name, each, *_own(model, layer))
    return QatLayers(model, tuple(able[name] for name in trained), thresholds, fitted)


def _as_trained(
    name: str, trained: Trained, node: onnx.NodeProto, own: FittedWeights
) -> FittedWeights:
    """Return a layer's weights with the scales of training, after checking that they match."""
    if trained.axis == placement.OUTPUT_AXIS[node.op_type]:
        levels = own.weights / trained.broadcast(own.weights.ndim).numpy()
        if float(np.abs(levels - np.rint(levels)).max()) < _OFF_LEVEL:
            return FittedWeights(own.weights, trained.scales.numpy(), own.bias)
    raise CheckpointError(
        f"{KEY!r} has scales for {name!r} that do not match its weight in the exported graph; "
        "train with batch normalization folded into the convolutions"
    )
