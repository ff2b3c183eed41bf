"""SPAN with fused convolutions or any number of blocks, and its descendants SPANPlus and SPANF3.

In training, a convolution has branches, which are summed here. Files for inference may hold the
sums only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from sr_export.models.known.blocks import shuffle_scale, unshuffled, unshuffling
from sr_export.models.known.fusing import fused
from sr_export.models.known.upsampling import dysample
from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import Ranges
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

# The mean of the DIV2K images, which SPAN subtracts, and the range of pixel values inside it.
_MEAN, _RANGE = (0.4488, 0.4371, 0.4040), 255.0


class _Attentive(nn.Module):
    """Three convolutions; the last one also weights the sum with the input."""

    def __init__(
        self, named: NamedLayers, name: str, active: nn.Module, learned: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.steps = nn.ModuleList(fused(named, f"{name}.c{i}_r") for i in (1, 2, 3))
        self.active = active
        self.learned = learned

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output of the block and that of its first activation."""
        first = self.active(self.steps[0](x))
        y = self.steps[2](self.active(self.steps[1](first)))
        weights = torch.sigmoid(y) - 0.5 if self.learned is None else torch.tanh(self.learned(y))
        return (y + x) * weights, first


class _Span(nn.Module):
    """Blocks one after the other; their input, and the first and last outputs are fused."""

    def __init__(self, blocks: list[_Attentive], last: nn.Module, fuse: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.last, self.fuse = last, fuse

    def forward(self, x: Tensor) -> Tensor:
        first, inner = self.blocks[0](x)
        y = first
        for block in self.blocks[1:]:
            y, inner = block(y)
        return self.fuse(torch.cat([x, self.last(y), first, inner], 1))


class _Normalized(nn.Module):
    """Subtracts the image mean, and multiplies with the range."""

    mean: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) * _RANGE


def _span(named: NamedLayers) -> BuiltNetwork:
    head = fused(named, "conv_1")
    count = named.count("block_{}", 1)
    blocks = [_Attentive(named, f"block_{i}", nn.SiLU()) for i in range(1, 1 + count)]
    body = _Span(blocks, fused(named, "conv_2"), named.same("conv_cat"))
    up = named.same("upsampler.0")
    channels = head.in_channels
    scale = shuffle_scale(up, channels)
    before: list[nn.Module] = [] if named.has("no_norm") or channels != 3 else [_Normalized()]
    named.skip("no_norm")
    module = nn.Sequential(*before, head, body, up, nn.PixelShuffle(scale))
    return BuiltNetwork(module, channels, channels, scale)


def _spanplus(named: NamedLayers) -> BuiltNetwork:
    head = fused(named, "feats.0")
    groups = [_span_group(named, f"feats.{i}") for i in range(1, named.count("feats.{}"))]
    channels = head.in_channels
    tail, scale = _spanplus_tail(named, channels)
    return BuiltNetwork(nn.Sequential(head, *groups, *tail), channels, channels, scale)


def _span_group(named: NamedLayers, name: str) -> nn.Module:
    count = named.count(f"{name}.block_n.{{}}")
    names = ["block_1", *(f"block_n.{i}" for i in range(count)), "block_end"]
    blocks = [_Attentive(named, f"{name}.{each}", nn.Mish()) for each in names]
    return _Span(blocks, fused(named, f"{name}.conv_2"), named.same(f"{name}.conv_cat"))


def _spanplus_tail(named: NamedLayers, channels: int) -> tuple[list[nn.Module], int]:
    if named.has("upsampler.offset.weight"):
        return dysample(named, "upsampler")
    if named.has("upsampler.weight"):
        return [named.same("upsampler")], 1
    up = named.same("upsampler.0")
    scale = shuffle_scale(up, channels)
    return [up, nn.PixelShuffle(scale)], scale


def _spanf3(named: NamedLayers) -> BuiltNetwork:
    """Build SPANF3, whose attention is learned; at scales below 3 it works at a smaller size."""
    head = fused(named, "conv_1.1" if named.has_below("conv_1.1") else "conv_1")
    count = named.count("block_{}", 1)
    blocks = [
        _Attentive(named, f"block_{i}", nn.ReLU(), named.same(f"block_{i}.att_conv"))
        for i in range(1, 1 + count)
    ]
    body = _Span(blocks, nn.Identity(), named.same("conv_cat"))
    up = fused(named, "to_pixel")
    channels = 3 if head.in_channels % 3 == 0 else 1
    factor = shuffle_scale(up, channels)
    grid = unshuffling(head, channels)
    module = nn.Sequential(*unshuffled(grid), head, body, up, nn.PixelShuffle(factor))
    return BuiltNetwork(module, channels, channels, factor // grid, grid=grid)


SPANS = (
    NamedArch(
        "SPANVariant",
        KeyCondition.has_all(
            KeyCondition.has_any("conv_1.eval_conv.weight", "conv_1.sk.weight"),
            KeyCondition.has_any("block_1.c1_r.eval_conv.weight", "block_1.c1_r.sk.weight"),
            "conv_2.eval_conv.weight",
            "conv_cat.weight",
            "upsampler.0.weight",
        ),
        _span,
        Ranges(),
    ),
    NamedArch(
        "SPANPlus",
        KeyCondition.has_all("feats.0.eval_conv.weight", "feats.1.conv_cat.weight"),
        _spanplus,
        Ranges(),
    ),
    NamedArch(
        "SPANF3",
        KeyCondition.has_all(
            "block_1.att_conv.weight", "conv_cat.weight", "to_pixel.eval_conv.weight"
        ),
        _spanf3,
        Ranges(),
    ),
)
