"""Networks that split off features step by step: IMDN, RFDN, and RLFN, which descends from them.

All begin with one convolution, add its output behind the blocks, and end with a pixel shuffle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from sr_export.models.known.blocks import AddSkip, channel_attention, shuffle_scale
from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import Ranges
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

_LEAKY = 0.05


class _SplittingBlock(nn.Module):
    """IMDN's block: after each convolution, part of the channels goes straight to the end."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        many = named.has(f"{name}.c7.weight")
        last = 6 if many else 4
        wide = named.has(f"{name}.conv1x1.weight")  # names of KAIR
        names = [f"conv{i}" if wide else f"c{i}" for i in range(1, last + 1)]
        if wide and named.has_below(f"{name}.conv1.0"):
            names = [*(f"{each}.0" for each in names[:-1]), names[-1]]
        self.steps = nn.ModuleList(named.same(f"{name}.{each}") for each in names)
        self.fuse = named.same(f"{name}.{'conv1x1' if wide else f'c{last + 1}'}")
        attended = named.has_below(f"{name}.cca")
        self.attention = (
            _ContrastAttention(named, f"{name}.cca.conv_du") if attended else nn.Identity()
        )
        self.slope, self.split = (0.0, not many) if many else (_LEAKY, True)

    def forward(self, x: Tensor) -> Tensor:
        kept, rest = [], x
        for i, step in enumerate(self.steps):
            y = step(rest)
            last = i == len(self.steps) - 1
            if not (last and self.split):
                y = F.leaky_relu(y, self.slope) if self.slope else F.relu(y)
            if last:
                kept.append(y)
                continue
            following = self.steps[i + 1]
            assert isinstance(following, nn.Conv2d)
            first = y.shape[1] - following.in_channels
            kept.append(y[:, :first])
            rest = y[:, first:]
        return self.fuse(self.attention(torch.cat(kept, 1))) + x


class _ContrastAttention(nn.Module):
    """Weights channels by their mean plus their standard deviation."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.weigh = channel_attention(named, name)

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((2, 3), keepdim=True)
        deviation = (x - mean).square().mean((2, 3), keepdim=True).sqrt()
        return x * self.weigh(mean + deviation)


class _SpatialAttention(nn.Module):
    """ESA: weights pixels by features of the image at a sixth of its size."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.first = named.same(f"{name}.conv1")
        self.down = named.convolution(f"{name}.conv2", 2)
        names = (
            ["conv_max", "conv3", "conv3_"] if named.has_below(f"{name}.conv_max") else ["conv3"]
        )
        small = [named.same(f"{name}.{each}") for each in names]
        activated = [layer for each in small for layer in (each, nn.ReLU())]
        self.small = nn.Sequential(*activated[:-1])
        self.beside = named.same(f"{name}.conv_f")
        self.last = named.same(f"{name}.conv4")

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        y = self.small(F.max_pool2d(self.down(first), 7, 3))
        y = F.interpolate(y, x.shape[2:], mode="bilinear", align_corners=False)
        return x * torch.sigmoid(self.last(y + self.beside(first)))


class _DistillingBlock(nn.Module):
    """RFDN's block: 1x1 convolutions split off features, residual 3x3 convolutions go on."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.aside = nn.ModuleList(named.same(f"{name}.c{i}_d") for i in (1, 2, 3))
        self.onward = nn.ModuleList(named.same(f"{name}.c{i}_r") for i in (1, 2, 3))
        self.last = named.same(f"{name}.c4")
        self.fuse = named.same(f"{name}.c5")
        self.attention = _SpatialAttention(named, f"{name}.esa")

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for aside, onward in zip(self.aside, self.onward, strict=True):
            kept.append(F.leaky_relu(aside(x), _LEAKY))
            x = F.leaky_relu(onward(x) + x, _LEAKY)
        kept.append(F.leaky_relu(self.last(x), _LEAKY))
        return self.attention(self.fuse(torch.cat(kept, 1)))


class _LocalBlock(nn.Module):
    """RLFN's block: three convolutions with a skip, and ESA."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        steps = [named.same(f"{name}.c{i}_r") for i in (1, 2, 3)]
        self.steps = nn.Sequential(
            *(layer for each in steps for layer in (each, nn.LeakyReLU(_LEAKY)))
        )
        self.fuse = named.same(f"{name}.c5")
        self.attention = _SpatialAttention(named, f"{name}.esa")

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.fuse(self.steps(x) + x))


class _Gathering(nn.Module):
    """Runs blocks one after the other, and fuses all their outputs."""

    def __init__(self, blocks: list[nn.Module], fuse: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.fuse, self.last = fuse, last

    def forward(self, x: Tensor) -> Tensor:
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        return self.last(F.leaky_relu(self.fuse(torch.cat(outputs, 1)), _LEAKY))


def _assembled(head: nn.Module, body: nn.Module, up: nn.Conv2d, inputs: int) -> BuiltNetwork:
    """Return head, body with a skip, and a pixel shuffle; a head with strides reduces the scale."""
    factor = shuffle_scale(up, inputs)
    down = 1
    for part in head.modules():
        if isinstance(part, nn.Conv2d):
            down *= part.stride[0]
    network = nn.Sequential(head, AddSkip(body), up, nn.PixelShuffle(factor))
    scale, rest = divmod(factor, down)
    if rest or not scale:
        raise ValueError(f"enlarges {factor} times behind strides of {down}")
    return BuiltNetwork(network, inputs, up.out_channels // factor**2, scale, grid=down)


def _imdn(named: NamedLayers) -> BuiltNetwork:
    """Build IMDN; IMDN_AS and IMDN_RTE have heads with stride 2."""
    if named.has_below("model.1.sub"):
        return _imdn_in_one(named)
    if named.has("fea_conv.weight"):
        head: nn.Module = named.same("fea_conv")
    else:
        activated = named.has("fea_conv.0.bias") and named.has("fea_conv.2.bias")
        first = named.same("fea_conv.0", 2 if activated else 1)
        active = nn.LeakyReLU(_LEAKY) if activated else nn.ReLU()
        head = nn.Sequential(first, active, named.same("fea_conv.2", 2))
    inputs = named.shape("fea_conv.weight" if named.has("fea_conv.weight") else "fea_conv.0.weight")
    pattern = next(each for each in ("IMDB{}", "block{}", "B{}") if named.has_below(each.format(1)))
    blocks: list[nn.Module] = [
        _SplittingBlock(named, pattern.format(i)) for i in range(1, 1 + named.count(pattern, 1))
    ]
    last = named.same("LR_conv")
    if named.has_below("c"):
        body: nn.Module = _Gathering(blocks, named.same("c.0"), last)
    else:
        body = nn.Sequential(*blocks, last)
    return _assembled(head, body, named.same("upsampler.0"), inputs[1])


def _imdn_in_one(named: NamedLayers) -> BuiltNetwork:
    """Build IMDN_RTC, or the IMDN of KAIR: one sequence with a skip inside."""
    head = named.same("model.0")
    count = named.count("model.1.sub.{}")
    blocks = [_SplittingBlock(named, f"model.1.sub.{i}") for i in range(count - 1)]
    body = nn.Sequential(*blocks, named.same(f"model.1.sub.{count - 1}"))
    return _assembled(head, body, named.same("model.2"), head.in_channels)


def _rfdn(named: NamedLayers) -> BuiltNetwork:
    head = named.same("fea_conv")
    count = named.count("B{}", 1)
    blocks: list[nn.Module] = [_DistillingBlock(named, f"B{i}") for i in range(1, 1 + count)]
    body = _Gathering(blocks, named.same("c.0"), named.same("LR_conv"))
    built = _assembled(head, body, named.same("upsampler.0"), head.in_channels)
    return _attended(built)


def _rlfn(named: NamedLayers) -> BuiltNetwork:
    head = named.same("conv_1")
    count = named.count("block_{}", 1)
    blocks = [_LocalBlock(named, f"block_{i}") for i in range(1, 1 + count)]
    body = nn.Sequential(*blocks, named.same("conv_2"))
    return _attended(_assembled(head, body, named.same("upsampler.0"), head.in_channels))


def _attended(built: BuiltNetwork) -> BuiltNetwork:
    """Return a network with ESA, whose pooling needs 7 pixels at half the size."""
    return BuiltNetwork(built.module, built.inputs, built.outputs, built.scale, minimum=15)


DISTILLING = (
    NamedArch(
        "IMDN",
        KeyCondition.has_any(
            KeyCondition.has_all(
                KeyCondition.has_any("fea_conv.weight", "fea_conv.0.weight"),
                KeyCondition.has_any("IMDB1.c1.weight", "block1.c1.weight"),
                "LR_conv.weight",
                "upsampler.0.weight",
            ),
            KeyCondition.has_all(
                "model.0.weight",
                KeyCondition.has_any("model.1.sub.0.c5.weight", "model.1.sub.0.conv1x1.weight"),
                "model.2.weight",
            ),
        ),
        _imdn,
        Ranges(),
    ),
    NamedArch(
        "RFDN",
        KeyCondition.has_all(
            "fea_conv.weight", "B1.c1_d.weight", "B1.esa.conv_f.weight", "upsampler.0.weight"
        ),
        _rfdn,
        None,
    ),
    NamedArch(
        "RLFN",
        KeyCondition.has_all(
            "conv_1.weight", "block_1.c1_r.weight", "block_1.esa.conv_f.weight", "conv_2.weight"
        ),
        _rlfn,
        None,
    ),
)
