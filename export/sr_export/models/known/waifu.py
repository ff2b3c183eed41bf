"""waifu2x: VGG7, UpConv7 and CUNet. Their convolutions are unpadded: images get a border first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812
from torch import nn

from sr_export.models.known.blocks import channel_attention
from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import Ranges
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

_LEAKY = 0.1
_VGG7 = (32, 32, 64, 64, 128, 128)
_UPCONV7 = (16, 32, 64, 128, 128, 256)
# The names of nunif, and of yu45020/Waifu2x, which surrounds images with black.
_SEQUENCES = ("net", "Sequential")


def _is_straight(weights: Mapping[str, Tensor]) -> bool:
    return any(_widths(weights, name) in (_VGG7, _UPCONV7) for name in _SEQUENCES)


def _widths(weights: Mapping[str, Tensor], sequence: str) -> tuple[int, ...]:
    """Return the widths of the first six convolutions; of less than 15 tensors."""
    names = [f"{sequence}.{2 * i}.weight" for i in range(6)]
    fits = len(weights) <= 14 and all(each in weights for each in names)
    return tuple(weights[each].shape[0] for each in names) if fits else ()


def _straight(named: NamedLayers) -> BuiltNetwork:
    """Build VGG7, or UpConv7, which ends with a transposed convolution."""
    name = next(each for each in _SEQUENCES if named.has_below(each))
    layers = [named.convolution(f"{name}.{2 * i}") for i in range(6)]
    enlarging = layers[-1].out_channels == _UPCONV7[-1]
    inputs = layers[0].in_channels
    last: nn.Module
    if enlarging:
        last = named.transposed(f"{name}.12", padding=3)
    else:
        last = named.convolution(f"{name}.12")
    border = nn.ReplicationPad2d(7) if name == "net" else nn.ZeroPad2d(7)
    active = [part for each in layers for part in (each, nn.LeakyReLU(_LEAKY))]
    module = nn.Sequential(border, *active, last)
    return BuiltNetwork(module, inputs, inputs, 2 if enlarging else 1)


class _Attended(nn.Module):
    """Multiplies channels with weights computed from their means."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.weigh = channel_attention(named, name, ("conv1", "conv2"))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weigh(x.mean((2, 3), keepdim=True))


class _Level(nn.Module):
    """Halves the size, runs the inner parts, doubles it, and adds the cropped input."""

    def __init__(self, named: NamedLayers, down: str, up: str, inner: nn.Module, crop: int) -> None:
        super().__init__()
        self.down, self.up = named.convolution(down, 2), named.transposed(up, padding=0)
        self.inner, self.crop = inner, crop

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(F.leaky_relu(self.down(x), _LEAKY))
        y = F.leaky_relu(self.up(y), _LEAKY)
        return _cropped(x, self.crop) + y


class _Cascaded(nn.Module):
    """Adds the second U-Net's correction to the first one's output."""

    def __init__(self, first: nn.Module, second: nn.Module, border: int) -> None:
        super().__init__()
        self.border = nn.ReplicationPad2d(border)
        self.first, self.second = first, second

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(self.border(image))
        return _cropped(first, 20) + self.second(first)


def _cropped(x: Tensor, border: int) -> Tensor:
    return x[:, :, border:-border, border:-border]


def _double(named: NamedLayers, name: str) -> nn.Sequential:
    parts: list[nn.Module] = []
    for i in (0, 2):
        parts += [named.convolution(f"{name}.conv.{i}"), nn.LeakyReLU(_LEAKY)]
    if named.has_below(f"{name}.seblock"):
        parts.append(_Attended(named, f"{name}.seblock"))
    return nn.Sequential(*parts)


def _ending(named: NamedLayers, name: str) -> tuple[nn.Module, ...]:
    """Return the last two layers of a U-Net; a kernel of 4 pixels doubles the size."""
    last, bottom = name, name.rpartition(".")[0] + ".conv_bottom"
    doubling = named.shape(f"{bottom}.weight")[2] == 4
    tail = named.transposed(bottom, padding=3) if doubling else named.convolution(bottom)
    return named.convolution(last), nn.LeakyReLU(_LEAKY), tail


def _cunet(named: NamedLayers) -> BuiltNetwork:
    inner = _double(named, "unet1.conv2")
    level = _Level(named, "unet1.conv1_down", "unet1.conv2_up", inner, 4)
    first = nn.Sequential(_double(named, "unet1.conv1"), level, *_ending(named, "unet1.conv3"))
    deepest = _double(named, "unet2.conv3")
    deep = _Level(named, "unet2.conv2_down", "unet2.conv3_up", deepest, 4)
    middle = nn.Sequential(_double(named, "unet2.conv2"), deep, _double(named, "unet2.conv4"))
    level = _Level(named, "unet2.conv1_down", "unet2.conv4_up", middle, 16)
    second = nn.Sequential(_double(named, "unet2.conv1"), level, *_ending(named, "unet2.conv5"))
    inputs = named.shape("unet1.conv1.conv.0.weight")[1]
    enlarging = named.shape("unet1.conv_bottom.weight")[2] == 4
    module = _Cascaded(first, second, 18 if enlarging else 28)
    return BuiltNetwork(module, inputs, inputs, 2 if enlarging else 1, grid=4)


WAIFU = (
    NamedArch("waifu2x", _is_straight, _straight, Ranges()),
    # spandrel's RealCUGAN takes the weights of the enlarging one.
    NamedArch(
        "CUNet",
        KeyCondition.has_all(
            "unet1.conv1.conv.0.weight",
            "unet1.conv2.seblock.conv1.weight",
            "unet1.conv_bottom.weight",
            "unet2.conv3_up.weight",
            "unet2.conv_bottom.weight",
        ),
        _cunet,
        Ranges(),
    ),
)
