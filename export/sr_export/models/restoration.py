"""Measure how well a network restores photos, which shows whether it runs as it was trained.

Photos are downscaled, or made noisy or compressed if the network does not upscale, and run through
it. A network in the wrong range restores worse, if only by a tenth of a decibel. Where the user has
an image and the result of their own program, that pair takes the place of the photos.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sr_export import photos
from sr_export.metrics import psnr
from sr_export.models.ranges import enlarged

if TYPE_CHECKING:
    from numpy.typing import NDArray

PHOTOS = 3
MIN_GAIN = 0.05
"""Smaller differences, in decibels, are between choices that fit equally well."""
CLEAR_GAIN = 0.3
"""A gain from here on, in decibels, is no accident: wrong settings never reached it."""
RIVAL = 1.0
"""A choice that is worse by less than this, in decibels, may be the right one."""
RESEMBLANCE = -6.0
"""Below this gain, the output does not resemble the photos."""
SAME_LEVELS = 2
"""Pictures that differ by no more levels of 255 are taken as equal."""
# In levels of 255. Denoisers remove it, other networks pass it on.
_NOISE = 10.0
_JPEG_QUALITY = 30
# The part of a user's image that is compared, and its border, where padding may differ.
EXPECTED_SIDE, _EXPECTED_BORDER = 96, 12
# Two results are the same if all but this share of values differ by so few levels, and by so few on
# average: programs truncate where we round, and convert colors in 8 bits.
_ROUNDING, _DEVIATING, _ROUNDING_MEAN = 4, 0.005, 1.5


def shrunk(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return an (H, W, C) image in another size, by bicubic interpolation."""
    planes = [Image.fromarray(image[..., i]) for i in range(image.shape[2])]
    resized = [plane.resize((width, height), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=2)


@dataclass(frozen=True, eq=False)
class RestorationTask:
    """Degraded photos, and the photos that a network should restore."""

    given: NDArray[np.float32]
    """NCHW, white is 1."""
    originals: NDArray[np.uint8]
    """NHWC."""
    baseline: float
    """PSNR without a network: bicubic interpolation, or the degraded photos; 0 for a result of the
    user's own program."""
    border: int = 0
    """Pixels of the result at its right and bottom that are not compared."""

    def gain(self, output: NDArray[np.float32]) -> float:
        """Return the PSNR of an output (NCHW, white is 1) minus the baseline, in decibels."""
        if output.shape != self.originals.transpose(0, 3, 1, 2).shape:
            return -np.inf
        if not np.isfinite(output).all():
            return -np.inf
        edge = slice(-self.border or None)
        levels = output.transpose(0, 2, 3, 1).clip(0, 1) * 255
        if self.baseline == 0:
            levels = levels.round()
        return _mean_psnr(self.originals[:, edge, edge], levels[:, edge, edge]) - self.baseline

    def upscaled_before(self, factor: int) -> RestorationTask:
        """Return the task for a network that expects the images enlarged."""
        given = enlarged(self.given, factor).clip(0, 1)
        return RestorationTask(given, self.originals, self.baseline, self.border)


@functools.cache
def tasks(
    channels: int, scale: int, size: tuple[int, int], count: int = PHOTOS
) -> tuple[RestorationTask, ...]:
    """Return the tasks that a network with this scale may be trained for.

    Args:
        channels: Number of image channels.
        scale: Ratio of output and input.
        size: (height, width) of its input.
        count: Number of photos.
    """
    height, width = size
    originals = photos.batch(count, height * scale, width * scale, channels)
    if scale > 1:
        given = np.stack([shrunk(image, height, width) for image in originals])
        base = np.stack([shrunk(image, height * scale, width * scale) for image in given])
        return (RestorationTask(photos.as_float(given), originals, _mean_psnr(originals, base)),)
    noise = np.random.default_rng(0).normal(0, _NOISE, originals.shape)
    noisy = (originals + noise).round().clip(0, 255).astype(np.uint8)
    return tuple(
        RestorationTask(photos.as_float(given), originals, _mean_psnr(originals, given))
        for given in (noisy, np.stack([_compressed(image) for image in originals]))
    )


def _compressed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    shape = image.shape
    Image.fromarray(image.squeeze()).save(buffer, "jpeg", quality=_JPEG_QUALITY)
    return np.asarray(Image.open(buffer)).reshape(shape)


@dataclass(frozen=True, eq=False)
class Expected:
    """An image, and the result of the user's own program for it: (H, W, C) of C 1 or 3."""

    given: NDArray[np.uint8]
    result: NDArray[np.uint8]

    @property
    def scale(self) -> int:
        """Ratio of the result's size to the image's; 0 if it is no integer."""
        (height, width), (high, wide) = self.given.shape[:2], self.result.shape[:2]
        scale = high // height
        return scale if (height * scale, width * scale) == (high, wide) else 0

    def difference(self, found: NDArray[np.uint8]) -> Difference:
        """Compare another result for the same image with this one."""
        return difference(_as_channels(found, self.result.shape[2]), self.result)

    def task(self, channels: int, grid: int = 1, side: int = EXPECTED_SIDE) -> RestorationTask:
        """Return the upper left corner of both as a task, for images with this number of channels.

        Args:
            channels: 1 or 3.
            grid: Its sides are multiples of this.
            side: The largest side that is needed, in pixels of the image.
        """
        height, width = self.given.shape[:2]
        sides = [min(each, max(side, grid)) // grid * grid for each in (height, width)]
        boxes = [np.s_[: sides[0] * f, : sides[1] * f] for f in (1, self.scale)]
        images = (self.given, self.result)
        given, result = (
            _as_channels(image[box], channels) for image, box in zip(images, boxes, strict=True)
        )
        whole = (height, width) == tuple(sides)
        border = 0 if whole else min(_EXPECTED_BORDER, min(sides) // 4) * self.scale
        return RestorationTask(photos.as_float(given[None]), result[None], 0.0, border)


def _as_channels(image: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    if image.shape[2] == channels:
        return image
    if channels == 3:
        return image.repeat(3, axis=2)
    return np.asarray(Image.fromarray(image).convert("L"))[..., None]


@dataclass(frozen=True)
class Difference:
    """How far two results are apart, in levels of 255."""

    mean: float
    largest: int
    deviating: float
    """Share of values that differ by more than truncation and 8-bit colors explain."""

    @property
    def same(self) -> bool:
        """Whether the results are the same but for rounding."""
        return self.deviating <= _DEVIATING and self.mean <= _ROUNDING_MEAN

    def __str__(self) -> str:
        return f"{self.mean:.2f} levels of 255 on average, {self.largest} at most"


def difference(found: NDArray[np.uint8], expected: NDArray[np.uint8]) -> Difference:
    """Compare two images of the same shape."""
    levels = np.abs(found.astype(np.int16) - expected)
    return Difference(float(levels.mean()), int(levels.max()), float((levels > _ROUNDING).mean()))


def _mean_psnr(originals: NDArray[np.uint8], images: NDArray[Any]) -> float:
    found = [min(psnr(one, other), 99.0) for one, other in zip(originals, images, strict=True)]
    return float(np.mean(found))
