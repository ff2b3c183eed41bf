"""Adversarial losses: their values by hand, where their gradients go, and that they teach."""

from __future__ import annotations

from math import exp, log, log1p

import pytest
import torch
from torch import Tensor, nn

from examples.training.adversarial import ADVERSARIAL, WassersteinPenalty, gradient_penalty
from examples.training.discriminators import Patches, Pyramid, UNet


class Brightness(nn.Module):
    """Answers with ten times an image's mean, plus what it has learnt: nothing yet."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.flatten(1).mean(1, keepdim=True) + self.bias


def answered(*values: float) -> Tensor:
    """Return the images to which `Brightness` answers so."""
    return torch.tensor(values).div(10).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()


def softplus(x: float) -> float:
    return log1p(exp(x))


@pytest.mark.parametrize(
    ("kind", "of_discriminator", "of_generator"),
    [
        # Photos are answered with 0.5 and 3, fakes with -2 and 0: means 1.75 and -1.
        (
            "vanilla",
            (softplus(-0.5) + softplus(-3)) / 2 + (softplus(-2) + softplus(0)) / 2,
            (softplus(2) + softplus(0)) / 2,
        ),
        ("hinge", (0.5 + 0) / 2 + (0 + 1) / 2, 1.0),
        (
            "relativistic",
            (softplus(-1.5) + softplus(-4)) / 2 + (softplus(-3.75) + softplus(-1.75)) / 2,
            (softplus(1.5) + softplus(4)) / 2 + (softplus(3.75) + softplus(1.75)) / 2,
        ),
    ],
)
def test_the_losses_are_those_of_the_papers(
    kind: str, of_discriminator: float, of_generator: float
) -> None:
    critic, real, fake = Brightness(), answered(0.5, 3), answered(-2, 0)
    loss = ADVERSARIAL[kind]
    assert loss.of_discriminator(critic, real, fake).item() == pytest.approx(of_discriminator)
    assert loss.of_generator(critic, real, fake).item() == pytest.approx(of_generator)


def test_where_photos_and_fakes_are_alike_the_relativistic_losses_are_equal() -> None:
    critic, same, loss = Brightness(), answered(0.7, 0.7), ADVERSARIAL["relativistic"]
    for value in (loss.of_discriminator, loss.of_generator):
        assert value(critic, same, same).item() == pytest.approx(2 * log(2))


def test_the_gradient_penalty_of_a_linear_critic_is_that_of_its_slope() -> None:
    # Ten times the mean of 48 values has the slope 10 / sqrt(48) everywhere.
    slope = 10 / 48**0.5
    critic, real, fake = Brightness(), answered(1, 2), answered(-1, 0)
    assert gradient_penalty(critic, real, fake).item() == pytest.approx((slope - 1) ** 2)
    loss = WassersteinPenalty(weight=3.0).of_discriminator(critic, real, fake)
    assert loss.item() == pytest.approx(-0.5 - 1.5 + 3 * (slope - 1) ** 2)
    assert ADVERSARIAL["wgan-gp"].of_generator(critic, real, fake).item() == pytest.approx(0.5)


def test_the_answer_to_an_image_is_the_mean_of_those_to_its_pixels() -> None:
    penalty = gradient_penalty(nn.Identity(), torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4))
    assert penalty.item() == pytest.approx((1 / 48**0.5 - 1) ** 2)


def test_the_penalty_looks_between_the_images_at_places_that_the_seed_says() -> None:
    class Square(nn.Module):
        """Has the slope 2 |x|."""

        def forward(self, x: Tensor) -> Tensor:
            return x.square()

    def penalty(seed: int) -> float:
        torch.manual_seed(seed)
        real, fake = torch.full((1, 1, 1, 1), 0.9), torch.full((1, 1, 1, 1), 0.6)
        return gradient_penalty(Square(), real, fake).item()

    assert penalty(1) == penalty(1) != penalty(2)
    assert all(0.2**2 < penalty(seed) < 0.8**2 for seed in range(20))


def gradient(loss: Tensor, images: Tensor) -> Tensor | None:
    """Return what reaches the images."""
    loss.backward()  # type: ignore[no-untyped-call]
    return images.grad


@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_each_side_learns_from_its_own_loss(kind: str) -> None:
    loss, critic, real = ADVERSARIAL[kind], Brightness(), answered(0.3, 0.5)
    fake = answered(-0.2, 0.1).requires_grad_()
    assert gradient(loss.of_discriminator(critic, real, fake), fake) is None
    # Brighter images are what this critic takes for photos: all pixels are to become brighter.
    found = gradient(loss.of_generator(critic, real, fake), fake)
    assert found is not None
    assert bool((found < 0).all())


@pytest.mark.parametrize("network", [Pyramid, UNet, Patches])
@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_a_discriminator_learns_to_tell_noise_from_stripes(
    kind: str, network: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    critic, loss = network(1, 8), ADVERSARIAL[kind]
    optimiser = torch.optim.Adam(critic.parameters(), 3e-3, betas=(0.5, 0.9))

    def batch() -> tuple[Tensor, Tensor]:
        stripes = torch.tensor([0.2, 0.2, 0.8, 0.8]).repeat(4).expand(8, 1, 16, 16)
        return stripes + 0.05 * torch.randn(8, 1, 16, 16), torch.rand(8, 1, 16, 16)

    losses = []
    for _ in range(25):
        value = loss.of_discriminator(critic, *batch())
        optimiser.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(value.item())
    real, fake = batch()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert critic(real).mean() > critic(fake).mean()


@pytest.mark.parametrize("network", [Pyramid, UNet, Patches])
@pytest.mark.parametrize("kind", ADVERSARIAL)
def test_half_precision_inside_gives_the_same_losses(kind: str, network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    critic, loss = network(3, 8).eval(), ADVERSARIAL[kind]
    real, fake = torch.rand(4, 3, 24, 24), torch.rand(4, 3, 24, 24)
    for of in (loss.of_discriminator, loss.of_generator):
        torch.manual_seed(1)
        wanted = of(critic, real, fake)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            got = of(critic, real, fake)
        assert got.dtype == torch.float32
        # bfloat16 has three digits; a dozen layers, and answers below 1, lose a little of them.
        torch.testing.assert_close(got, wanted, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("network", [Pyramid, UNet, Patches])
def test_the_penalty_of_half_precision_is_that_of_single(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    critic = network(1, 8).eval()
    real, fake = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16)
    torch.manual_seed(1)
    wanted = gradient_penalty(critic, real, fake)
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        got = gradient_penalty(critic, real, fake)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, wanted, rtol=0, atol=0)
