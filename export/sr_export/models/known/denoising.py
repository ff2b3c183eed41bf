"""Denoisers that take the noise level beside the image, FFDNet and FDnCNN, and IRCNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from sr_export.models.known.blocks import Residual
from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

# In levels of 255: the middle of the usual tests, and the most that FFDNet was trained for.
_USUAL_NOISE, _MOST_NOISE = 15.0, 75.0
# Epsilon of their normalizations.
_EPS = 1e-4
_DILATIONS = (1, 2, 3, 4, 3, 2, 1)


class _WithNoiseLevel(nn.Module):
    """Runs its parts on the image and a constant plane, possibly at half the size."""

    def __init__(self, parts: nn.Module, level: float, halving: int) -> None:
        super().__init__()
        self.parts, self.level = parts, level
        self.down, self.up = nn.PixelUnshuffle(halving), nn.PixelShuffle(halving)

    def forward(self, image: Tensor) -> Tensor:
        x = self.down(image)
        plane = torch.full_like(x[:, :1], self.level)
        return self.up(self.parts(torch.cat([x, plane], 1)))


def _ends(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the input and output channels of the sequence `model`; 0 if it is none."""
    kernels = [
        each
        for name, each in weights.items()
        if name.startswith("model.") and name.endswith(".weight") and each.ndim == 4
    ]
    sequence = kernels and "model.0.weight" in weights and "model.0.bias" in weights
    fits = sequence and all(name.count(".") == 2 for name in weights)
    return (kernels[0].shape[1], kernels[-1].shape[0]) if fits else (0, 0)


def _takes_noise_level(weights: Mapping[str, Tensor]) -> bool:
    inputs, outputs = _ends(weights)
    return inputs == outputs + 1 and outputs in (1, 3, 4, 12)


def _noise_level(named: NamedLayers) -> BuiltNetwork:
    """Build FFDNet, which works at half the size, or FDnCNN."""
    parts: list[nn.Module] = []
    last, index = named.same("model.0"), 0
    inputs = last.in_channels - 1
    parts.append(last)
    while named.has_below(f"model.{index + 1}") or named.has_below(f"model.{index + 2}"):
        if named.has(f"model.{index + 1}.running_var"):
            index += 1
            parts.append(named.batch_norm(f"model.{index}", last.out_channels, _EPS))
        index += 2
        last = named.same(f"model.{index}")
        parts += [nn.ReLU(), last]
    halving = 2 if inputs % 4 == 0 else 1
    channels = inputs // halving**2
    level = named.number("noise", _USUAL_NOISE, _MOST_NOISE) / 255
    module = _WithNoiseLevel(nn.Sequential(*parts), level, halving)
    return BuiltNetwork(module, channels, channels, grid=halving)


def _is_ircnn(weights: Mapping[str, Tensor]) -> bool:
    inputs, outputs = _ends(weights)
    names = {f"model.{2 * i}.{kind}" for i in range(7) for kind in ("weight", "bias")}
    width = weights["model.0.weight"].shape[0] if inputs else 0
    return inputs == outputs and width == 64 and weights.keys() == names


def _ircnn(named: NamedLayers) -> BuiltNetwork:
    """Build IRCNN: seven dilated convolutions, whose output is subtracted from the image."""
    layers = [named.same(f"model.{2 * i}", dilation=each) for i, each in enumerate(_DILATIONS)]
    active = [part for each in layers for part in (each, nn.ReLU())]
    inputs = layers[0].in_channels
    return BuiltNetwork(Residual(nn.Sequential(*active[:-1]), -1), inputs, inputs)


# spandrel's DnCNN would take their weights, too.
NOISE_LEVEL = NamedArch("FFDNet", _takes_noise_level, _noise_level, Ranges(), before=("DnCNN",))
DENOISING = (NOISE_LEVEL, NamedArch("IRCNN", _is_ircnn, _ircnn, Ranges()))
