"""Networks that make images out of random numbers: recognised, or the user's own."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.checkpoint import state_dict
from sr_export.models import MismatchError, custom, latent_network
from sr_export.models.arch_settings import SIGNED, slope
from sr_export.models.network import arguments
from sr_export.models.ranges import UNIT, Ranges

if TYPE_CHECKING:
    from torch import Tensor

_USUAL = {"activation": "relu", "final": "tanh"}
_CHOICES = {"activation": ("relu", "leaky0.2"), "final": latent_network.FINAL}
# Images to see a generator's range by.
_LOOKED_AT = 16
_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Generator:
    """A module in evaluation mode: float32 (N, size) in, NCHW in [0, 1] out."""

    module: nn.Module
    architecture: str
    size: int
    """How many numbers make an image."""
    channels: Literal[1, 3]
    height: int
    width: int
    ranges: str
    """The values that the network itself takes and gives, in words."""
    how: str = ""
    """What its weights do not tell, and what was taken, in words."""

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(each.numel() for each in self.module.parameters())


def find(
    tensors: dict[str, Tensor],
    *,
    architecture: str | None = None,
    arch_file: tuple[str, ...] = (),
    latent: int | None = None,
    ranges: Ranges | None = None,
) -> Generator | None:
    """Return the generator that weights are of; None: they are of a network that takes images.

    Raises:
        CheckpointError: they are not of the generator that the user names.
        InvalidInputError: an option does not fit a generator.
    """
    if arch_file:
        return None if latent is None else _own(tensors, arch_file, ranges, latent)
    if latent is not None:
        raise InvalidInputError("--latent goes with --arch-file FILE.py:CLASS")
    name, _, pairs = (architecture or "").partition(" ")
    if name not in ("", latent_network.NAME):
        return None
    given = _checked(arguments(latent_network.NAME, pairs.split()))
    taken = _USUAL | given
    try:
        module, size = latent_network.generator(tensors, taken["activation"], taken["final"])
    except MismatchError as error:
        if name:
            raise CheckpointError(f"the weights are not those of {name}: it {error}") from error
        return None
    untold = ", ".join(f"{key}={value}" for key, value in taken.items() if key not in given)
    how = f"weights do not tell activations, so the usual were taken: {untold}" if untold else ""
    usual = Ranges(output=SIGNED if taken["final"] == "tanh" else UNIT)
    return _made(module, latent_network.NAME, size, ranges or usual, how)


def _checked(given: dict[str, str]) -> dict[str, str]:
    """Return what the user knows of a generator.

    Raises:
        InvalidInputError: it is nothing that can be said of one.
    """
    for key, value in given.items():
        leaky = key == "activation" and slope(value) is not None
        if not leaky and value not in _CHOICES.get(key, ()):
            choices = ", ".join(f"{name}={'|'.join(each)}" for name, each in _CHOICES.items())
            raise InvalidInputError(f"{latent_network.NAME}: {key}={value} is none of {choices}")
    return given


def _own(
    tensors: dict[str, Tensor], arch_file: tuple[str, ...], ranges: Ranges | None, size: int
) -> Generator:
    """Return the generator that a class of the user's own makes."""
    source, *pairs = arch_file
    path, _, name = source.rpartition(":")
    given = arguments(name, pairs)
    own = custom.loaded(Path(path), name, state_dict.strippings(tensors), given)
    failure = ""
    for module in (nn.Sequential(nn.Unflatten(1, (size, 1, 1)), own), own):
        try:
            images = _images(module, size)
        except custom.FAILURES as error:
            failure = failure or " ".join(str(error).split())[:200]
            continue
        usual = Ranges(output=SIGNED if float(images.min()) < 0 else UNIT)
        return _made(module, name, size, ranges or usual)
    raise CheckpointError(f"{name}: makes no images of {size} random numbers: {failure}")


def _made(module: nn.Module, name: str, size: int, ranges: Ranges, how: str = "") -> Generator:
    if replace(ranges, output=UNIT, bgr=False) != Ranges():
        raise InvalidInputError(
            f"{name} takes random numbers, so that there is no range, mean or std of an input; "
            "--output-range and --bgr say what it gives"
        )
    images = _images(module, size)
    if not torch.equal(images, _images(module, size)):
        raise CheckpointError(
            f"{name} makes another image of the same numbers each time: it draws random numbers "
            "of its own, so that nothing could be verified"
        )
    channels: Literal[1, 3] = 1 if images.shape[1] == 1 else 3
    height, width = images.shape[2:]
    text = "random numbers in, {:g} to {:g} out".format(*ranges.output)
    text += ", BGR" if ranges.bgr else ""
    return Generator(_Imaging(module, ranges), name, size, channels, height, width, text, how)


def _images(module: nn.Module, size: int) -> Tensor:
    """Return what a module makes of numbers, always the same ones.

    Raises:
        ValueError: it is no batch of images.
    """
    noise = torch.randn(_LOOKED_AT, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        images = module(noise)
    if not isinstance(images, torch.Tensor) or images.ndim != 4 or images.shape[1] not in _CHANNELS:
        found = tuple(images.shape) if isinstance(images, torch.Tensor) else type(images).__name__
        raise ValueError(f"it gives {found}, not (N, 1 or 3, height, width)")
    return images


class _Imaging(nn.Module):
    """A generator whose images are RGB in [0, 1]."""

    def __init__(self, module: nn.Module, ranges: Ranges) -> None:
        super().__init__()
        self.module = module
        self._bgr = ranges.bgr
        scale, shift = ranges.output_map()
        self._scale, self._shift = float(scale.item()), float(shift.item())

    def forward(self, noise: Tensor) -> Tensor:
        images = self.module(noise) * self._scale + self._shift
        return images.flip(1) if self._bgr else images
