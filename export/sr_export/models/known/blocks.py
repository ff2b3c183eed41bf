"""Blocks that several families share."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers


class AddSkip(nn.Module):
    """Adds the input to the output of its parts."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.parts(x)


class Residual(nn.Module):
    """Adds the output of its parts to the input, or subtracts it if `sign` is -1."""

    def __init__(self, parts: nn.Module, sign: int) -> None:
        super().__init__()
        self.parts, self.sign = parts, sign

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sign * self.parts(x)


class ChannelNorm(nn.Module):
    """Layer normalization of the channels of each pixel."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(named.parameter(f"{name}.weight").view(-1, 1, 1))
        self.bias = nn.Parameter(named.parameter(f"{name}.bias").view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        y = x - x.mean(1, keepdim=True)
        variance = y.square().mean(1, keepdim=True)
        return self.weight * (y / torch.sqrt(variance + 1e-6)) + self.bias


def channel_attention(
    named: NamedLayers, name: str, parts: tuple[str, str] = ("0", "2")
) -> nn.Sequential:
    """Return two 1x1 convolutions that turn one value per channel into a weight from 0 to 1."""
    first, second = (named.same(f"{name}.{each}") for each in parts)
    return nn.Sequential(first, nn.ReLU(), second, nn.Sigmoid())


def shuffle_scale(before: nn.Conv2d, channels: int) -> int:
    """Return the factor of the pixel shuffle between a convolution and an image.

    Raises:
        ValueError: no factor fits.
    """
    factor = math.isqrt(before.out_channels // channels)
    if factor**2 * channels != before.out_channels:
        raise ValueError(f"{before.out_channels} channels cannot be shuffled to {channels}")
    return factor


def unshuffling(first: nn.Conv2d, channels: int) -> int:
    """Return the factor of the pixel unshuffle between an image and its first convolution.

    Raises:
        ValueError: no factor fits.
    """
    factor = math.isqrt(first.in_channels // channels)
    if factor**2 * channels != first.in_channels:
        raise ValueError(f"{channels} channels cannot be unshuffled to {first.in_channels}")
    return factor


def unshuffled(factor: int) -> list[nn.Module]:
    """Return the layers that reduce an image by a factor."""
    return [nn.PixelUnshuffle(factor)] if factor > 1 else []
