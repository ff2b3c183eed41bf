"""INT8 that a network was trained for: the checkpoint says which layers, and where they clip.

A training that simulates INT8 keeps what it computed with beside the weights, by the names of
these. All of it is taken as it is: nothing is calibrated, no weight is fitted, and exactly those
layers compute in INT8 that did so in training. Training only ever saw their weights on the levels
of INT8, so that these are the network's weights in every other precision, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from sr_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 127  # symmetric: -128 is not used
# Half precision's smallest normal number; below it, runtimes take a scale for zero.
SMALLEST_SCALE = 2.0**-14
# The last level of a centered image, whose levels are those of 8-bit frames in half precision; a
# little less, so that rounding up to half precision does not pass it.
IMAGE_THRESHOLD = float(LEVELS * np.float32(np.float16(1 / 255))) * (1 - 1e-6)
"""Where a centered image is clipped: at its last level, which clips nothing."""
KEY = "int8"
"""Of the record, at the top of a checkpoint."""
# More than half precision holds, in which all that is not INT8 computes.
_LARGEST = 65504.0
_NEEDED = {"threshold", "axis", "scales"}


@dataclass(frozen=True, eq=False)
class Trained:
    """How one convolution computed in INT8."""

    threshold: float
    """The absolute value at which its input is clipped."""
    axis: int
    """That of the weight's output channels: 0, of a transposed convolution 1."""
    scales: Tensor
    """The size of a level of each output channel of the weight."""
    centred: bool = False
    """Whether its input is the image, of which grey is taken away before it is rounded."""

    def on_levels(self, weight: Tensor) -> Tensor:
        """Return a weight as INT8 has it."""
        scales = self.broadcast(weight.ndim)
        return torch.clamp(torch.round(weight / scales), -LEVELS, LEVELS) * scales

    def broadcast(self, axes: int) -> Tensor:
        """Return the scales with the axes of a weight."""
        return self.scales.view([-1 if each == self.axis else 1 for each in range(axes)])


def record(trained: Mapping[str, Trained]) -> dict[str, dict[str, float | bool | Tensor]]:
    """Return what a checkpoint holds under `KEY`, by the names of weights: plain containers."""
    return {
        name: {
            "threshold": each.threshold,
            "axis": each.axis,
            "scales": each.scales,
            "centred": each.centred,
        }
        for name, each in trained.items()
    }


def read(content: object, tensors: Mapping[str, Tensor]) -> dict[str, Trained]:
    """Return how a checkpoint's weights were trained, by their names; empty where it does not say.

    Args:
        content: What the file holds.
        tensors: The network's weights, which were taken of it.

    Raises:
        CheckpointError: What is there is no record of these weights.
    """
    if not isinstance(content, Mapping) or KEY not in content:
        return {}
    found = content[KEY]
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(
            f"{KEY!r} holds {_shown(found)}, where there should be a record of each weight that "
            "was trained in INT8; a checkpoint without it has INT8 calibrated"
        )
    return {name: _entry(name, each, tensors) for name, each in found.items()}


def _entry(name: object, entry: object, tensors: Mapping[str, Tensor]) -> Trained:
    if not isinstance(name, str) or name not in tensors:
        raise CheckpointError(
            f"{KEY!r} names {_shown(name)}, which is not among the {len(tensors)} weights that "
            "were taken; save both under the same names"
        )
    if tensors[name].ndim != 4 or not tensors[name].is_floating_point():
        raise CheckpointError(f"{KEY!r} names {name!r}, which is not the weight of a convolution")
    if not isinstance(entry, Mapping) or entry.keys() - {"centred"} != _NEEDED:
        raise CheckpointError(
            f"{KEY!r} holds {_shown(entry)} for {name!r}, where there should be a threshold, an "
            "axis and scales"
        )
    threshold, axis, centred = entry["threshold"], entry["axis"], entry.get("centred", False)
    if type(threshold) not in (int, float) or not 0 < threshold <= _LARGEST:
        raise CheckpointError(
            f"{KEY!r} has the threshold {_shown(threshold)} for {name!r}; it is a number above 0, "
            f"and {_LARGEST:g} at most"
        )
    if type(axis) is not int or axis not in (0, 1):
        raise CheckpointError(f"{KEY!r} has the axis {_shown(axis)} for {name!r}; it is 0 or 1")
    if type(centred) is not bool:
        raise CheckpointError(
            f"{KEY!r} says of {name!r} that centred is {_shown(centred)}; it is True or False"
        )
    if centred and threshold < IMAGE_THRESHOLD:
        raise CheckpointError(
            f"{KEY!r} clips the image, which {name!r} reads, at {threshold:g} from grey; all of "
            f"its levels need {IMAGE_THRESHOLD:.8g}"
        )
    scales = _scales(name, entry["scales"], tensors[name].shape[axis])
    return Trained(float(threshold), axis, scales, centred)


def _scales(name: str, scales: object, channels: int) -> Tensor:
    """Return the scales of a record as half precision has them, or refuse them."""
    if not isinstance(scales, torch.Tensor) or scales.shape != (channels,):
        raise CheckpointError(
            f"{KEY!r} has {_shown(scales)} as the scales of {name!r}, where there should be a "
            f"tensor of {channels} numbers, one of each output channel"
        )
    half = scales.detach().cpu().to(torch.float16).to(torch.float32)
    if not bool((half >= SMALLEST_SCALE).all()) or not bool(half.isfinite().all()):
        raise CheckpointError(
            f"{KEY!r} has scales for {name!r} that half precision does not hold; they lie between "
            f"{SMALLEST_SCALE:g} and {_LARGEST:g}"
        )
    return half


def on_levels(tensors: Mapping[str, Tensor], trained: Mapping[str, Trained]) -> dict[str, Tensor]:
    """Return weights as INT8 has them; all others stay."""
    held = {name: each.on_levels(tensors[name]) for name, each in trained.items()}
    return {**tensors, **held}


def _shown(value: object) -> str:
    """Return what a stranger's file holds, at a length that fits into a line."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {tuple(value.shape)}"
    return repr(value)[:60] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
