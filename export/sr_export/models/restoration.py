"""Measure how well a network restores photos, which shows whether it runs as it was trained.

Photos are downscaled, or made noisy if the network does not upscale, and run through it. A network
in the wrong range restores worse, if only by a tenth of a decibel.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sr_export import photos
from sr_export.metrics import psnr
from sr_export.models.ranges import BYTES, SIGNED, UNIT, Ranges

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

PHOTOS = 3
MIN_GAIN = 0.05
"""Smaller differences, in decibels, are between choices that fit equally well."""
# In levels of 255. Denoisers remove it, other networks pass it on.
_NOISE = 10.0
# Below this PSNR, the output does not resemble the photo in any range: untrained weights.
_RESEMBLANCE = 15.0
# Distance from gray that the darkest and brightest outputs of a tanh reach.
_TANH_EXTREMES = 0.8


def shrunk(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return an (H, W, C) image in another size, by bicubic interpolation."""
    planes = [Image.fromarray(image[..., i]) for i in range(image.shape[2])]
    resized = [plane.resize((width, height), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=2)


@dataclass(frozen=True)
class RestorationTask:
    """Degraded photos, and the photos that a network should restore."""

    given: NDArray[np.float32]
    """NCHW, white is 1."""
    originals: NDArray[np.uint8]
    """NHWC."""
    baseline: float
    """PSNR without a network: bicubic interpolation, or the noisy photos."""

    def gain(self, output: NDArray[np.float32]) -> float:
        """Return the PSNR of an output (NCHW, white is 1) minus the baseline, in decibels."""
        if not np.isfinite(output).all():
            return -np.inf
        levels = output.transpose(0, 2, 3, 1).clip(0, 1) * 255
        return _mean_psnr(self.originals, levels) - self.baseline


@functools.cache
def task(channels: int, scale: int, side: int) -> RestorationTask:
    """Return the task for a network with this scale; `side` is the size of its input."""
    originals = photos.batch(PHOTOS, side * scale, side * scale, channels)
    if scale > 1:
        given = np.stack([shrunk(image, side, side) for image in originals])
        baseline = np.stack([shrunk(image, side * scale, side * scale) for image in given])
    else:
        noise = np.random.default_rng(0).normal(0, _NOISE, originals.shape)
        given = baseline = (originals + noise).round().clip(0, 255).astype(np.uint8)
    return RestorationTask(photos.as_float(given), originals, _mean_psnr(originals, baseline))


def _mean_psnr(originals: NDArray[np.uint8], images: NDArray[Any]) -> float:
    return float(np.mean([psnr(one, other) for one, other in zip(originals, images, strict=True)]))


def infer_ranges(run: Run, channels: int, scale: int, size: tuple[int, int]) -> Ranges:
    """Return the input and output ranges in which a network restores photos best.

    Networks that are untrained, or that do not restore, have no best range. They get [0, 1], or
    [-1, 1] if the output shows that the network ends in tanh.

    Args:
        run: the network on its own values, NCHW float32.
        channels: number of image channels.
        scale: scale of the network.
        size: a (height, width) that it accepts.
    """
    height, width = size
    originals = photos.batch(3, height * scale, width * scale, channels)
    small = np.stack([shrunk(image, height, width) for image in originals])
    given = photos.as_float(small)
    found = {}
    for before, after in itertools.product((UNIT, SIGNED, BYTES), repeat=2):
        ranged = Ranges(input=before, output=after).around(run)
        found[before, after] = _restoration(ranged, given, originals)
    best = max(found, key=lambda pair: found[pair])
    if found[best] < _RESEMBLANCE and _ends_in_tanh(run, given):
        return Ranges(input=SIGNED, output=SIGNED)
    if found[best] < _RESEMBLANCE or found[best] - found[UNIT, UNIT] < MIN_GAIN:
        return Ranges()
    return Ranges(input=best[0], output=best[1])


def _ends_in_tanh(run: Run, images: NDArray[np.float32]) -> bool:
    """Return whether outputs nearly reach -1 and 1, and never exceed them."""
    outputs = [run(2 * image[None] - 1) for image in images]
    low, high = min(map(np.min, outputs)), max(map(np.max, outputs))
    return bool(-1 <= low < -_TANH_EXTREMES and _TANH_EXTREMES < high <= 1)


def _restoration(run: Run, given: NDArray[np.float32], originals: NDArray[np.uint8]) -> float:
    """Return the mean PSNR of restored photos, each run separately."""
    found = []
    for i, original in enumerate(originals):
        output = run(given[i : i + 1])[0].transpose(1, 2, 0)
        if not np.isfinite(output).all():
            return -np.inf
        found.append(psnr(original.astype(np.float32), output.clip(0, 1) * 255))
    return float(np.mean(found))
