"""Adversarial losses: what makes a discriminator sharper, and what a generator must do about it.

Each kind says two things of the same two batches, N x C x H x W in [0, 1]: what the discriminator
is to minimise, and what the generator is. A discriminator answers with logits of any shape (N
first): one per image, patch or pixel. Losses are the mean over all answers, in float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus


class Adversarial(Protocol):
    """One kind of contest between a generator and a discriminator."""

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the loss of the discriminator; no gradient reaches what made `fake`."""

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the loss of what made `fake`.

        Its gradient also reaches the discriminator's weights, which are not to follow it: switch
        their `requires_grad` off, or clear their gradients before their own step.
        """


class Vanilla:
    """The first GAN's, non-saturating: a classifier of photos, and a generator that says "photo".

    softplus(-x) is -log(sigmoid(x)), without the overflow.
    """

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the cross-entropy of calling photos photos and the rest not."""
        of_real, of_fake = answers(discriminator, real), answers(discriminator, fake.detach())
        return softplus(-of_real).mean() + softplus(of_fake).mean()

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the cross-entropy of having its images called photos."""
        del real
        return softplus(-answers(discriminator, fake)).mean()


class Hinge:
    """A discriminator that is content with a margin of 1: what it knows well, it stops pushing."""

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns how much the answers lack to 1 for photos and -1 for the rest."""
        of_real, of_fake = answers(discriminator, real), answers(discriminator, fake.detach())
        return relu(1.0 - of_real).mean() + relu(1.0 + of_fake).mean()

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the negative answer: there is no margin on this side."""
        del real
        return -answers(discriminator, fake).mean()


class Relativistic:
    """ESRGAN's: is a photo more like a photo than the average generated image, and the reverse?

    The generator's loss looks at the photos, too, and so keeps teaching where its own images are
    already called photos.
    """

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the cross-entropy of photos above the average fake, fakes below the average."""
        of_real, of_fake = answers(discriminator, real), answers(discriminator, fake.detach())
        return self._loss(of_real, of_fake)

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the same with the roles exchanged."""
        with torch.no_grad():
            of_real = answers(discriminator, real)
        return self._loss(answers(discriminator, fake), of_real)

    def _loss(self, higher: Tensor, lower: Tensor) -> Tensor:
        above, below = higher - lower.mean(), lower - higher.mean()
        return softplus(-above).mean() + softplus(below).mean()


@dataclass(frozen=True)
class WassersteinPenalty:
    """WGAN-GP: a critic, whose slope is held at 1, measures how far apart the two kinds are.

    Attributes:
        weight: of the gradient penalty; 10 in the paper.
    """

    weight: float = 10.0

    def of_discriminator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the negative distance, and the penalty for a slope that is not 1."""
        of_real, of_fake = answers(discriminator, real), answers(discriminator, fake.detach())
        penalty = gradient_penalty(discriminator, real, fake.detach())
        return of_fake.mean() - of_real.mean() + self.weight * penalty

    def of_generator(self, discriminator: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        """Returns the negative answer: the part of the distance that the generator can change."""
        del real
        return -answers(discriminator, fake).mean()


def answers(discriminator: nn.Module, images: Tensor) -> Tensor:
    """Returns the logits in float32, whatever precision autocast has chosen inside."""
    return discriminator(images).float()


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """Returns the mean of (slope - 1)^2 at a random point between each photo and its fake.

    The slope is the norm of the gradient of an image's mean answer. The points come from torch's
    random numbers: seed them, and a step can be repeated. Everything is in float32, since the
    gradient of a gradient does not fit into less.
    """
    with torch.autocast(real.device.type, enabled=False):
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        between = torch.lerp(real.float(), fake.float(), share).requires_grad_()
        score = critic(between).flatten(1).mean(1).sum()
        (gradient,) = torch.autograd.grad(score, between, create_graph=True)
        return (gradient.flatten(1).norm(dim=1) - 1.0).square().mean()


ADVERSARIAL: dict[str, Adversarial] = {
    "vanilla": Vanilla(),
    "hinge": Hinge(),
    "relativistic": Relativistic(),
    "wgan-gp": WassersteinPenalty(),
}
