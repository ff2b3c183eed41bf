"""How well a network restores photos, which tells whether it is run as it was trained.

Photos are made small, or noisy where a network does not enlarge, and given to the network.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sr_export import photos
from sr_export.metrics import psnr

if TYPE_CHECKING:
    from numpy.typing import NDArray

PHOTOS = 3
# In levels of 255. A denoiser takes it away, and what is no denoiser passes it on.
_NOISE = 10.0


def shrunk(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return an image (HWC) in another size, by bicubic interpolation."""
    planes = [Image.fromarray(image[..., i]) for i in range(image.shape[2])]
    resized = [plane.resize((width, height), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=2)


@dataclass(frozen=True)
class RestorationTask:
    """What a network gets, and what it should make of it."""

    given: NDArray[np.float32]
    """NCHW, white is 1."""
    originals: NDArray[np.uint8]
    """NHWC."""
    plain: float
    """PSNR of doing without a network: interpolating bicubically, or leaving the noise there."""

    def gain(self, output: NDArray[np.float32]) -> float:
        """Return by how many decibels an output, NCHW and white is 1, is better than that."""
        if not np.isfinite(output).all():
            return -np.inf
        levels = output.transpose(0, 2, 3, 1).clip(0, 1) * 255
        return _mean_psnr(self.originals, levels) - self.plain


@functools.cache
def task(channels: int, scale: int, side: int) -> RestorationTask:
    """Return the task for networks with so many channels and this scale.

    Args:
        channels: of the images.
        scale: how much the network enlarges.
        side: height and width of the images that it gets.
    """
    originals = photos.batch(PHOTOS, side * scale, side * scale, channels)
    if scale > 1:
        given = np.stack([shrunk(image, side, side) for image in originals])
        plain = np.stack([shrunk(image, side * scale, side * scale) for image in given])
    else:
        noise = np.random.default_rng(0).normal(0, _NOISE, originals.shape)
        given = plain = (originals + noise).round().clip(0, 255).astype(np.uint8)
    return RestorationTask(photos.as_float(given), originals, _mean_psnr(originals, plain))


def _mean_psnr(originals: NDArray[np.uint8], images: NDArray[Any]) -> float:
    return float(np.mean([psnr(one, other) for one, other in zip(originals, images, strict=True)]))
