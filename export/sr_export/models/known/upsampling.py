"""The upsampling layers of neosr and traiNNer-redux, which describe themselves in a tensor."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from sr_export.models.spandrel_import import DySample

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

_GROUPS = 4
# The index of a method in `MetaUpsample`.
_METHODS = (
    "conv",
    "pixelshuffledirect",
    "pixelshuffle",
    "nearest+conv",
    "dysample",
    "transpose+conv",
    "lda",
    "pa_up",
)


class _PixelGate(nn.Module):
    def __init__(self, weigh: nn.Module) -> None:
        super().__init__()
        self.weigh = weigh

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.weigh(x))


def dysample(named: NamedLayers, name: str) -> tuple[list[nn.Module], int]:
    """Return DySample with the convolution behind it, and its scale."""
    outputs, inputs = named.shape(f"{name}.offset.weight")[:2]
    scale = math.isqrt(outputs // (2 * _GROUPS))
    end = named.same(f"{name}.end_conv")
    sample = DySample(inputs, end.out_channels, scale, _GROUPS, end_convolution=False)
    return [named.loaded(sample, name), end], scale


def described(named: NamedLayers, name: str) -> tuple[list[nn.Module], int]:
    """Return the upsampling layers, and their scale, as `MetaUpsample` describes them.

    Raises:
        ValueError: an unknown method.
    """
    found = named.parameter(f"{name}.MetaUpsample")
    _, index, scale, *_ = (int(each) for each in found)
    if index >= len(_METHODS) or _METHODS[index] == "lda":
        raise ValueError(f"{name} upsamples by method {index}, which is not supported")
    if scale == 1:
        return [named.same(f"{name}.0")], 1
    method = _METHODS[index]
    if method == "dysample":
        before: list[nn.Module] = []
        last = f"{name}.0"
        if named.has(f"{name}.0.weight"):
            before, last = [named.same(f"{name}.0"), nn.LeakyReLU()], f"{name}.2"
        parts, factor = dysample(named, last)
        return [*before, *parts], factor
    return _BUILDERS[method](named, name, scale), scale


def _steps(scale: int) -> list[int]:
    return [3] if scale == 3 else [2] * (scale.bit_length() - 1)


def _direct(named: NamedLayers, name: str, scale: int) -> list[nn.Module]:
    return [named.same(f"{name}.0"), nn.PixelShuffle(scale)]


def _shuffled(named: NamedLayers, name: str, scale: int) -> list[nn.Module]:
    parts: list[nn.Module] = [named.same(f"{name}.0"), nn.LeakyReLU()]
    for factor in _steps(scale):
        parts += [named.same(f"{name}.{len(parts)}"), nn.PixelShuffle(factor)]
    return [*parts, named.same(f"{name}.{len(parts)}")]


def _nearest(named: NamedLayers, name: str, scale: int) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for factor in _steps(scale):
        convolution = named.same(f"{name}.{len(parts)}")
        parts += [convolution, nn.Upsample(scale_factor=factor), nn.LeakyReLU(0.2)]
    parts += [named.same(f"{name}.{len(parts)}"), nn.LeakyReLU(0.2)]
    return [*parts, named.same(f"{name}.{len(parts)}")]


def _transposed(named: NamedLayers, name: str, scale: int) -> list[nn.Module]:
    if scale == 4:
        ups = [named.transposed(f"{name}.{i}") for i in (0, 2)]
        return [ups[0], nn.GELU(), ups[1], named.same(f"{name}.3")]
    up = named.transposed(f"{name}.0", scale, padding=1 if scale == 2 else 0)
    return [up, named.same(f"{name}.1")]


def _attended(named: NamedLayers, name: str, scale: int) -> list[nn.Module]:
    parts: list[nn.Module] = []
    for factor in _steps(scale):
        i = len(parts)
        parts += [nn.Upsample(scale_factor=factor), named.same(f"{name}.{i + 1}")]
        parts += [_PixelGate(named.same(f"{name}.{i + 2}.conv.0")), nn.LeakyReLU(0.2)]
        parts += [named.same(f"{name}.{i + 4}"), nn.LeakyReLU(0.2)]
    return [*parts, named.same(f"{name}.{len(parts)}")]


_BUILDERS = {
    "pixelshuffledirect": _direct,
    "pixelshuffle": _shuffled,
    "nearest+conv": _nearest,
    "transpose+conv": _transposed,
    "pa_up": _attended,
}
