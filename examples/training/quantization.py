"""Quantization-aware training: the exporter's INT8 arithmetic, simulated while training.

    layers = prepare(network, channels=3)
    with SimulatedInt8(network, layers):
        output = network(low)       # as computed in INT8; gradients pass through the rounding

Inputs and weights of every convolution that the exporter would quantize are rounded to INT8 by the
exporter's rules. Training starts where the exporter ends: activations are clipped at its calibrated
thresholds, weights have its levels and its optimized rounding. Thresholds and levels then stay
fixed, and only the weights are trained. A checkpoint with `record(layers)` under `KEY` is exported
with exactly these layers, without calibration.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sr_deploy.cli import console
from sr_deploy.errors import InvalidInputError
from sr_export import pipeline
from sr_export.checkpoint.int8_record import KEY, LEVELS, Trained, read, record
from sr_export.quantize.centered_input import GRAY
from sr_export.quantize.placement import OUTPUT_AXIS, scale_of

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["KEY", "SimulatedInt8", "prepare", "read", "record"]

_CONVOLUTIONS = frozenset({torch.conv2d, torch.conv_transpose2d})
# ONNX clips activations to -128, though the scale is made for -127.
_LOWEST = -128
_PROBE_SIDE = 32
# Folding is exact up to float32 rounding.
_FOLDING_ERROR = 1e-3


class SimulatedInt8(TorchFunctionMode):
    """A context in which a network's convolutions are computed as in INT8.

    It does not modify the network or the names of its weights.

    Args:
        network: The network that is called inside the context.
        layers: INT8 parameters by weight name.

    Raises:
        InvalidInputError: The network has no weight with one of these names.
    """

    def __init__(self, network: nn.Module, layers: Mapping[str, Trained]) -> None:
        super().__init__()
        weights = dict(network.named_parameters())
        if unknown := sorted(layers.keys() - weights.keys()):
            raise InvalidInputError(f"the network has no weight {unknown[0]!r} to compute in INT8")
        # By parameter object, which stays the same in training and when moved to another device.
        self._layers = {
            weights[name]: (
                float(scale_of(np.float32(each.threshold))),
                float(GRAY) if each.centred else 0.0,
                each.broadcast(weights[name].ndim),
            )
            for name, each in layers.items()
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Call a torch function; round the operands of a convolution first."""
        kwargs = kwargs or {}
        if func not in _CONVOLUTIONS or args[1] not in self._layers:
            return func(*args, **kwargs)
        value, weight, *rest = args
        scale, middle, scales = self._layers[weight]
        # bfloat16 has no more digits than INT8, and would round a second time.
        with torch.autocast(value.device.type, enabled=False):
            rounded = torch.fake_quantize_per_tensor_affine(
                value.float() - middle, scale, 0, _LOWEST, LEVELS
            )
            weight = round_to_levels(weight, scales.to(weight.device))
            return func(rounded + middle, weight, *rest, **kwargs)


def round_to_levels(weight: Tensor, scales: Tensor) -> Tensor:
    """Round a weight to its INT8 levels; gradients pass through, except for clipped values.

    Args:
        weight: A convolution's weight.
        scales: Step size of each output channel, in a shape that broadcasts over the weight.
    """
    clipped = torch.clamp(weight, -LEVELS * scales, LEVELS * scales)
    return clipped + (torch.round(clipped / scales) * scales - clipped).detach()


def prepare(network: nn.Module, channels: int) -> dict[str, Trained]:
    """Prepare a network for INT8 training; return the INT8 parameters of every possible layer.

    This folds BatchNorm into convolutions and gives the weights the exporter's optimized rounding.
    The names of the weights stay the same.

    Args:
        network: A network whose images are in [0, 1].
        channels: Channels of the images.

    Raises:
        InvalidInputError: A BatchNorm does not follow a convolution.
        CheckpointError, ExportError: The network cannot be exported.
    """
    norms = fold_norms(network, channels)
    with console.Progress() as progress:
        start = pipeline.calibrated(network.state_dict(), progress.stage)
    weights = dict(network.named_parameters())
    with torch.no_grad():
        for name, each in start.items():
            weights[name].copy_(each.weight)
            layer = network.get_submodule(name.rpartition(".")[0])
            bias = norms[layer].bias if layer in norms else getattr(layer, "bias", None)
            if bias is not None:
                bias.add_(each.correction.to(bias.device))
    return {name: each.trained for name, each in start.items()}


def fold_norms(network: nn.Module, channels: int) -> dict[nn.Module, nn.BatchNorm2d]:
    """Fold the factors of BatchNorm into the convolutions before it, as the export does.

    Only a bias remains. The names of the weights and the output in eval mode stay the same. The
    BatchNorm layers stay in eval mode: changing statistics would change the weights' levels.

    Args:
        network: In any mode.
        channels: Channels of its images.

    Returns:
        The BatchNorm behind each convolution that has one.

    Raises:
        InvalidInputError: A BatchNorm does not directly follow a convolution.
    """
    device = next(network.parameters()).device
    probe = torch.rand(1, channels, _PROBE_SIDE, _PROBE_SIDE, device=device)
    training = network.training
    network.eval()
    with torch.no_grad():
        expected, pairs = _find_norms(network, probe)
        for convolution, norm in pairs.items():
            _fold(convolution, norm)
        error = float((network(probe) - expected).abs().max())
    network.train(training)
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    if len(pairs) < len(norms) or error > _FOLDING_ERROR:
        raise InvalidInputError(
            f"cannot be trained for INT8: {len(norms)} BatchNorm layers, of which {len(pairs)} "
            "directly follow a convolution; the exporter can fold only those"
        )
    return pairs


def _find_norms(
    network: nn.Module, probe: Tensor
) -> tuple[Tensor, dict[nn.Module, nn.BatchNorm2d]]:
    """Return the output for a probe, and the BatchNorm behind each convolution that has one."""
    outputs: list[tuple[nn.Module, Tensor]] = []
    pairs: dict[nn.Module, nn.BatchNorm2d] = {}

    def note(module: Any, _: Any, output: Tensor) -> None:
        outputs.append((module, output))

    def match(norm: Any, inputs: tuple[Tensor]) -> None:
        pairs.update((module, norm) for module, output in outputs if output is inputs[0])

    hooks = []
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            hooks.append(module.register_forward_hook(note))
        elif isinstance(module, nn.BatchNorm2d):
            hooks.append(module.register_forward_pre_hook(match))
    output = network(probe)
    for hook in hooks:
        hook.remove()
    return output, pairs


def _fold(convolution: nn.Module, norm: nn.BatchNorm2d) -> None:
    """Multiply BatchNorm's factors into a convolution; only its bias remains trainable."""
    assert isinstance(convolution, (nn.Conv2d, nn.ConvTranspose2d))
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    axis = OUTPUT_AXIS["Conv" if isinstance(convolution, nn.Conv2d) else "ConvTranspose"]
    convolution.weight.mul_(gain.view([-1 if each == axis else 1 for each in range(4)]))
    if convolution.bias is not None:
        convolution.bias.mul_(gain)
    norm.bias.sub_(norm.running_mean * gain)
    norm.running_mean.zero_()
    norm.running_var.fill_(1 - norm.eps)
    norm.weight.fill_(1)
    norm.weight.requires_grad = False
    norm.register_forward_pre_hook(_keep_in_eval_mode)


def _keep_in_eval_mode(norm: nn.Module, _: object) -> None:
    norm.eval()
