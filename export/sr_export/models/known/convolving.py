"""ESCReal: window attention, and a large kernel that all blocks share.

Beside it, each block has small kernels that depend on the image.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from sr_export.models.known.blocks import ChannelNorm, unshuffled, unshuffling
from sr_export.models.known.upsampling import described, dysample
from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import Ranges
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

_LEAKY = 0.2


def _symmetric(kernel: Tensor) -> Tensor:
    """Return the mean of a kernel in its eight orientations."""
    turned = [kernel, torch.rot90(kernel, -1, (2, 3))]
    orientations = [torch.flip(each, axes) for each in turned for axes in ((), (2,), (3,), (2, 3))]
    return torch.stack(orientations).mean(0)


class _Feedforward(nn.Module):
    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.first = named.same(f"{name}.proj")
        self.mix = named.same(f"{name}.dwc", inputs=self.first.out_channels)
        self.last = named.same(f"{name}.aggr")

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x))
        return self.last(F.gelu(self.mix(x)) + x)


class _LargeKernel(nn.Module):
    """Convolves some channels with the shared kernel, and with 3x3 kernels made from their mean."""

    def __init__(self, named: NamedLayers, name: str, kernel: Tensor) -> None:
        super().__init__()
        self.kernel = nn.Parameter(kernel)
        parts = (named.same(f"{name}.plk.dwc_proj.{i}") for i in (1, 3))
        first, second = parts
        self.make = nn.Sequential(first, nn.GELU(), second)
        self.last = named.same(f"{name}.aggr")

    def forward(self, x: Tensor) -> Tensor:
        width, side = self.kernel.shape[0], self.kernel.shape[2]
        some, others = x[:, :width], x[:, width:]
        y = F.conv2d(some, self.kernel, padding=side // 2) + self._dynamic(some)
        return self.last(torch.cat([y, others], 1))

    def _dynamic(self, x: Tensor) -> Tensor:
        """Convolve with kernels that differ by image and channel: a weighted sum of nine shifts."""
        kernels = self.make(x.mean((2, 3), keepdim=True)).reshape(-1, x.shape[1], 9, 1)
        height, width = x.shape[2:]
        padded = F.pad(x, (1, 1, 1, 1))
        shifted = [
            padded[:, :, i // 3 : i // 3 + height, i % 3 : i % 3 + width] * kernels[:, :, i : i + 1]
            for i in range(9)
        ]
        return torch.stack(shifted).sum(0)


class _WindowAttention(nn.Module):
    """Attention inside windows; features, not the image, are reflected to whole windows."""

    bias: Tensor

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.inner, self.outer = named.same(f"{name}.to_qkv"), named.same(f"{name}.to_out")
        table = named.parameter(f"{name}.relative_position_bias")
        self.heads = table.shape[0]
        self.side = (math.isqrt(table.shape[1]) + 1) // 2
        self.register_buffer("bias", self._bias(table))

    def _bias(self, table: Tensor) -> Tensor:
        """Return the bias of each pair of pixels in a window, from that of each distance."""
        side = self.side
        rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        far = [
            each.flatten()[None] - each.flatten()[:, None] + side - 1 for each in (rows, columns)
        ]
        return table.detach()[:, far[0] * (2 * side - 1) + far[1]][None]

    def forward(self, x: Tensor) -> Tensor:
        side, (height, width) = self.side, x.shape[2:]
        down, across = (height + side - 1) // side, (width + side - 1) // side
        x = F.pad(x, (0, across * side - width, 0, down * side - height), "reflect")
        batch, channels = x.shape[:2]
        y = self.inner(x).view(batch, 3 * channels, down, side, across, side)
        y = y.permute(0, 2, 4, 1, 3, 5).reshape(-1, 3, self.heads, channels // self.heads, side**2)
        queries, keys, values = y.unbind(1)
        scores = queries.transpose(2, 3) @ keys * (channels // self.heads) ** -0.5 + self.bias
        y = values @ scores.softmax(3).transpose(2, 3)
        y = y.reshape(batch, down, across, channels, side, side).permute(0, 3, 1, 4, 2, 5)
        return self.outer(y.reshape(x.shape)[:, :, :height, :width])


class _ConvBlock(nn.Module):
    def __init__(self, named: NamedLayers, name: str, kernel: Tensor) -> None:
        super().__init__()
        self.first = nn.Sequential(
            ChannelNorm(named, f"{name}.ln_proj"), _Feedforward(named, f"{name}.proj")
        )
        self.attention = nn.Sequential(
            ChannelNorm(named, f"{name}.ln_attn"), _WindowAttention(named, f"{name}.attn")
        )
        self.steps = nn.ModuleList(
            nn.Sequential(
                ChannelNorm(named, f"{name}.lns.{i}"),
                _Feedforward(named, f"{name}.convffns.{i}"),
                _LargeKernel(named, f"{name}.pconvs.{i}", kernel),
            )
            for i in range(named.count(f"{name}.lns.{{}}"))
        )
        self.last = nn.Sequential(
            ChannelNorm(named, f"{name}.ln_out"), named.same(f"{name}.conv_out")
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        y = y + self.attention(y)
        for step in self.steps:
            y = y + step(y)
        return x + self.last(y)


class _WholeNetwork(nn.Module):
    def __init__(self, head: nn.Module, blocks: nn.Module, beside: nn.Module) -> None:
        super().__init__()
        self.head, self.blocks, self.beside = head, blocks, beside

    def forward(self, image: Tensor) -> Tensor:
        first = self.head(image)
        return self.blocks(first) + first + self.beside(image)


def _escreal(named: NamedLayers) -> BuiltNetwork:
    reduced = named.has_below("proj.1")
    head = named.same("proj.1" if reduced else "proj")
    start = 1 if reduced else 0
    beside = [named.same(f"skip.{start}")]
    wide = beside[0].out_channels
    beside.append(named.same(f"skip.{start + 1}", inputs=wide))
    beside[1].padding_mode = "reflect"
    beside.append(named.same(f"skip.{start + 3}"))
    kernel = _symmetric(named.parameter("plk_filter"))
    count = named.count("blocks.{}")
    blocks = [_ConvBlock(named, f"blocks.{i}", kernel) for i in range(count)]
    aside = nn.Sequential(*beside[:2], nn.LeakyReLU(_LEAKY), beside[2])
    whole = _WholeNetwork(head, nn.Sequential(*blocks, named.same("last")), aside)
    up, factor = _upsampling(named)
    down = unshuffling(head, 3)
    module = nn.Sequential(*unshuffled(down), whole, *up)
    attention = next(each for each in module.modules() if isinstance(each, _WindowAttention))
    return BuiltNetwork(
        module, 3, 3, factor // down, grid=down, minimum=max(4, attention.side) * down
    )


def _upsampling(named: NamedLayers) -> tuple[list[nn.Module], int]:
    if named.has("to_img.MetaUpsample"):
        return described(named, "to_img")
    if named.has("to_img.offset.weight"):
        return dysample(named, "to_img")
    parts: list[nn.Module] = []
    for name in ("to_img.1", "to_img.4"):
        parts += [nn.Upsample(scale_factor=2), named.same(name), nn.LeakyReLU(_LEAKY)]
    return [*parts, named.same("to_img.6"), nn.LeakyReLU(_LEAKY), named.same("to_img.8")], 4


CONVOLVING = (
    NamedArch(
        "ESCReal",
        KeyCondition.has_all(
            "plk_filter",
            "blocks.0.attn.relative_position_bias",
            "blocks.0.pconvs.0.plk.dwc_proj.1.weight",
            KeyCondition.has_any("skip.0.weight", "skip.1.weight"),
        ),
        _escreal,
        Ranges(),
    ),
)
