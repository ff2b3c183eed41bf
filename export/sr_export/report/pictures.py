"""Parts of images for a page: which part, how it differs, and its data URI."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_export.scene import Scene

_MAX_GAIN = 64


@dataclass(frozen=True)
class CropWindow:
    """A part of an image."""

    top: int
    left: int
    height: int
    width: int

    def crop(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the part of an image of H x W x C."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def bicubic(scene: Scene) -> NDArray[np.uint8]:
    """Return the input enlarged by bicubic interpolation."""
    height, width = scene.fp32.shape[:2]
    enlarged = _picture(scene.low).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(enlarged).reshape(scene.fp32.shape)


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the absolute difference of each value, in levels."""
    return np.maximum(a, b) - np.minimum(a, b)


def amplified(levels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Return differences multiplied until they are visible, and the factor."""
    gain = min(_MAX_GAIN, 255 // max(1, int(levels.max())))
    return levels * np.uint8(gain), gain


def largest_square(values: NDArray[np.float64], side: int) -> tuple[CropWindow, float]:
    """Return the square with the largest sum, and that sum.

    Args:
        values: H x W, not negative.
        side: Side of the square; limited to the sides of the image.
    """
    height, width = (min(side, each) for each in values.shape)
    sums = np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[height:, width:] - sums[:-height, width:]
    inside -= sums[height:, :-width] - sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return CropWindow(int(top), int(left), height, width), float(inside[top, left])


def most_changed(scene: Scene, side: int) -> CropWindow:
    """Return the square that the network changes most against bicubic interpolation."""
    change = difference(scene.fp32, bicubic(scene)).sum(axis=2, dtype=np.float64)
    return largest_square(change, side)[0]


def as_png(image: NDArray[np.uint8]) -> str:
    """Return the data URI of an image, lossless."""
    return _uri(image, "png", optimize=True)


def as_thumbnail(image: NDArray[np.uint8], side: int) -> str:
    """Return the data URI of an image, reduced in size."""
    small = _picture(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _uri(np.asarray(small), "jpeg", quality=80)


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image)


def _uri(image: NDArray[np.uint8], kind: str, **options: int) -> str:
    stream = io.BytesIO()
    _picture(image).save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
