"""Generators of images from random numbers: DCGANs by their weights, or the user's own module.

The order and shapes of a DCGAN's weights determine everything except the activations. The first
transposed convolution makes an image of its kernel's size from one pixel; each further one doubles
the size.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.checkpoint.state_dict import strippings
from sr_export.models.custom import load_module, parse_arguments
from sr_export.models.layer_chain import MismatchError, layers_of, orders
from sr_export.models.named_layers import NamedLayers
from sr_export.models.network import FAILURES
from sr_export.models.plain_network import slope
from sr_export.models.ranges import SIGNED, UNIT, Ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

DCGAN = "DCGAN"
_FINAL: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}
_DEFAULTS = {"activation": "relu", "final": "tanh"}
_CHOICES = {"activation": ("relu", "leaky0.2"), "final": tuple(_FINAL)}
# Fewer transposed convolutions could be anything.
_MIN_KERNELS = 3
# Number of images from which the value range of a generator is seen.
_SAMPLES = 16
_IMAGE_CHANNELS = (1, 3)


@dataclass(frozen=True)
class Generator:
    """A module in eval mode: float32 (N, size) in, NCHW in [0, 1] out."""

    module: nn.Module
    architecture: str
    size: int
    """Number of random numbers for one image."""
    channels: Literal[1, 3]
    height: int
    width: int
    ranges: str
    """Values at the input and output of the original network, for the user."""
    how: str = ""
    """Settings that were assumed, for the user."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(each.numel() for each in self.module.parameters())


def find(
    tensors: dict[str, Tensor],
    *,
    architecture: str | None = None,
    arch_file: tuple[str, ...] = (),
    latent: int | None = None,
    ranges: Ranges | None = None,
) -> Generator | None:
    """Return the generator that has these weights, or None if the network takes images.

    The arguments are those of the command line.

    Raises:
        CheckpointError: the weights do not belong to the generator that the user named.
        InvalidInputError: an option does not apply to generators.
    """
    if arch_file:
        return None if latent is None else _custom(tensors, arch_file, ranges, latent)
    if latent is not None:
        raise InvalidInputError("--latent requires --arch-file FILE.py:CLASS")
    name, _, pairs = (architecture or "").partition(" ")
    if name not in ("", DCGAN):
        return None
    # All kernels of a DCGAN are even, except possibly the first.
    odd = sum(each.shape[-1] % 2 for each in tensors.values() if each.ndim == 4)
    if not name and odd > 1:
        return None
    given = parse_arguments(DCGAN, pairs.split())
    for key, value in given.items():
        leaky = key == "activation" and slope(value) is not None
        if not leaky and value not in _CHOICES.get(key, ()):
            allowed = ", ".join(f"{known}={'|'.join(each)}" for known, each in _CHOICES.items())
            raise InvalidInputError(f"{DCGAN}: {key}={value} is not allowed; allowed: {allowed}")
    settings = _DEFAULTS | given
    try:
        module, size = _dcgan(tensors, settings["activation"], settings["final"])
    except MismatchError as error:
        if name:
            raise CheckpointError(f"the weights do not belong to a {name}: it {error}") from error
        return None
    assumed = ", ".join(f"{key}={value}" for key, value in settings.items() if key not in given)
    how = f"WARNING: assumed defaults for what weights do not determine: {assumed}"
    usual = Ranges(output=SIGNED if settings["final"] == "tanh" else UNIT)
    return _measured(module, DCGAN, size, ranges or usual, how if assumed else "")


def of_module(module: nn.Module, name: str, size: int, ranges: Ranges | None) -> Generator:
    """Return the generator of a module whose input is random numbers (N, size)."""
    usual = Ranges(output=SIGNED if float(_sample(module, size).min()) < 0 else UNIT)
    return _measured(module, name, size, ranges or usual)


def _dcgan(tensors: Mapping[str, Tensor], activation: str, final: str) -> tuple[nn.Sequential, int]:
    """Return the DCGAN generator that has these weights, and its number of random numbers.

    Args:
        tensors: the weights, in the order in which the program registered them.
        activation: between the layers: relu, or leaky with its slope, such as leaky0.2.
        final: last activation, a key of _FINAL.

    Raises:
        MismatchError: the weights belong to another network.
    """
    mismatches: list[MismatchError] = []
    for order in orders(tensors):
        try:
            kernels, parts = _read_dcgan(order, activation)
        except MismatchError as error:
            mismatches.append(error)
            continue
        size = kernels[0].in_channels
        module = nn.Sequential(nn.Unflatten(1, (size, 1, 1)), *parts, _FINAL[final]())
        return module.eval(), size
    raise mismatches[0]


def _read_dcgan(
    tensors: Mapping[str, Tensor], activation: str
) -> tuple[list[nn.ConvTranspose2d], list[nn.Module]]:
    """Return the transposed convolutions, and all layers up to the last one of them."""
    named = NamedLayers(tensors)
    leak = slope(activation)
    parts: list[nn.Module] = []
    kernels: list[nn.ConvTranspose2d] = []
    try:
        for layer in layers_of(tensors):
            if layer.kind == "kernel":
                if parts:
                    parts.append(nn.ReLU() if leak is None else nn.LeakyReLU(leak))
                kernels.append(named.transposed(layer.name, 2 if kernels else 1))
                parts.append(kernels[-1])
            elif layer.kind == "norm" and kernels:
                parts.append(named.batch_norm(layer.name, kernels[-1].out_channels))
            else:
                raise MismatchError(f"has {layer.name!r}, a layer that DCGANs do not have")
    except (RuntimeError, ValueError) as error:  # shapes that do not fit each other
        raise MismatchError(" ".join(str(error).split())[:200]) from error
    if len(kernels) < _MIN_KERNELS or not isinstance(parts[-1], nn.ConvTranspose2d):
        raise MismatchError(f"has fewer than {_MIN_KERNELS} convolutions, or does not end in one")
    # Encoders and discriminators have similar weights, but the channels of their layers do not fit.
    for before, each in itertools.pairwise(kernels):
        if each.in_channels != before.out_channels or each.kernel_size[0] % 2:
            raise MismatchError(
                f"has a kernel of {each.kernel_size[0]}x{each.kernel_size[0]} for "
                f"{each.in_channels} channels behind a layer with {before.out_channels}"
            )
    inputs, outputs = kernels[0].in_channels, kernels[-1].out_channels
    if inputs in _IMAGE_CHANNELS or outputs not in _IMAGE_CHANNELS:
        raise MismatchError(f"has {inputs} input and {outputs} output channels")
    return kernels, parts


def _custom(
    tensors: dict[str, Tensor], arch_file: tuple[str, ...], ranges: Ranges | None, size: int
) -> Generator:
    """Return the generator of --arch-file, whether it takes (N, size) or (N, size, 1, 1)."""
    name, own = load_module(arch_file, strippings(tensors))
    failure = ""
    for module in (nn.Sequential(nn.Unflatten(1, (size, 1, 1)), own), own):
        try:
            images = _sample(module, size)
        except FAILURES as error:
            failure = failure or " ".join(str(error).split())[:200]
            continue
        usual = Ranges(output=SIGNED if float(images.min()) < 0 else UNIT)
        return _measured(module, name, size, ranges or usual)
    raise CheckpointError(f"{name}: generates no images from {size} random numbers: {failure}")


def _measured(module: nn.Module, name: str, size: int, ranges: Ranges, how: str = "") -> Generator:
    """Return a generator with its channels and image size, measured by running it."""
    if replace(ranges, output=UNIT, color="rgb") != Ranges():
        raise InvalidInputError(
            f"{name}: the input is random numbers, so --input-range, --mean and --std do not "
            "apply; allowed: --output-range, --color bgr"
        )
    images = _sample(module, size)
    if not torch.equal(images, _sample(module, size)):
        raise CheckpointError(
            f"{name}: the same input results in different images; the module draws random numbers "
            "itself, so an export could not be verified"
        )
    channels: Literal[1, 3] = 1 if images.shape[1] == 1 else 3
    height, width = images.shape[2:]
    text = "random numbers in, {:g} to {:g} out".format(*ranges.output)
    text += ", BGR" if ranges.color == "bgr" else ""
    return Generator(_UnitOutput(module, ranges), name, size, channels, height, width, text, how)


def _sample(module: nn.Module, size: int) -> Tensor:
    """Return the images for fixed random numbers.

    Raises:
        ValueError: the output is not a batch of images.
    """
    noise = torch.randn(_SAMPLES, size, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        images = module(noise)
    is_tensor = isinstance(images, torch.Tensor)
    if not is_tensor or images.ndim != 4 or images.shape[1] not in _IMAGE_CHANNELS:
        found = tuple(images.shape) if is_tensor else type(images).__name__
        raise ValueError(f"returns {found}, expected (N, 1 or 3, height, width)")
    return images


class _UnitOutput(nn.Module):
    """A generator whose images are RGB in [0, 1]."""

    def __init__(self, module: nn.Module, ranges: Ranges) -> None:
        super().__init__()
        self.module = module
        self._bgr = ranges.color == "bgr"
        scale, shift = ranges.output_map()
        self._scale, self._shift = float(scale.item()), float(shift.item())

    def forward(self, noise: Tensor) -> Tensor:
        images = self.module(noise) * self._scale + self._shift
        return images.flip(1) if self._bgr else images
