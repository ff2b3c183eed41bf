"""The layers of a graph that a training for INT8 begins with, and those that it ended with."""

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
from sr_export.quantize.placement import Fitted
from sr_export.quantize.quantizer import Quantiser

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import onnx
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from sr_export.quantize.placement import Layer

# Of a level: what float32 loses where a network multiplies a weight by a factor of 1.
_OFF_LEVEL = 1e-2


@dataclass(frozen=True, eq=False)
class Start:
    """What a training for INT8 can begin with, of one convolution."""

    trained: Trained
    weight: Tensor
    """Fitted to what calibration showed."""
    correction: Tensor
    """What to add to the bias."""


@dataclass(frozen=True)
class Placed:
    """The layers of a graph that were trained in INT8."""

    model: onnx.ModelProto
    """That graph, which computes what the exported one does."""
    layers: tuple[Layer, ...]
    thresholds: Mapping[str, float]
    """By the values that they read."""
    fitted: Mapping[str, Fitted]
    """By the names of the layers."""


def calibrated(
    model: onnx.ModelProto,
    layers: Mapping[str, Layer],
    tiles: Sequence[NDArray[np.uint8]],
    report: Callable[[str], None],
) -> dict[str, Start]:
    """Return what a training can begin with: layers as they would compute without it.

    Args:
        model: Float32, NCHW in [0, 1].
        layers: By the names of their weights.
        tiles: Images (H, W, C) to see the inputs on.
        report: Called with how far it is.

    Raises:
        ExportError: ONNX Runtime cannot run the graph, or it gives values that are not finite.
    """
    chosen = {each.name for each in layers.values()}
    quantiser = Quantiser(model, tiles, "percentile", report, chosen)
    placed = {each.name: each for each in quantiser.layers}
    found = {}
    for name, layer in layers.items():
        node, before = _own(model, layer)
        layer = placed[layer.name]
        each = quantiser.fitted.get(layer.name) or _own(quantiser.model, layer)[1]
        bias, centred = each.bias, layer.input in quantiser.images
        if centred:
            bias = bias - centered_input.GREY * each.weights.sum(axis=(1, 2, 3))
        # Where an input is always 0, what it would be clipped at makes no difference.
        threshold = quantiser.thresholds[layer.input] or SMALLEST_SCALE
        axis = placement.OUTPUT_AXIS[node.op_type]
        found[name] = Start(
            Trained(threshold, axis, torch.from_numpy(each.scales), centred),
            torch.from_numpy(each.weights.copy()),
            torch.from_numpy(bias - before.bias),
        )
    return found


def _own(model: onnx.ModelProto, layer: Layer) -> tuple[onnx.NodeProto, Fitted]:
    """Return a layer's node, and its weights as they are."""
    constants = {each.name: each for each in onnx_graph.copied(model).graph.initializer}
    node = next(each for each in model.graph.node if each.name == layer.name)
    axis = placement.OUTPUT_AXIS[node.op_type]
    weights = numpy_helper.to_array(constants[node.input[1]])
    scales = placement.weight_scales(weights, axis)
    if len(node.input) > 2:
        return node, Fitted(weights, scales, numpy_helper.to_array(constants[node.input[2]]))
    return node, Fitted(weights, scales, np.zeros(scales.shape, np.float32))


def names(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Return what a module calls the weights of a checkpoint, where it has them as they are.

    Loaders give other names to weights, so these are known by their values. Those that are not
    alone in theirs are left out, such as weights that are all zero.

    Args:
        module: The network.
        tensors: Its weights by the names of the checkpoint.
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
    """Return the layers that can compute in INT8, by the names of their weights.

    Args:
        model: Float32, NCHW.
        weights: What the graph calls the weights, by the names to return them by. Those that
            several layers use, or none that can, are left out.
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
) -> Placed:
    """Return which layers of a graph compute in INT8, and how.

    Args:
        model: Float32, NCHW.
        weights: What the graph calls the weights, by the names in `trained`.
        trained: How they were trained.

    Raises:
        CheckpointError: One cannot compute as it did in training.
    """
    able = layers(model, weights)
    for name in trained:
        if name not in able:
            raise CheckpointError(
                f"{KEY!r} names {name!r}, which in the exported graph is not the weight of just "
                "one convolution that can compute in INT8; train without that layer, or save the "
                f"network without {KEY!r} to have INT8 calibrated"
            )
    model, images = centered_input.centred(
        model, [able[name] for name in trained if trained[name].centred]
    )
    able = layers(model, weights)
    thresholds: dict[str, float] = {}
    fitted: dict[str, Fitted] = {}
    for name, each in trained.items():
        layer = able[name]
        if each.centred and layer.input not in images:
            raise CheckpointError(
                f"{KEY!r} says that grey is taken away from what {name!r} reads, which in the "
                "exported graph is not the image"
            )
        if thresholds.setdefault(layer.input, each.threshold) != each.threshold:
            raise CheckpointError(
                f"{KEY!r} clips what {name!r} reads at {each.threshold:g}, and at "
                f"{thresholds[layer.input]:g} for another layer that reads the same; "
                "give both the same"
            )
        fitted[layer.name] = _as_trained(name, each, *_own(model, layer))
    return Placed(model, tuple(able[name] for name in trained), thresholds, fitted)


def _as_trained(name: str, trained: Trained, node: onnx.NodeProto, own: Fitted) -> Fitted:
    """Return the weights of a layer with the scales of training, if they are on these levels."""
    if trained.axis == placement.OUTPUT_AXIS[node.op_type]:
        levels = own.weights / trained.broadcast(own.weights.ndim).numpy()
        if float(np.abs(levels - np.rint(levels)).max()) < _OFF_LEVEL:
            return Fitted(own.weights, trained.scales.numpy(), own.bias)
    raise CheckpointError(
        f"{KEY!r} has scales for {name!r} that are not those of its weight in the exported graph; "
        "train with batch normalisation folded into the convolutions"
    )
