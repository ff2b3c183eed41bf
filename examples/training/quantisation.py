"""Training for INT8: what sr-export does to a network is done to it while it learns.

    trained = prepare(network, channels=3)
    with Int8(network, trained):
        output = network(low)       # as INT8 computes it; gradients pass through the rounding

Every convolution that the exporter would quantise reads an input and a weight that are rounded to
INT8 by the exporter's own rules. It begins where the exporter would end: activations are clipped
where it would clip them, weights have the levels that it would give them and are fitted as it does.
All of that then stays, while the weights learn what is left to learn. A checkpoint that holds
`record(trained)` under `KEY` is exported as it was trained, without being calibrated again.
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

__all__ = ["KEY", "Int8", "prepare", "read", "record"]

_CONVOLUTIONS = frozenset({torch.conv2d, torch.conv_transpose2d})
# ONNX clips activations here, though the scale is made for -127.
_LOWEST = -128
_PROBE_SIDE = 32
# Folding is exact but for float32's rounding.
_FOLDING_ERROR = 1e-3


class Int8(TorchFunctionMode):
    """Within `with`, a network computes its convolutions as INT8 does; outside, nothing changes.

    Neither the network nor the names of its weights are touched.

    Args:
        network: whose convolutions.
        trained: which of them, by the names of their weights, and how.

    Raises:
        InvalidInputError: the network has no such weights.
    """

    def __init__(self, network: nn.Module, trained: Mapping[str, Trained]) -> None:
        super().__init__()
        weights = dict(network.named_parameters())
        if strange := sorted(trained.keys() - weights.keys()):
            raise InvalidInputError(f"{strange[0]!r} is to be in INT8, but is not of this network")
        # By the objects, which stay the same when they learn or go to another device.
        self._layers = {
            weights[name]: (
                float(scale_of(np.float32(each.threshold))),
                float(GRAY) if each.centred else 0.0,
                each.broadcast(weights[name].ndim),
            )
            for name, each in trained.items()
        }

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Do what torch is asked for, a convolution on rounded operands."""
        kwargs = kwargs or {}
        if func not in _CONVOLUTIONS or args[1] not in self._layers:
            return func(*args, **kwargs)
        value, weight, *rest = args
        scale, middle, scales = self._layers[weight]
        # bfloat16 has no more digits than INT8, and would round once more.
        with torch.autocast(value.device.type, enabled=False):
            held = torch.fake_quantize_per_tensor_affine(
                value.float() - middle, scale, 0, _LOWEST, LEVELS
            )
            levels = on_levels(weight, scales.to(weight.device))
            return func(held + middle, levels, *rest, **kwargs)


def on_levels(weight: Tensor, scales: Tensor) -> Tensor:
    """Returns a weight as INT8 has it; gradients pass through, but for what is clipped.

    Args:
        weight: of a convolution.
        scales: the size of a level of each output channel, with the axes of the weight.
    """
    held = torch.clamp(weight, -LEVELS * scales, LEVELS * scales)
    return held + (torch.round(held / scales) * scales - held).detach()


def prepare(network: nn.Module, channels: int) -> dict[str, Trained]:
    """Makes a network ready to be trained for INT8, in all layers that can; returns how these are.

    Batch normalisation goes into the convolutions before it, and weights take the values that
    sr-export would fit them to. The names of the weights stay.

    Args:
        network: takes and gives images in [0, 1].
        channels: of these images.

    Raises:
        InvalidInputError: batch normalisation does not always follow a convolution.
        CheckpointError, ExportError: the network cannot be exported.
    """
    norms = reduce_norms(network, channels)
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


def reduce_norms(network: nn.Module, channels: int) -> dict[nn.Module, nn.BatchNorm2d]:
    """Moves what batch normalisation multiplies by into the convolutions before it, as export does.

    What is left of it is a bias. The names of the weights stay, and so does what the network
    computes in evaluation, where it remains: statistics that move would move the weights' levels.

    Args:
        network: in any mode.
        channels: of its images.

    Returns:
        The normalisation behind each convolution that has one.

    Raises:
        InvalidInputError: a normalisation does not directly follow a convolution.
    """
    device = next(network.parameters()).device
    probe = torch.rand(1, channels, _PROBE_SIDE, _PROBE_SIDE, device=device)
    training = network.training
    network.eval()
    with torch.no_grad():
        expected, pairs = _normalised(network, probe)
        for convolution, norm in pairs.items():
            _reduce(convolution, norm)
        error = float((network(probe) - expected).abs().max())
    network.train(training)
    norms = [each for each in network.modules() if isinstance(each, nn.BatchNorm2d)]
    if len(pairs) < len(norms) or error > _FOLDING_ERROR:
        raise InvalidInputError(
            "cannot be trained for INT8: batch normalisation does not follow a convolution each "
            "time, so that exporting does not fold it"
        )
    return pairs


def _normalised(
    network: nn.Module, probe: Tensor
) -> tuple[Tensor, dict[nn.Module, nn.BatchNorm2d]]:
    """Returns the output, and the convolutions whose own goes into a normalisation, with that."""
    made: list[tuple[nn.Module, Tensor]] = []
    pairs: dict[nn.Module, nn.BatchNorm2d] = {}

    def note(module: Any, _: Any, output: Tensor) -> None:
        made.append((module, output))

    def match(norm: Any, inputs: tuple[Tensor]) -> None:
        pairs.update((module, norm) for module, output in made if output is inputs[0])

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


def _reduce(convolution: nn.Module, norm: nn.BatchNorm2d) -> None:
    """Leaves a normalisation with nothing but its bias, for good."""
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
    norm.register_forward_pre_hook(_stay_in_evaluation)


def _stay_in_evaluation(norm: nn.Module, _: object) -> None:
    norm.eval()
