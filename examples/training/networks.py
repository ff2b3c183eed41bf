"""The networks, with the parameter names by which checkpoint loaders recognize them.

SRResNet and RRDB have no skip connection from input to output, and would spend much of a short
training on learning to copy. Here they are initialized as nearest-neighbor upscaling plus a little
noise to break symmetry; the residual blocks start at zero.

All map N x C x H x W in [0, 1] to N x C x (scale H) x (scale W), with C = 3 (RGB) or 1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, cat, nn, no_grad
from torch.nn import functional

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

RESIDUAL_SCALE = 0.2
INITIAL_NOISE = 0.1


class Espcn(nn.Module):
    """Three convolutions and a pixel shuffle: the smallest useful network."""

    def __init__(self, scale: int, channels: int = 3, features: int = 64) -> None:
        super().__init__()
        if scale == 1:
            raise InvalidInputError("espcn does not support scale 1; use --recipe compact")
        self.feature_maps = nn.Sequential(
            nn.Conv2d(channels, features, 5, padding=2),
            nn.Tanh(),
            nn.Conv2d(features, features // 2, 3, padding=1),
            nn.Tanh(),
        )
        self.sub_pixel = nn.Sequential(
            nn.Conv2d(features // 2, channels * scale * scale, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the upscaled image."""
        return self.sub_pixel(self.feature_maps(x))


class Compact(nn.Module):
    """Convolutions at low resolution and a pixel shuffle, added to the upscaled input.

    Parameter names are those of Real-ESRGAN's SRVGGNetCompact.
    """

    def __init__(self, scale: int, channels: int = 3, features: int = 32, blocks: int = 8) -> None:
        super().__init__()
        self.scale = scale
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(blocks):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        layers.append(nn.Conv2d(features, channels * scale * scale, 3, padding=1))
        self.body = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Return the upscaled image."""
        detail = functional.pixel_shuffle(self.body(x), self.scale)
        return detail + functional.interpolate(x, scale_factor=float(self.scale), mode="nearest")


class SrResNet(nn.Module):
    """SRGAN's generator: residual blocks with BatchNorm and PReLU, then pixel shuffles.

    Parameter names are those of SRGAN-PyTorch, whose images are in [0, 1], too.
    """

    def __init__(self, scale: int, channels: int = 3, features: int = 64, blocks: int = 8) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(channels, features, 9, padding=4), nn.PReLU())
        self.trunk = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        norm = nn.BatchNorm2d(features)
        nn.init.zeros_(norm.weight)
        self.conv2 = nn.Sequential(nn.Conv2d(features, features, 3, padding=1, bias=False), norm)
        self.upsampling = nn.Sequential(
            *(Upsample2x(features, channels) for _ in range(doublings(scale)))
        )
        self.conv3 = nn.Conv2d(features, channels, 9, padding=4)
        for conv in (self.conv1[0], self.conv3):
            copy_colors(conv, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the upscaled image."""
        shallow = self.conv1(x)
        return self.conv3(self.upsampling(shallow + self.conv2(self.trunk(shallow))))


class ResidualBlock(nn.Module):
    """Two convolutions with BatchNorm, added to their input."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.rcb = nn.Sequential(
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
            nn.PReLU(),
            nn.Conv2d(features, features, 3, padding=1, bias=False),
            nn.BatchNorm2d(features),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return x + self.rcb(x)


class Upsample2x(nn.Module):
    """A convolution and a pixel shuffle that double height and width."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.upsample_block = nn.Sequential(
            nn.Conv2d(features, 4 * features, 3, padding=1), nn.PixelShuffle(2), nn.PReLU()
        )
        copy_colors(self.upsample_block[0], channels, copies=4)

    def forward(self, x: Tensor) -> Tensor:
        """Return features with twice the height and width."""
        return self.upsample_block(x)


class RrdbNet(nn.Module):
    """ESRGAN's generator: residual-in-residual dense blocks without normalization.

    Parameter names are those of BasicSR. Loaders assume ESRGAN's growth of 32.
    """

    def __init__(
        self,
        scale: int,
        channels: int = 3,
        features: int = 32,
        blocks: int = 3,
        growth: int = 32,
    ) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(channels, features, 3, padding=1)
        self.body = nn.Sequential(*(Rrdb(features, growth) for _ in range(blocks)))
        self.conv_body = nn.Conv2d(features, features, 3, padding=1)
        nn.init.zeros_(self.conv_body.weight)
        self._up = [f"conv_up{number + 1}" for number in range(doublings(scale))]
        for name in self._up:
            self.add_module(name, nn.Conv2d(features, features, 3, padding=1))
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, channels, 3, padding=1)
        for name in ("conv_first", *self._up, "conv_hr", "conv_last"):
            copy_colors(self.get_submodule(name), channels)

    def forward(self, x: Tensor) -> Tensor:
        """Return the upscaled image."""
        shallow = self.conv_first(x)
        deep = shallow + self.conv_body(self.body(shallow))
        for name in self._up:
            larger = functional.interpolate(deep, scale_factor=2.0, mode="nearest")
            deep = leaky(self.get_submodule(name)(larger))
        return self.conv_last(leaky(self.conv_hr(deep)))


class Rrdb(nn.Module):
    """Three dense blocks, added to their input."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.rdb1 = DenseBlock(features, growth)
        self.rdb2 = DenseBlock(features, growth)
        self.rdb3 = DenseBlock(features, growth)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        return x + RESIDUAL_SCALE * self.rdb3(self.rdb2(self.rdb1(x)))


class DenseBlock(nn.Module):
    """Five convolutions; each reads the input and the outputs of all previous ones."""

    def __init__(self, features: int, growth: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, growth, 3, padding=1)
        self.conv2 = nn.Conv2d(features + growth, growth, 3, padding=1)
        self.conv3 = nn.Conv2d(features + 2 * growth, growth, 3, padding=1)
        self.conv4 = nn.Conv2d(features + 3 * growth, growth, 3, padding=1)
        self.conv5 = nn.Conv2d(features + 4 * growth, features, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the same shape."""
        features = x
        for conv in (self.conv1, self.conv2, self.conv3, self.conv4):
            features = cat((features, leaky(conv(features))), 1)
        return x + RESIDUAL_SCALE * self.conv5(features)


def leaky(x: Tensor) -> Tensor:
    """Return ESRGAN's activation."""
    return functional.leaky_relu(x, 0.2)


def doublings(scale: int) -> int:
    """Return the number of 2x upsampling steps.

    Raises:
        InvalidInputError: The scale is not a power of two.
    """
    if scale.bit_count() != 1:
        raise InvalidInputError(f"this network supports the scales 1, 2, 4 and 8, not {scale}")
    return scale.bit_length() - 1


def copy_colors(conv: nn.Module, channels: int, copies: int = 1) -> None:
    """Initialize a convolution so that its first outputs are `copies` copies of each color channel.

    A pixel shuffle turns four copies into one channel of twice the height and width.
    """
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    center = conv.kernel_size[0] // 2
    with no_grad():
        conv.weight[: channels * copies] *= INITIAL_NOISE
        conv.bias[: channels * copies] = 0.0
        for output in range(channels * copies):
            conv.weight[output, output // copies, center, center] += 1.0


NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "espcn": Espcn,
    "compact": Compact,
    "srresnet": SrResNet,
    "rrdb": RrdbNet,
}
"""Constructors by name; they take scale and channels, and optionally features and blocks."""
