"""The networks that tell photos from what a generator made: one answer per image, patch or pixel.

None has BatchNorm. It would tie the answers of a batch together, where the gradient penalty of
WGAN-GP is about each image alone; and as real and generated images come in batches of their own,
their statistics alone would tell them apart. Spectral norm instead bounds how steep each layer is,
which keeps every adversarial loss stable, and does not look at the images at all. The first and the
last layer are left free, so that the size of the answers can be learnt: a hinge wants 1 and -1, a
relativistic loss as far apart as it gets.

Answers are logits: positive for photos, unbounded, before any sigmoid.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

SLOPE = 0.2


class Pyramid(nn.Module):
    """SRGAN's: convolutions in the manner of VGG down to 1/16 of the size, then two dense layers.

    It gives one answer per image. SRGAN's own dense layer is made for crops of 96 pixels; here the
    last features are averaged over the image first, so that crops may have any size.
    """

    def __init__(self, channels: int, features: int = 64) -> None:
        super().__init__()
        widths = [features * factor for factor in (1, 2, 4, 8)]
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 3, padding=1)]
        before = features
        for width in widths:
            if width != before:
                layers += [leaky(), spectral_norm(nn.Conv2d(before, width, 3, padding=1))]
            layers += [leaky(), spectral_norm(nn.Conv2d(width, width, 3, stride=2, padding=1))]
            before = width
        self.features = nn.Sequential(*layers, leaky(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        dense = spectral_norm(nn.Linear(before, 2 * before))
        self.answer = nn.Sequential(dense, leaky(), nn.Linear(2 * before, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps N x C x H x W in [0, 1] to N x 1."""
        return self.answer(self.features(x))


class UNet(nn.Module):
    """Real-ESRGAN's: down to 1/8 of the size and up again, with what was seen on the way down.

    It gives one answer per pixel, which tells the generator where it is caught, not only that it
    is. H and W are at least 8.
    """

    def __init__(self, channels: int, features: int = 64) -> None:
        super().__init__()
        widths = [features * factor for factor in (1, 2, 4, 8)]
        self.first = nn.Conv2d(channels, features, 3, padding=1)
        self.down = nn.ModuleList(
            spectral_norm(nn.Conv2d(wide, 2 * wide, 4, stride=2, padding=1, bias=False))
            for wide in widths[:-1]
        )
        self.up = nn.ModuleList(
            spectral_norm(nn.Conv2d(wide, wide // 2, 3, padding=1, bias=False))
            for wide in reversed(widths[1:])
        )
        self.answer = nn.Sequential(
            spectral_norm(nn.Conv2d(features, features, 3, padding=1, bias=False)),
            leaky(),
            spectral_norm(nn.Conv2d(features, features, 3, padding=1, bias=False)),
            leaky(),
            nn.Conv2d(features, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps N x C x H x W in [0, 1] to N x 1 x H x W."""
        seen = [functional.leaky_relu(self.first(x), SLOPE)]
        for conv in self.down:
            seen.append(functional.leaky_relu(conv(seen[-1]), SLOPE))
        deep = seen.pop()
        for conv in self.up:
            skipped = seen.pop()
            larger = functional.interpolate(deep, size=skipped.shape[-2:], mode="bilinear")
            deep = functional.leaky_relu(conv(larger), SLOPE) + skipped
        return self.answer(deep)


class Patches(nn.Module):
    """PatchGAN, as in pix2pix: one answer for each patch of 54 x 54 pixels, 8 pixels apart.

    It judges texture, and leaves what the image shows to the other losses. H and W are at least 8.
    The last two kernels have 3 x 3 taps in place of pix2pix's 4 x 4, for which small crops are
    too small.
    """

    def __init__(self, channels: int, features: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 4, stride=2, padding=1)]
        for wide in (features, 2 * features):
            layers += [leaky(), spectral_norm(nn.Conv2d(wide, 2 * wide, 4, stride=2, padding=1))]
        wide = 4 * features
        layers += [leaky(), spectral_norm(nn.Conv2d(wide, 2 * wide, 3, padding=1))]
        self.answer = nn.Sequential(*layers, leaky(), nn.Conv2d(2 * wide, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Maps N x C x H x W in [0, 1] to N x 1 x (H / 8) x (W / 8)."""
        return self.answer(x)


DISCRIMINATORS: dict[str, Callable[[int], nn.Module]] = {
    "pyramid": Pyramid,
    "unet": UNet,
    "patch": Patches,
}


def build(kind: str, channels: int) -> nn.Module:
    """Makes a discriminator of a kind in `DISCRIMINATORS` for images of 1 or 3 channels.

    Raises:
        InvalidInputError: there is no such kind.
    """
    if kind not in DISCRIMINATORS:
        kinds = ", ".join(DISCRIMINATORS)
        raise InvalidInputError(f"discriminator {kind!r} is not known; choose one of {kinds}")
    return DISCRIMINATORS[kind](channels)


def leaky() -> nn.Module:
    """Returns the activation that discriminators have: a gradient on both sides of zero."""
    return nn.LeakyReLU(SLOPE)
