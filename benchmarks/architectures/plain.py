"""A small network of each family that sr-export recognizes by the order or names of its layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from architectures.networks import GRAY, RGB
from architectures.translators import Pix2PixUNet, ResnetGenerator, TransformerNet

if TYPE_CHECKING:
    from collections.abc import Callable

FEATURES = 16


@dataclass(frozen=True)
class FamilyExample:
    """Small networks of one family.

    Attributes:
        make: Builds the network for a number of channels and a scale.
        scales: The supported scales.
        spec: Settings for `sr-export --arch`; may contain {scale}.
    """

    make: Callable[[int, int], nn.Module]
    scales: tuple[int, ...]
    spec: str = ""
    channel_counts: tuple[int, ...] = (RGB, GRAY)


class Residual(nn.Module):
    """Residual blocks, a convolution and pixel shuffles."""

    def __init__(self, channels: int, scale: int, *, size: int, norm: bool) -> None:
        super().__init__()
        self.head = nn.Sequential(_convolution(channels, FEATURES, size))
        if norm:
            self.head.append(nn.PReLU())
        self.blocks = nn.ModuleList(_block(norm=norm) for _ in range(2))
        self.after = nn.Sequential(_convolution(FEATURES, FEATURES))
        if norm:
            self.after.append(nn.BatchNorm2d(FEATURES))
        self.tail = nn.Sequential()
        for factor in _factors(scale):
            self.tail.append(_convolution(FEATURES, FEATURES * factor**2))
            self.tail.append(nn.PixelShuffle(factor))
            if norm:
                self.tail.append(nn.PReLU())
        self.tail.append(_convolution(FEATURES, channels, size))

    def forward(self, image: Tensor) -> Tensor:
        """Upscale."""
        first = features = self.head(image)
        for block in self.blocks:
            features = features + block(features)
        return self.tail(first + self.after(features))


class Interpolated(nn.Module):
    """Residual blocks and pixel shuffles, added to the interpolated input."""

    def __init__(self, channels: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.head = _convolution(channels, FEATURES)
        self.blocks = nn.ModuleList(_block(norm=False) for _ in range(2))
        self.factors = _factors(scale)
        self.steps = nn.ModuleList(_convolution(FEATURES, FEATURES * f**2) for f in self.factors)
        self.tail = nn.Sequential(
            _convolution(FEATURES, FEATURES), nn.LeakyReLU(0.1), _convolution(FEATURES, channels)
        )

    def forward(self, image: Tensor) -> Tensor:
        """Upscale."""
        features = functional.leaky_relu(self.head(image), 0.1)
        for block in self.blocks:
            features = features + block(features)
        for step, factor in zip(self.steps, self.factors, strict=True):
            features = functional.leaky_relu(functional.pixel_shuffle(step(features), factor), 0.1)
        size = float(self.scale)
        base = functional.interpolate(image, scale_factor=size, mode="bilinear")
        return self.tail(features) + base


def _convolution(inputs: int, outputs: int, size: int = 3) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, padding=size // 2)


def _block(*, norm: bool) -> nn.Sequential:
    first, second = (_convolution(FEATURES, FEATURES) for _ in range(2))
    if not norm:
        return nn.Sequential(first, nn.ReLU(), second)
    norms = [nn.BatchNorm2d(FEATURES) for _ in range(2)]
    return nn.Sequential(first, norms[0], nn.PReLU(), second, norms[1])


def _factors(scale: int) -> list[int]:
    """Return the factors of the upsampling steps."""
    return [scale] if scale % 2 else [2] * (scale.bit_length() - 1)


def _fsrcnn(channels: int, scale: int) -> nn.Module:
    small = FEATURES // 2
    return nn.Sequential(
        *(_convolution(channels, FEATURES, 5), nn.PReLU(FEATURES)),
        *(_convolution(FEATURES, small, 1), nn.PReLU(small)),
        *(_convolution(small, small), nn.PReLU(small)),
        *(_convolution(small, FEATURES, 1), nn.PReLU(FEATURES)),
        nn.ConvTranspose2d(FEATURES, channels, 9, scale, 4, output_padding=scale - 1),
    )


def _espcn(channels: int, scale: int) -> nn.Module:
    small = FEATURES // 2
    return nn.Sequential(
        *(_convolution(channels, FEATURES, 5), nn.Tanh(), _convolution(FEATURES, small), nn.Tanh()),
        *(_convolution(small, channels * scale**2), nn.PixelShuffle(scale)),
    )


def _transposed(channels: int, scale: int) -> nn.Module:
    parts: list[nn.Module] = [_convolution(channels, FEATURES), nn.LeakyReLU(0.2)]
    for _ in _factors(scale):
        parts.append(nn.ConvTranspose2d(FEATURES, FEATURES, 4, 2, 1))
        parts += [nn.BatchNorm2d(FEATURES), nn.LeakyReLU(0.2)]
    return nn.Sequential(*parts, _convolution(FEATURES, channels), nn.Tanh())


def _restorer(channels: int, _scale: int) -> nn.Module:
    return nn.Sequential(
        *(_convolution(channels, FEATURES, 9), nn.ReLU()),
        *(_convolution(FEATURES, FEATURES, 1), nn.ReLU(), _convolution(FEATURES, channels, 5)),
    )


def _nearest(channels: int, scale: int) -> nn.Module:
    parts: list[nn.Module] = [_convolution(channels, FEATURES), nn.ReLU()]
    for factor in _factors(scale):
        parts += [nn.Upsample(scale_factor=factor), _convolution(FEATURES, FEATURES), nn.ReLU()]
    return nn.Sequential(*parts, _convolution(FEATURES, channels))


def _style(_channels: int, _scale: int) -> nn.Module:
    network = TransformerNet()
    with torch.no_grad():  # its images range from 0 to 255
        network.deconv3.conv2d.weight *= 100
        assert network.deconv3.conv2d.bias is not None
        network.deconv3.conv2d.bias.fill_(128)
    return network


PLAIN: dict[str, FamilyExample] = {
    "ConvRestorer": FamilyExample(_restorer, (1,)),
    "ConvTranspose": FamilyExample(_transposed, (4, 2, 8), "scale={scale} strided=false"),
    "CycleGANResNet": FamilyExample(lambda *_: ResnetGenerator(), (1,), channel_counts=(RGB,)),
    "EDSR": FamilyExample(lambda c, s: Residual(c, s, size=3, norm=False), (4, 2, 3, 8)),
    "ESPCN": FamilyExample(_espcn, (4, 2, 3, 8)),
    "FSRCNN": FamilyExample(_fsrcnn, (4, 2, 3, 8), "scale={scale}"),
    "FastNeuralStyle": FamilyExample(_style, (1,), channel_counts=(RGB,)),
    "MSRResNet": FamilyExample(Interpolated, (4, 2, 3, 8)),
    "NearestConv": FamilyExample(_nearest, (4, 2, 3, 8), "scale={scale}"),
    "Pix2PixUNet": FamilyExample(lambda c, _: Pix2PixUNet(channels=c), (1,)),
    "SRResNet": FamilyExample(lambda c, s: Residual(c, s, size=9, norm=True), (4, 2, 3, 8)),
}
