"""ESRGAN of any width, depth and growth, in its three namings; spandrel's growth is fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from sr_export.models.known.blocks import AddSkip, unshuffled, unshuffling
from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import Ranges
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

_LEAKY, _SHARE = 0.2, 0.2


class _DenseBlock(nn.Module):
    """Five convolutions, each of which sees the outputs of all before it."""

    def __init__(self, layers: list[nn.Conv2d]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        seen = x
        for layer in self.layers[:-1]:
            seen = torch.cat([seen, F.leaky_relu(layer(seen), _LEAKY)], 1)
        return x + _SHARE * self.layers[-1](seen)


class _DenseBlocks(nn.Module):
    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return x + _SHARE * self.blocks(x)


def _esrgan(named: NamedLayers) -> BuiltNetwork:
    head, blocks, layer, behind, ups, last = _names(named)
    first = named.same(head)
    groups: list[nn.Module] = []
    for i in range(named.count(blocks)):
        dense = [
            _DenseBlock([_layer(named, layer.format(i=i, j=j, k=k)) for k in range(1, 6)])
            for j in (1, 2, 3)
        ]
        groups.append(_DenseBlocks([*dense]))
    body = AddSkip(*groups, named.same(behind))
    tail: list[nn.Module] = []
    for up in ups:
        tail += [nn.Upsample(scale_factor=2), named.same(up), nn.LeakyReLU(_LEAKY)]
    final = named.same(last[1])
    tail += [named.same(last[0]), nn.LeakyReLU(_LEAKY), final]
    channels = final.out_channels
    down = unshuffling(first, channels)
    scale, rest = divmod(2 ** len(ups), down)
    if rest:
        raise ValueError(f"enlarges {2 ** len(ups)} times behind a reduction by {down}")
    module = nn.Sequential(*unshuffled(down), first, body, *tail)
    return BuiltNetwork(module, channels, channels, scale, grid=down)


def _layer(named: NamedLayers, name: str) -> nn.Conv2d:
    """Return a convolution, which may be in a sequence with its activation."""
    return named.same(f"{name}.0" if named.has(f"{name}.0.weight") else name)


def _names(named: NamedLayers) -> tuple[str, str, str, str, list[str], tuple[str, str]]:
    """Return the names of all layers: head, blocks, dense layers, end, upsampling, the last two."""
    if named.has("model.0.weight"):
        blocks = sum(named.has_below(f"model.1.sub.{i}.RDB1") for i in range(99))
        numbers = [i for i in range(2, 99) if named.has(f"model.{i}.weight")]
        *ups, high, final = (f"model.{i}" for i in numbers)
        layer = "model.1.sub.{i}.RDB{j}.conv{k}"
        end = f"model.1.sub.{blocks}"
        return "model.0", "model.1.sub.{}.RDB1", layer, end, ups, (high, final)
    if named.has_below("RRDB_trunk"):
        ups = [f"upconv{i}" for i in (1, 2, 3) if named.has_below(f"upconv{i}")]
        layer, last = "RRDB_trunk.{i}.RDB{j}.conv{k}", ("HRconv", "conv_last")
        return "conv_first", "RRDB_trunk.{}", layer, "trunk_conv", ups, last
    ups = [f"conv_up{i}" for i in (1, 2, 3) if named.has_below(f"conv_up{i}")]
    layer, last = "body.{i}.rdb{j}.conv{k}", ("conv_hr", "conv_last")
    return "conv_first", "body.{}", layer, "conv_body", ups, last


DENSE = (
    NamedArch(
        "RRDBNet",
        KeyCondition.has_any(
            KeyCondition.has_all("conv_first.weight", "body.0.rdb1.conv5.weight"),
            KeyCondition.has_all("conv_first.weight", "RRDB_trunk.0.RDB1.conv5.weight"),
            KeyCondition.has_all("model.0.weight", "model.1.sub.0.RDB1.conv4.0.weight"),
        ),
        _esrgan,
        Ranges(),
    ),
)
