"""Discriminators take crops of any size, judge each image alone, and are not too steep."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from examples.training.discriminators import DISCRIMINATORS, Patches, Pyramid, UNet, build
from sr_deploy.errors import InvalidInputError

SIZES: dict[str, dict[tuple[int, int], tuple[int, ...]]] = {
    "pyramid": {(16, 16): (1,), (37, 50): (1,)},
    "unet": {(16, 16): (1, 16, 16), (37, 50): (1, 37, 50)},
    "patch": {(16, 16): (1, 2, 2), (37, 50): (1, 4, 6)},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_each_takes_crops_of_any_size(kind: str, channels: int) -> None:
    network = build(kind, channels)
    for size, answer in SIZES[kind].items():
        assert network(torch.rand(2, channels, *size)).shape == (2, *answer)


@pytest.mark.parametrize("network", [Pyramid(1, 8), UNet(1, 8), Patches(1, 8)])
def test_the_answer_to_an_image_does_not_depend_on_the_rest_of_the_batch(
    network: nn.Module,
) -> None:
    images = torch.rand(3, 1, 24, 24)
    network(images)
    assert network.training
    for layer in network.modules():  # spectral norm alone goes on estimating as it trains
        if isinstance(layer, nn.utils.parametrize.ParametrizationList):
            layer.eval()
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone)


@pytest.mark.parametrize("network", [Pyramid(3, 8), UNet(3, 8), Patches(3, 8)])
def test_all_layers_but_the_first_and_the_last_have_a_bounded_slope(network: nn.Module) -> None:
    torch.manual_seed(0)
    layers = [each for each in network.modules() if isinstance(each, nn.Conv2d | nn.Linear)]
    with torch.no_grad():
        for layer in layers[1:-1]:
            layer.parametrizations.weight.original.mul_(50)
        for _ in range(200):  # of the power method, one step per call
            network(torch.rand(1, 3, 16, 16))
        largest = [torch.linalg.matrix_norm(each.weight.flatten(1), 2) for each in layers]
    # What the power method has not yet found is well below 5 %.
    torch.testing.assert_close(
        torch.stack(largest[1:-1]), torch.ones(len(layers) - 2), rtol=0.05, atol=0
    )
    assert not any(nn.utils.parametrize.is_parametrized(layers[at]) for at in (0, -1))


def test_an_answer_for_a_patch_has_seen_that_patch() -> None:
    image = torch.zeros(1, 1, 128, 128, requires_grad=True)
    Patches(1, 8)(image)[0, 0, 8, 8].backward()
    assert image.grad is not None
    seen = image.grad[0, 0].nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [54, 54]


def test_an_unknown_kind_is_told_what_there_is() -> None:
    with pytest.raises(InvalidInputError, match="'vgg' is not known; choose one of pyramid, unet"):
        build("vgg", 3)
