"""Architectures that are recognized by the names of their tensors, and built from them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from sr_deploy.errors import InvalidInputError
from sr_export.models import restoration
from sr_export.models.named_layers import NamedLayers
from sr_export.models.spandrel_import import (
    ArchId,
    Architecture,
    ImageModelDescriptor,
    KeyCondition,
    SizeRequirements,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from sr_export.models.ranges import Ranges

# Side of photos by which settings are tested, and the gain from which the output resembles them.
_PHOTO_SIDE, _RESEMBLANCE = 48, -6.0
# Reflection padding needs images of at least this size.
_MIN_SIDE = 8


@dataclass(frozen=True)
class BuiltNetwork:
    """A module and its properties."""

    module: nn.Module
    inputs: int
    """Number of input channels."""
    outputs: int
    """Number of output channels."""
    scale: int = 1
    grid: int = 1
    """Image sides must be multiples of this."""
    minimum: int = 1
    """Smallest image side."""


class NamedArch(Architecture[nn.Module]):
    """An architecture with fixed tensor names, for spandrel's registry.

    Args:
        name: Its identifier.
        detect: The names that identify it, or a function of the state dict.
        build: Builds the module from weights.
        ranges: Its pixel values; None: its training programs differ.
        before: Architectures of spandrel that would take the same weights.
    """

    def __init__(
        self,
        name: str,
        detect: KeyCondition | Callable[[Mapping[str, Tensor]], bool],
        build: Callable[[NamedLayers], BuiltNetwork],
        ranges: Ranges | None,
        before: Sequence[str] = (),
    ) -> None:
        super().__init__(id=name, detect=detect)
        self._build = build
        self.ranges = ranges
        self.before = tuple(map(ArchId, before))

    def load(self, state_dict: Mapping[str, Tensor]) -> ImageModelDescriptor[nn.Module]:
        """Build the network that has these weights.

        Raises:
            ValueError, RuntimeError: tensors are missing, unused, or do not fit each other.
        """
        return self.load_with(state_dict, {})[0]

    def load_with(
        self, state_dict: Mapping[str, Tensor], settings: Mapping[str, str]
    ) -> tuple[ImageModelDescriptor[nn.Module], str, str]:
        """Build the network that has these weights and the user's settings.

        Returns:
            The network, how other settings were inferred, and what was assumed, for the user.

        Raises:
            ValueError, RuntimeError: tensors are missing, unused, or do not fit each other.
            InvalidInputError: a setting is unknown or has a wrong value.
        """
        built, named = self._built(state_dict, settings)
        how = ""
        if named.testable:
            name, values = named.testable
            trials = [self._built(state_dict, {**settings, name: each})[0] for each in values]
            gains = [_gain(each) for each in trials]
            best = max(range(len(trials)), key=lambda i: gains[i])
            if gains[best] > _RESEMBLANCE:
                built, how = trials[best], f"inferred from photos: {name}={values[best]}"
        if how or not named.assumed:
            return self._descriptor(built), how, ""
        option = f"--arch {self.id} {named.assumed} with another value changes it"
        return self._descriptor(built), "", f"{named.assumed}; {option}"

    def _built(
        self, state_dict: Mapping[str, Tensor], settings: Mapping[str, str]
    ) -> tuple[BuiltNetwork, NamedLayers]:
        named = NamedLayers(state_dict, settings)
        built = self._build(named)
        named.require_all_used()
        if named.unknown_settings:
            raise InvalidInputError(
                f"{self.id}: unknown setting {', '.join(sorted(named.unknown_settings))}; allowed "
                f"with these weights: {', '.join(sorted(named.known_settings)) or 'nothing'}"
            )
        module = built.module.eval()
        side = 2 * max(built.grid, -(-max(_MIN_SIDE, built.minimum) // built.grid) * built.grid)
        with torch.inference_mode():
            module(torch.zeros(1, built.inputs, side, side))  # do the layers fit each other?
        return built, named

    def _descriptor(self, built: BuiltNetwork) -> ImageModelDescriptor[nn.Module]:
        return ImageModelDescriptor(
            built.module,
            built.module.state_dict(),
            architecture=self,
            purpose="SR" if built.scale > 1 else "Restoration",
            tags=[],
            supports_half=True,
            supports_bfloat16=True,
            scale=built.scale,
            input_channels=built.inputs,
            output_channels=built.outputs,
            size_requirements=SizeRequirements(
                minimum=max(built.grid, built.minimum), multiple_of=built.grid
            ),
        )


def _gain(built: BuiltNetwork) -> float:
    """Return by how many decibels a network on [0, 1] restores photos better than interpolation."""
    (task, *_) = restoration.tasks(built.inputs, built.scale, (_PHOTO_SIDE, _PHOTO_SIDE))
    with torch.inference_mode():
        return task.gain(built.module(torch.from_numpy(task.given)).numpy())
