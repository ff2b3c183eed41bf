"""The INT8 record of a checkpoint: the layers that were trained in INT8, with their scales.

Quantization-aware training saves its thresholds and scales beside the weights, by the weights'
names. The exporter uses them unchanged: no calibration, no rounding optimization, and exactly these
layers compute in INT8. Training only used weights on INT8 levels, so those are the network's
weights in every other precision as well.
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
"""Key of the record at the top level of a checkpoint."""
# The largest number of half precision, in which the other layers compute.
_LARGEST = 65504.0
_NEEDED = {"threshold", "axis", "scales"}


@dataclass(frozen=True, eq=False)
class Trained:
    """The INT8 parameters of one convolution."""

    threshold: float
    """Absolute value at which the input is clipped."""
    axis: int
    """Axis of the weight's output channels: 0, or 1 for a transposed convolution."""
    scales: Tensor
    """Step size of each output channel of the weight."""
    centred: bool = False
    """Whether the input is the image, from which gray is subtracted before rounding."""

    def on_levels(self, weight: Tensor) -> Tensor:
        """Return a weight rounded to its INT8 levels."""
        scales = self.broadcast(weight.ndim)
        return torch.clamp(torch.round(weight / scales), -LEVELS, LEVELS) * scales

    def broadcast(self, axes: int) -> Tensor:
        """Return the scales in a shape that broadcasts over a weight."""
        return self.scales.view([-1 if each == self.axis else 1 for each in range(axes)])


def record(trained: Mapping[str, Trained]) -> dict[str, dict[str, float | bool | Tensor]]:
    """Return the record to save under `KEY`: plain containers by the names of weights."""
    return {
        name: {
            "threshold": each.threshold,
            "axis": each.axis,
            "scales": each.scales,
            "centred": each.centred,
        }
        for name, each in trained.items()
    }


def read(found: object, tensors: Mapping[str, Tensor]) -> dict[str, Trained]:
    """Return the INT8 parameters of a checkpoint by weight name.

    Args:
        found: The unpickled value under `KEY`.
        tensors: The weights selected from the checkpoint.

    Raises:
        CheckpointError: The record is malformed, or does not fit these weights.
    """
    if not isinstance(found, Mapping) or not found:
        raise CheckpointError(
            f"{KEY!r} is {_shown(found)}; expected one entry for each weight trained in INT8 "
            "(without this key, INT8 is calibrated)"
        )
    return {name: _entry(name, each, tensors) for name, each in found.items()}


def _entry(name: object, entry: object, tensors: Mapping[str, Tensor]) -> Trained:
    if not isinstance(name, str) or name not in tensors:
        raise CheckpointError(
            f"{KEY!r} names {_shown(name)}, which is not among the {len(tensors)} selected "
            "weights; save both under the same names"
        )
    if tensors[name].ndim != 4 or not tensors[name].is_floating_point():
        raise CheckpointError(f"{KEY!r} names {name!r}, which is not the weight of a convolution")
    if not isinstance(entry, Mapping) or entry.keys() - {"centred"} != _NEEDED:
        raise CheckpointError(
            f"{KEY!r} has {_shown(entry)} for {name!r}; expected threshold, axis and scales"
        )
    threshold, axis, centred = entry["threshold"], entry["axis"], entry.get("centred", False)
    if type(threshold) not in (int, float) or not 0 < threshold <= _LARGEST:
        raise CheckpointError(
            f"{KEY!r} has the threshold {_shown(threshold)} for {name!r}; a number above 0 and up "
            f"to {_LARGEST:g} is allowed"
        )
    if type(axis) is not int or axis not in (0, 1):
        raise CheckpointError(f"{KEY!r} has the axis {_shown(axis)} for {name!r}; allowed: 0, 1")
    if type(centred) is not bool:
        raise CheckpointError(
            f"{KEY!r} has centred={_shown(centred)} for {name!r}; allowed: True, False"
        )
    if centred and threshold < IMAGE_THRESHOLD:
        raise CheckpointError(
            f"{KEY!r} clips the image, the input of {name!r}, at {threshold:g} from gray; its 256 "
            f"levels need {IMAGE_THRESHOLD:.8g}"
        )
    scales = _scales(name, entry["scales"], tensors[name].shape[axis])
    return Trained(float(threshold), axis, scales, centred)


def _scales(name: str, scales: object, channels: int) -> Tensor:
    """Return the scales of an entry rounded to half precision."""
    if not isinstance(scales, torch.Tensor) or scales.shape != (channels,):
        raise CheckpointError(
            f"{KEY!r} has {_shown(scales)} as the scales of {name!r}; expected a tensor of "
            f"{channels} numbers, one for each output channel"
        )
    half = scales.detach().cpu().to(torch.float16).to(torch.float32)
    if not bool((half >= SMALLEST_SCALE).all()) or not bool(half.isfinite().all()):
        raise CheckpointError(
            f"{KEY!r} has scales for {name!r} that half precision cannot represent; allowed: "
            f"{SMALLEST_SCALE:g} to {_LARGEST:g}"
        )
    return half


def on_levels(tensors: Mapping[str, Tensor], trained: Mapping[str, Trained]) -> dict[str, Tensor]:
    """Return weights with the trained ones rounded to their INT8 levels."""
    rounded = {name: each.on_levels(tensors[name]) for name, each in trained.items()}
    return {**tensors, **rounded}


def _shown(value: object) -> str:
    """Describe a value of an untrusted file in a few words."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {tuple(value.shape)}"
    return repr(value)[:60] if isinstance(value, (str, int, float)) else f"a {type(value).__name__}"
