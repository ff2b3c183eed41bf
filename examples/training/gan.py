"""Discriminators and adversarial losses.

Discriminators return logits of any shape, batch first: positive for photos, one value per image,
patch or pixel. None uses BatchNorm. It makes the logits of a batch depend on each other, but the
gradient penalty of WGAN-GP is defined per image. Real and generated images also come in separate
batches, so the batch statistics alone would separate them. Spectral norm instead bounds each
layer's Lipschitz constant, which stabilizes every adversarial loss, whatever the images are. The
first and the last layer are unconstrained so that the scale of the logits is learned: a hinge loss
wants 1 and -1, a relativistic loss as large a distance as possible.

Losses take two batches, N x C x H x W in [0, 1]. They average over all logits, in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import relu, softplus
from torch.nn.utils.parametrizations import spectral_norm

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable

SLOPE = 0.2  # of LeakyReLU: a gradient on both sides of zero


class VggDiscriminator(nn.Module):
    """SRGAN's discriminator: VGG-like convolutions to 1/16 of the size, then two dense layers.

    It returns one logit per image. SRGAN's dense layer needs crops of 96 pixels; here, features are
    first averaged over the image, so crops may have any size.
    """

    def __init__(self, channels: int, features: int = 64) -> None:
        super().__init__()
        widths = [features * factor for factor in (1, 2, 4, 8)]
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 3, padding=1)]
        before = features
        for width in widths:
            if width != before:
                layers += [_leaky(), spectral_norm(nn.Conv2d(before, width, 3, padding=1))]
            layers += [_leaky(), spectral_norm(nn.Conv2d(width, width, 3, stride=2, padding=1))]
            before = width
        self.features = nn.Sequential(*layers, _leaky(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        dense = spectral_norm(nn.Linear(before, 2 * before))
        self.answer = nn.Sequential(dense, _leaky(), nn.Linear(2 * before, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W in [0, 1] to N x 1."""
        return self.answer(self.features(x))


class UNetDiscriminator(nn.Module):
    """Real-ESRGAN's U-Net: down to 1/8 of the size and up again, with skip connections.

    It returns one logit per pixel, which tells the generator where its image looks wrong. H and W
    are at least 8.
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
            _leaky(),
            spectral_norm(nn.Conv2d(features, features, 3, padding=1, bias=False)),
            _leaky(),
            nn.Conv2d(features, 1, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W in [0, 1] to N x 1 x H x W."""
        skips = [functional.leaky_relu(self.first(x), SLOPE)]
        for conv in self.down:
            skips.append(functional.leaky_relu(conv(skips[-1]), SLOPE))
        deep = skips.pop()
        for conv in self.up:
            skip = skips.pop()
            larger = functional.interpolate(deep, size=skip.shape[-2:], mode="bilinear")
            deep = functional.leaky_relu(conv(larger), SLOPE) + skip
        return self.answer(deep)


class PatchDiscriminator(nn.Module):
    """pix2pix's PatchGAN: one logit per patch of 54 x 54 pixels, 8 pixels apart.

    It judges texture; the image's content is left to the other losses. H and W are at least 8. The
    last two kernels are 3 x 3 instead of pix2pix's 4 x 4, which do not fit into small crops.
    """

    def __init__(self, channels: int, features: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, features, 4, stride=2, padding=1)]
        for wide in (features, 2 * features):
            layers += [_leaky(), spectral_norm(nn.Conv2d(wide, 2 * wide, 4, stride=2, padding=1))]
        wide = 4 * features
        layers += [_leaky(), spectral_norm(nn.Conv2d(wide, 2 * wide, 3, padding=1))]
        self.answer = nn.Sequential(*layers, _leaky(), nn.Conv2d(2 * wide, 1, 3, padding=1))

    def forward(self, x: Tensor) -> Tensor:
        """Map N x C x H x W in [0, 1] to N x 1 x (H / 8) x (W / 8)."""
        return self.answer(x)


def _leaky() -> nn.Module:
    return nn.LeakyReLU(SLOPE)


DISCRIMINATORS: dict[str, Callable[[int], nn.Module]] = {
    "pyramid": VggDiscriminator,
    "unet": UNetDiscriminator,
    "patch": PatchDiscriminator,
}


def build_discriminator(kind: str, channels: int) -> nn.Module:
    """Build a discriminator for images with 1 or 3 channels.

    Raises:
        InvalidInputError: `kind` is not a key of `DISCRIMINATORS`.
    """
    if kind not in DISCRIMINATORS:
        allowed = ", ".join(DISCRIMINATORS)
        raise InvalidInputError(f"unknown discriminator {kind!r}; allowed: {allowed}")
    return DISCRIMINATORS[kind](channels)


class AdversarialLoss(Protocol):
    """The losses of a discriminator and its generator."""

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the discriminator's loss; gradients do not reach the generator behind `fake`."""

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the generator's loss.

        Its gradient also reaches the discriminator's weights, which must not follow it: disable
        their `requires_grad`, or clear their gradients before the discriminator's own step.
        """


class VanillaLoss:
    """The original, non-saturating GAN loss: cross-entropy of a classifier.

    softplus(-x) equals -log(sigmoid(x)) and does not overflow.
    """

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the cross-entropy of classifying photos as real and `fake` as generated."""
        real_logits = _logits(discriminator, real)
        fake_logits = _logits(discriminator, fake.detach())
        return softplus(-real_logits).mean() + softplus(fake_logits).mean()

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the cross-entropy of classifying `fake` as real."""
        del real
        return softplus(-_logits(discriminator, fake)).mean()


class HingeLoss:
    """The hinge loss: logits beyond a margin of 1 have no gradient."""

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the distance of the logits to 1 for photos and to -1 for `fake`."""
        real_logits = _logits(discriminator, real)
        fake_logits = _logits(discriminator, fake.detach())
        return relu(1.0 - real_logits).mean() + relu(1.0 + fake_logits).mean()

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the negative logit; the generator has no margin."""
        del real
        return -_logits(discriminator, fake).mean()


class RelativisticLoss:
    """ESRGAN's relativistic average loss: is a photo more real than the average generated image?

    The generator's loss also depends on the photos, so it has a gradient even if the generated
    images are already classified as real.
    """

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the cross-entropy of photos above the average fake and fakes below the average."""
        real_logits = _logits(discriminator, real)
        return self._loss(real_logits, _logits(discriminator, fake.detach()))

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the same loss with the roles exchanged."""
        with torch.no_grad():
            real_logits = _logits(discriminator, real)
        return self._loss(_logits(discriminator, fake), real_logits)

    def _loss(self, higher: Tensor, lower: Tensor) -> Tensor:
        above, below = higher - lower.mean(), lower - higher.mean()
        return softplus(-above).mean() + softplus(below).mean()


@dataclass(frozen=True)
class WassersteinLoss:
    """WGAN-GP: the critic estimates a distance; a gradient penalty keeps its slope at 1."""

    weight: float = 10.0
    """Weight of the gradient penalty; 10 in the paper."""

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the negative distance plus the penalty."""
        real_logits = _logits(discriminator, real)
        fake_logits = _logits(discriminator, fake.detach())
        penalty = gradient_penalty(discriminator, real, fake.detach())
        return fake_logits.mean() - real_logits.mean() + self.weight * penalty

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Return the negative logit: the part of the distance that the generator controls."""
        del real
        return -_logits(discriminator, fake).mean()


def _logits(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Return float32 logits, whatever precision autocast uses inside."""
    return discriminator(images).float()


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Return the mean of (slope - 1)^2 at a random point between each photo and its fake.

    The slope is the norm of the gradient of an image's mean logit. The points come from torch's
    global generator, so seed it for reproducible steps. Everything is computed in float32, because
    second derivatives lose too much in lower precision.
    """
    with torch.autocast(real.device.type, enabled=False):
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = torch.lerp(real.float(), fake.float(), share).requires_grad_()
        score = critic(between).flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(score, between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1.0).square().mean()


ADVERSARIAL_LOSSES: dict[str, AdversarialLoss] = {
    "vanilla": VanillaLoss(),
    "hinge": HingeLoss(),
    "relativistic": RelativisticLoss(),
    "wgan-gp": WassersteinLoss(),
}
