"""Generators that make images out of random numbers, by transposed convolutions: DCGAN and others.

As with plain networks, the order and the shapes of the weights tell all but the activations. The
first kernel makes an image of its own size out of one pixel; each of the others doubles it.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from torch import nn

from sr_export.models.arch_settings import slope
from sr_export.models.layer_order import orders
from sr_export.models.layers import MismatchError, layers_of
from sr_export.models.named import Named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

NAME = "DCGAN"
# The least that is taken for a generator: fewer kernels could be anything.
_FEWEST = 3
_FINAL: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "none": nn.Identity,
}
FINAL = tuple(_FINAL)
_IMAGES = (1, 3)
"""Channels of images."""


def generator(
    tensors: Mapping[str, Tensor], activation: str = "relu", final: str = "tanh"
) -> tuple[nn.Sequential, int]:
    """Return the generator that has these weights, and how many numbers it takes, (N, size).

    Args:
        tensors: The weights, in the order in which their program made them.
        activation: Between the layers: relu, or leaky with its slope, as leaky0.2.
        final: Behind the last one, of FINAL.

    Raises:
        MismatchError: they are not of such a generator; the text says why.
    """
    misfits: list[MismatchError] = []
    for order in orders(tensors):
        try:
            return _read(order, activation, final)
        except MismatchError as error:
            misfits.append(error)
    raise misfits[0]


def _read(tensors: Mapping[str, Tensor], activation: str, final: str) -> tuple[nn.Sequential, int]:
    named = Named(tensors)
    parts: list[nn.Module] = []
    kernels: list[nn.ConvTranspose2d] = []
    try:
        for layer in layers_of(tensors):
            if layer.kind == "kernel":
                parts += [_activation(activation)] if parts else []
                kernels.append(named.enlarging(layer.name, 2 if kernels else 1))
                parts.append(kernels[-1])
            elif layer.kind == "norm" and kernels:
                parts.append(named.batch_norm(layer.name, kernels[-1].out_channels))
            else:
                raise MismatchError(f"has {layer.name!r}, which is of no layer of such generators")
    except (RuntimeError, ValueError) as error:  # shapes that do not fit each other
        raise MismatchError(" ".join(str(error).split())[:200]) from error
    _check(kernels, parts)
    size = kernels[0].in_channels
    module = nn.Sequential(nn.Unflatten(1, (size, 1, 1)), *parts, _FINAL[final]())
    return module.eval(), size


def _check(kernels: list[nn.ConvTranspose2d], parts: list[nn.Module]) -> None:
    """Refuse what makes no image, or would be something else: an encoder, a discriminator."""
    if len(kernels) < _FEWEST or not isinstance(parts[-1], nn.ConvTranspose2d):
        raise MismatchError(f"has fewer than {_FEWEST} convolutions, or does not end in one")
    for before, each in itertools.pairwise(kernels):
        if each.in_channels != before.out_channels or each.kernel_size[0] % 2:
            raise MismatchError(
                f"has a kernel of {each.kernel_size[0]}x{each.kernel_size[0]} that takes "
                f"{each.in_channels} channels, where {before.out_channels} come"
            )
    taken, given = kernels[0].in_channels, kernels[-1].out_channels
    if taken in _IMAGES or given not in _IMAGES:
        raise MismatchError(f"takes {taken} channels and gives {given}")


def _activation(name: str) -> nn.Module:
    leak = slope(name)
    return nn.ReLU() if leak is None else nn.LeakyReLU(leak)
