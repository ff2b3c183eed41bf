"""Generators: recognized by their weights, or from the user's own class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from architectures.translators import Pix2PixUNet
from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.models.generators import Generator, find
from sr_export.models.ranges import Ranges
from tests.sr_export.generators import Dcgan, Discriminator, NestedDcgan, Repeating, trained
from tests.sr_export.networks import Convolutions

_OWN = str(Path(__file__).parents[1] / "generators.py")


def _found(weights: dict[str, torch.Tensor], **options: object) -> Generator | None:
    return find(weights, **options)


def _images(module: nn.Module, noise: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        images: torch.Tensor = module(noise)
    return images


@pytest.mark.parametrize(("channels", "layers", "side"), [(3, 4, 32), (1, 3, 16), (3, 5, 64)])
def test_dcgan_is_recognized(channels: int, layers: int, side: int) -> None:
    module = trained(Dcgan(10, 4, channels, layers), 10)
    found = _found(dict(module.state_dict()))
    assert found is not None
    assert (found.architecture, found.size, found.channels) == ("DCGAN", 10, channels)
    assert (found.height, found.width) == (side, side)
    assert found.ranges == "random numbers in, -1 to 1 out"
    assert found.how.startswith("WARNING")
    assert found.how.endswith(" activation=relu, final=tanh")
    noise = torch.randn(3, 10)
    expected = (_images(module, noise[:, :, None, None]) + 1) / 2
    assert expected.std() > 0.1
    assert torch.allclose(_images(found.module, noise), expected, atol=1e-6)


def test_settings_can_be_given() -> None:
    module = trained(NestedDcgan(), 10)
    weights = dict(module.state_dict())
    found = _found(weights, architecture="DCGAN activation=leaky0.2 final=sigmoid")
    assert found is not None
    assert (found.channels, found.ranges, found.how) == (1, "random numbers in, 0 to 1 out", "")
    noise = torch.randn(3, 10)
    assert torch.equal(_images(found.module, noise), _images(module, noise[:, :, None, None]))
    half = _found(weights, architecture="DCGAN final=sigmoid")
    assert half is not None
    assert half.how.endswith(": activation=relu")


def test_weights_sorted_by_name() -> None:
    """In safetensors files, main.10 comes before main.3."""
    module = trained(Dcgan(10, 4, 3, 5), 10)
    weights = dict(sorted(module.state_dict().items()))
    found = _found(weights)
    assert found is not None
    noise = torch.randn(2, 10)
    expected = (_images(module, noise[:, :, None, None]) + 1) / 2
    assert torch.allclose(_images(found.module, noise), expected, atol=1e-6)


@pytest.mark.parametrize("module", [Discriminator(), Convolutions(), Pix2PixUNet(), Repeating()])
def test_other_networks_are_not_generators(module: nn.Module) -> None:
    weights = dict(module.state_dict())
    assert _found(weights) is None
    with pytest.raises(CheckpointError, match="DCGAN"):
        _found(weights, architecture="DCGAN")
    assert _found(weights, architecture="EDSR") is None


@pytest.mark.parametrize(
    ("options", "fact"),
    [
        ({"architecture": "DCGAN final=relu"}, "final=relu .*activation=.*final=tanh"),
        ({"architecture": "DCGAN scale=2"}, "scale=2 "),
        ({"latent": 10}, "--latent.*--arch-file"),
        ({"ranges": Ranges(input=(-1.0, 1.0))}, "--output-range"),
        ({"ranges": Ranges(mean=(0.5,))}, "--output-range"),
    ],
)
def test_options_for_image_networks_are_refused(options: dict[str, object], fact: str) -> None:
    with pytest.raises(InvalidInputError, match=fact):
        _found(dict(Dcgan().state_dict()), **options)


def test_the_user_can_give_the_range() -> None:
    module = trained(Dcgan(), 10)
    ranges = Ranges(output=(-1.0, 3.0), color="bgr")
    found = _found(dict(module.state_dict()), ranges=ranges)
    assert found is not None
    assert found.ranges == "random numbers in, -1 to 3 out, BGR"
    noise = torch.randn(2, 10)
    expected = ((_images(module, noise[:, :, None, None]) + 1) / 4).flip(1)
    assert torch.allclose(_images(found.module, noise), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "module", "size"),
    [("Repeating", Repeating(12), 12), ("Dcgan", Dcgan(), 10), ("NestedDcgan", NestedDcgan(), 10)],
)
def test_the_users_own_class(name: str, module: nn.Module, size: int) -> None:
    """It may take (N, size) or (N, size, 1, 1), and return [-1, 1] or [0, 1]."""
    trained(module, size)
    weights = {f"netG.{key}": each for key, each in module.state_dict().items()}
    found = _found(weights, arch_file=(f"{_OWN}:{name}",), latent=size)
    assert found is not None
    noise = torch.randn(2, size)
    given = noise if name == "Repeating" else noise[:, :, None, None]
    images = _images(module, given)
    expected = images if name == "NestedDcgan" else (images + 1) / 2
    assert torch.allclose(_images(found.module, noise), expected, atol=1e-6)


def test_the_users_own_class_is_checked() -> None:
    weights = dict(Repeating(12).state_dict())
    own = (f"{_OWN}:Repeating",)
    assert _found(weights, arch_file=own) is None
    with pytest.raises(CheckpointError, match=r"Repeating.* 11 "):
        _found(weights, arch_file=own, latent=11)


def test_generators_that_draw_random_numbers_are_refused() -> None:
    weights = dict(Repeating(12).state_dict())
    with pytest.raises(CheckpointError, match="Noisy"):
        _found(weights, arch_file=(f"{_OWN}:Noisy",), latent=12)
