"""Photos for verification, shipped with the exporter: crops of scikit-image's (see README.md)."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = Path(__file__).parent
CALIBRATION_FOLDER = FOLDER / "calibration"
"""Other photos, for the calibration of INT8."""


@functools.cache
def photos() -> tuple[NDArray[np.uint8], ...]:
    """Return the photos: 256 x 320 x 3, RGB."""
    return tuple(np.asarray(Image.open(path)) for path in sorted(FOLDER.glob("*.jpg")))


def batch(
    count: int, height: int, width: int, channels: int, *, first: int = 0
) -> NDArray[np.uint8]:
    """Return `count` different crops as (count, height, width, channels).

    Photos that are too small are extended by reflection.
    """
    images = [photos()[(first + i) % len(photos())] for i in range(count)]
    return np.stack([_crop(image, height, width, channels) for image in images])


def _crop(image: NDArray[np.uint8], height: int, width: int, channels: int) -> NDArray[np.uint8]:
    rows, columns = image.shape[:2]
    padding = ((0, max(0, height - rows)), (0, max(0, width - columns)), (0, 0))
    image = np.pad(image, padding, mode="symmetric")
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    crop = image[top : top + height, left : left + width]
    return crop if channels == 3 else crop[..., 1:2]  # green is closest to gray


def as_float(frames: NDArray[Any]) -> NDArray[np.float32]:
    """Convert NHWC uint8 frames to the NCHW float32 input of networks; white is 1."""
    planes = frames.transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(planes / np.float32(255))
