"""Adversarial losses, their gradients, and the discriminators."""

from __future__ import annotations

from math import exp, log, log1p

import pytest
import torch
from torch import Tensor, nn

from examples.training.gan import (
    ADVERSARIAL_LOSSES,
    DISCRIMINATORS,
    PatchDiscriminator,
    UNetDiscriminator,
    VggDiscriminator,
    WassersteinLoss,
    build_discriminator,
    gradient_penalty,
)
from sr_deploy.errors import InvalidInputError


class Brightness(nn.Module):
    """Returns ten times the mean of an image, plus a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return 10 * x.flatten(1).mean(1, keepdim=True) + self.bias


def with_logits(*values: float) -> Tensor:
    """Return images with these logits of `Brightness`."""
    return torch.tensor(values).div(10).view(-1, 1, 1, 1).expand(-1, 3, 4, 4).clone()


def softplus(x: float) -> float:
    return log1p(exp(x))


@pytest.mark.parametrize(
    ("kind", "of_discriminator", "of_generator"),
    [
        # Logits of photos: 0.5 and 3; of fakes: -2 and 0. Means: 1.75 and -1.
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
    critic, real, fake = Brightness(), with_logits(0.5, 3), with_logits(-2, 0)
    loss = ADVERSARIAL_LOSSES[kind]
    assert loss.of_discriminator(critic, real, fake).item() == pytest.approx(of_discriminator)
    assert loss.of_generator(critic, real, fake).item() == pytest.approx(of_generator)


def test_relativistic_losses_of_equal_images_are_equal() -> None:
    critic, same, loss = Brightness(), with_logits(0.7, 0.7), ADVERSARIAL_LOSSES["relativistic"]
    for value in (loss.of_discriminator, loss.of_generator):
        assert value(critic, same, same).item() == pytest.approx(2 * log(2))


def test_the_gradient_penalty_of_a_linear_critic() -> None:
    # Ten times the mean of 48 values has the slope 10 / sqrt(48) everywhere.
    slope = 10 / 48**0.5
    critic, real, fake = Brightness(), with_logits(1, 2), with_logits(-1, 0)
    assert gradient_penalty(critic, real, fake).item() == pytest.approx((slope - 1) ** 2)
    loss = WassersteinLoss(weight=3.0).of_discriminator(critic, real, fake)
    assert loss.item() == pytest.approx(-0.5 - 1.5 + 3 * (slope - 1) ** 2)
    assert ADVERSARIAL_LOSSES["wgan-gp"].of_generator(critic, real, fake).item() == pytest.approx(
        0.5
    )


def test_the_penalty_averages_the_logits_of_an_image() -> None:
    penalty = gradient_penalty(nn.Identity(), torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4))
    assert penalty.item() == pytest.approx((1 / 48**0.5 - 1) ** 2)


def test_the_penalty_uses_random_points_between_the_images() -> None:
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
    """Return the gradient of the images."""
    loss.backward()  # type: ignore[no-untyped-call]
    return images.grad


@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_each_network_gets_gradients_from_its_own_loss(kind: str) -> None:
    loss, critic, real = ADVERSARIAL_LOSSES[kind], Brightness(), with_logits(0.3, 0.5)
    fake = with_logits(-0.2, 0.1).requires_grad_()
    assert gradient(loss.of_discriminator(critic, real, fake), fake) is None
    # This critic takes bright images for photos, so all pixels must become brighter.
    found = gradient(loss.of_generator(critic, real, fake), fake)
    assert found is not None
    assert bool((found < 0).all())


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(VggDiscriminator, marks=pytest.mark.slow),
        pytest.param(UNetDiscriminator, marks=pytest.mark.slow),
        PatchDiscriminator,
    ],
)
@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_discriminators_learn_to_separate_noise_from_stripes(
    kind: str, network: type[nn.Module]
) -> None:
    torch.manual_seed(0)
    critic, loss = network(1, 8), ADVERSARIAL_LOSSES[kind]
    optimizer = torch.optim.Adam(critic.parameters(), 3e-3, betas=(0.5, 0.9))

    def batch() -> tuple[Tensor, Tensor]:
        stripes = torch.tensor([0.2, 0.2, 0.8, 0.8]).repeat(4).expand(8, 1, 16, 16)
        return stripes + 0.05 * torch.randn(8, 1, 16, 16), torch.rand(8, 1, 16, 16)

    losses = []
    for _ in range(25):
        value = loss.of_discriminator(critic, *batch())
        optimizer.zero_grad()
        value.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(value.item())
    real, fake = batch()
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    assert critic(real).mean() > critic(fake).mean()


@pytest.mark.parametrize("network", [VggDiscriminator, UNetDiscriminator, PatchDiscriminator])
@pytest.mark.parametrize("kind", ADVERSARIAL_LOSSES)
def test_autocast_gives_nearly_the_same_losses(kind: str, network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    critic, loss = network(3, 8).eval(), ADVERSARIAL_LOSSES[kind]
    real, fake = torch.rand(4, 3, 24, 24), torch.rand(4, 3, 24, 24)
    for of in (loss.of_discriminator, loss.of_generator):
        torch.manual_seed(1)
        wanted = of(critic, real, fake)
        torch.manual_seed(1)
        with torch.autocast("cpu", torch.bfloat16):
            got = of(critic, real, fake)
        assert got.dtype == torch.float32
        # bfloat16 has three digits; a dozen layers lose some accuracy.
        torch.testing.assert_close(got, wanted, rtol=0.02, atol=0.01)


@pytest.mark.parametrize("network", [VggDiscriminator, UNetDiscriminator, PatchDiscriminator])
def test_the_penalty_ignores_autocast(network: type[nn.Module]) -> None:
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


SIZES: dict[str, dict[tuple[int, int], tuple[int, ...]]] = {
    "pyramid": {(16, 16): (1,), (37, 50): (1,)},
    "unet": {(16, 16): (1, 16, 16), (37, 50): (1, 37, 50)},
    "patch": {(16, 16): (1, 2, 2), (37, 50): (1, 4, 6)},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_crops_of_any_size(kind: str, channels: int) -> None:
    network = build_discriminator(kind, channels)
    for size, answer in SIZES[kind].items():
        assert network(torch.rand(2, channels, *size)).shape == (2, *answer)


@pytest.mark.parametrize(
    "network", [VggDiscriminator(1, 8), UNetDiscriminator(1, 8), PatchDiscriminator(1, 8)]
)
def test_images_of_a_batch_are_independent(
    network: nn.Module,
) -> None:
    images = torch.rand(3, 1, 24, 24)
    network(images)
    assert network.training
    for layer in network.modules():  # spectral norm updates its estimate in training mode
        if isinstance(layer, nn.utils.parametrize.ParametrizationList):
            layer.eval()
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone)


@pytest.mark.parametrize(
    "network", [VggDiscriminator(3, 8), UNetDiscriminator(3, 8), PatchDiscriminator(3, 8)]
)
def test_inner_layers_have_a_bounded_slope(network: nn.Module) -> None:
    torch.manual_seed(0)
    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers[1:-1]:
            layer.parametrizations.weight.original.mul_(50)
        for _ in range(200):  # one step of the power method per call
            network(torch.rand(1, 3, 16, 16))
        largest = [torch.linalg.matrix_norm(each.weight.flatten(1), 2) for each in layers]
    # The remaining error of the power method is well below 5 %.
    torch.testing.assert_close(
        torch.stack(largest[1:-1]), torch.ones(len(layers) - 2), rtol=0.05, atol=0
    )
    assert not any(nn.utils.parametrize.is_parametrized(layers[at]) for at in (0, -1))


def test_the_receptive_field_of_a_patch() -> None:
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    PatchDiscriminator(1, 8)(image)[0, 0, 8, 8].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [54, 54]


def test_unknown_discriminators_are_an_error() -> None:
    with pytest.raises(InvalidInputError, match=r"vgg.*pyramid.*unet.*patch"):
        build_discriminator("vgg", 3)
