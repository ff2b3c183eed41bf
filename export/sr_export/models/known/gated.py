"""Gated convolution networks: MoSRv2 and RTMoSR, and the plain ArtCNN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from sr_export.models.known.blocks import (
    AddSkip,
    ChannelNorm,
    shuffle_scale,
    unshuffled,
    unshuffling,
)
from sr_export.models.known.fusing import summed, summed_depthwise
from sr_export.models.known.upsampling import described
from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import Ranges
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers


class _RootMeanSquareNorm(nn.Module):
    """Divides by the root mean square of the channels."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.scale = nn.Parameter(named.parameter(f"{name}.scale").view(-1, 1, 1))
        self.offset = nn.Parameter(named.parameter(f"{name}.offset").view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        root = x.square().mean(1, keepdim=True).sqrt()
        return self.scale * (x / (root + 1e-6)) + self.offset


class _GatedBlock(nn.Module):
    """A convolution gives a gate and features, part of which a further one mixes."""

    def __init__(
        self,
        norm: nn.Module,
        first: nn.Conv2d,
        mix: nn.Module,
        last: nn.Conv2d,
        gamma: nn.Parameter | None,
    ) -> None:
        super().__init__()
        self.norm, self.first, self.mix, self.last = norm, first, mix, last
        self.gamma = gamma
        hidden, mixed = last.in_channels, last.out_channels
        self.sizes = [hidden, hidden - mixed, mixed]

    def forward(self, x: Tensor) -> Tensor:
        gate, kept, mixed = torch.split(self.first(self.norm(x)), self.sizes, 1)
        features = torch.cat([kept, self.mix(mixed)], 1)
        y = F.mish(self.last(F.mish(gate) * features))
        return x + (y if self.gamma is None else y * self.gamma)


class _Inception(nn.Module):
    """Depthwise 3x3, wide and high kernels for three parts of the channels."""

    def __init__(self, named: NamedLayers, name: str, width: int) -> None:
        super().__init__()
        parts = [f"{name}.dwconv_{each}" for each in ("hw", "w", "h")]
        part = named.shape(f"{parts[0]}.weight")[0]
        self.convolutions = nn.ModuleList(named.same(each, inputs=part) for each in parts)
        self.sizes = [width - 3 * part, part, part, part]

    def forward(self, x: Tensor) -> Tensor:
        kept, *parts = torch.split(x, self.sizes, 1)
        done = [each(part) for each, part in zip(self.convolutions, parts, strict=True)]
        return torch.cat([kept, *done], 1)


class _AddInterpolated(nn.Module):
    """Adds the enlarged image."""

    def __init__(self, parts: nn.Module, scale: int, mode: str) -> None:
        super().__init__()
        self.parts = parts
        self.enlarge = nn.Upsample(scale_factor=scale, mode=mode)

    def forward(self, image: Tensor) -> Tensor:
        return self.parts(image) + self.enlarge(image)


def _mosrv2(named: NamedLayers) -> BuiltNetwork:
    index = 0 if named.has("gblocks.0.weight") else 1
    head = named.same(f"gblocks.{index}")
    index += 1
    parts: list[nn.Module] = [head]
    while named.has_below(f"gblocks.{index}.fc1"):
        parts.append(_mosr_block(named, f"gblocks.{index}"))
        index += 1
    for step in (0, 2, 4):
        parts += [named.same(f"gblocks.{index + step}"), nn.Mish()]
    up, scale = described(named, "to_img")
    channels = 3 if head.in_channels % 3 == 0 else 1
    down = unshuffling(head, channels)
    module = nn.Sequential(*unshuffled(down), *parts[:-1], *up)
    scale //= down
    whole = _AddInterpolated(module, scale, "bilinear")
    return BuiltNetwork(whole, channels, channels, scale, grid=down)


def _mosr_block(named: NamedLayers, name: str) -> nn.Module:
    first, last = named.same(f"{name}.fc1"), named.same(f"{name}.fc2")
    norm: nn.Module
    if named.has(f"{name}.norm.scale"):
        norm = _RootMeanSquareNorm(named, f"{name}.norm")
    else:
        norm = ChannelNorm(named, f"{name}.norm")
    mix = _Inception(named, f"{name}.conv", last.out_channels)
    return _GatedBlock(norm, first, mix, last, named.parameter(f"{name}.gamma"))


class _HalfSize(nn.Module):
    """RTMoSR's mixing: at half the size, with the maxima of four pixels added."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.down, self.up = nn.PixelUnshuffle(2), nn.PixelShuffle(2)
        self.largest = nn.Sequential(nn.MaxPool2d(2), summed(named, f"{name}.0.poll.1"))
        self.shift = summed_depthwise(named, f"{name}.1")
        attended = named.has_below(f"{name}.2.squeezing")
        self.weigh = (
            nn.Sequential(
                named.same(f"{name}.2.squeezing.0"),
                nn.ReLU(),
                named.same(f"{name}.2.squeezing.2"),
                nn.Hardsigmoid(),
            )
            if attended
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.shift(self.down(x) + self.largest(x))
        if self.weigh is not None:
            y = y * self.weigh(y.mean((2, 3), keepdim=True))
        return self.up(y)


def _rtmosr(named: NamedLayers) -> BuiltNetwork:
    head = summed(named, "to_feat.1" if named.has_below("to_feat.1") else "to_feat")
    down = unshuffling(head, 3)
    blocks = []
    for i in range(named.count("body.{}")):
        name = f"body.{i}"
        plain = named.has(f"{name}.fc2.weight")
        last = named.same(f"{name}.fc2") if plain else summed(named, f"{name}.fc2")
        norm, mix = _RootMeanSquareNorm(named, f"{name}.norm"), _HalfSize(named, f"{name}.conv")
        blocks.append(_GatedBlock(norm, summed(named, f"{name}.fc1"), mix, last, None))
    tail = summed(named, "to_img.0")
    factor = shuffle_scale(tail, 3)
    module = nn.Sequential(nn.PixelUnshuffle(down), head, *blocks, tail, nn.PixelShuffle(factor))
    scale = factor // down
    return BuiltNetwork(_AddInterpolated(module, scale, "nearest"), 3, 3, scale, grid=2 * down)


def _artcnn(named: NamedLayers) -> BuiltNetwork:
    head = named.same("conv0")
    count = named.count("res_block.{}") - 1
    blocks = []
    for i in range(count):
        name = f"res_block.{i}.conv"
        layers = [named.same(f"{name}.{each}") for each in ("0.0", "1.0", "2")]
        active = [part for each in layers for part in (each, nn.ReLU())]
        blocks.append(AddSkip(*active[:-1]))
    body = AddSkip(*blocks, named.same(f"res_block.{count}"))
    up = named.same("depth_to_space.upscale.0")
    scale = shuffle_scale(up, head.in_channels)
    module = nn.Sequential(head, body, up, nn.PixelShuffle(scale))
    return BuiltNetwork(module, head.in_channels, head.in_channels, scale)


GATED = (
    NamedArch(
        "MoSRv2",
        KeyCondition.has_all(
            "to_img.MetaUpsample",
            KeyCondition.has_any("gblocks.1.gamma", "gblocks.2.gamma"),
        ),
        _mosrv2,
        Ranges(),
    ),
    NamedArch(
        "RTMoSR",
        KeyCondition.has_all(
            "body.0.norm.scale",
            KeyCondition.has_any("body.0.fc1.alpha", "body.0.fc1.conv_3x3_rep.weight"),
            KeyCondition.has_any("to_img.0.alpha", "to_img.0.conv_3x3_rep.weight"),
        ),
        _rtmosr,
        Ranges(),
    ),
    NamedArch(
        "ArtCNN",
        KeyCondition.has_all(
            "conv0.weight", "res_block.0.conv.0.0.weight", "depth_to_space.upscale.0.weight"
        ),
        _artcnn,
        Ranges(),
    ),
)
