"""The real images that come with the exporter, to look at what a network does.

They are crops of photos that scikit-image ships: see `photos/README.md` for where they are from.
"""

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
"""Other pictures, to calibrate INT8 on."""


@functools.cache
def photos() -> tuple[NDArray[np.uint8], ...]:
    """Return the photos, 256 x 320 x 3, RGB."""
    return tuple(np.asarray(Image.open(path)) for path in sorted(FOLDER.glob("*.jpg")))


def batch(
    count: int, height: int, width: int, channels: int, *, first: int = 0
) -> NDArray[np.uint8]:
    """Return `count` different crops as (count, height, width, channels).

    What is larger than the photos is made of them by reflection.
    """
    images = [photos()[(first + i) % len(photos())] for i in range(count)]
    return np.stack([_crop(image, height, width, channels) for image in images])


def _crop(image: NDArray[np.uint8], height: int, width: int, channels: int) -> NDArray[np.uint8]:
    rows, columns = image.shape[:2]
    padding = ((0, max(0, height - rows)), (0, max(0, width - columns)), (0, 0))
    image = np.pad(image, padding, mode="symmetric")
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    crop = image[top : top + height, left : left + width]
    return crop if channels == 3 else crop[..., 1:2]  # green is nearest to gray


def as_float(frames: NDArray[Any]) -> NDArray[np.float32]:
    """Return NHWC uint8 frames as the NCHW float32 that networks take, white is 1."""
    planes = frames.transpose(0, 3, 1, 2).astype(np.float32)
    return np.ascontiguousarray(planes / np.float32(255))
