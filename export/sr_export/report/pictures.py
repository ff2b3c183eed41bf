"""What the page shows of an image: which part, in which versions, and how the versions differ."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from sr_export.metrics import psnr

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision

PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8")
_STRONGEST_GAIN = 64


@dataclass(frozen=True)
class Scene:
    """An image that the precisions were compared on.

    Raises:
        ValueError: there is no FP32 output, or the shapes do not fit one another.
    """

    name: str
    low: NDArray[np.uint8]
    """H x W x C, C 1 or 3: what went in; or the numbers that a generator made it of."""
    outputs: Mapping[Precision, NDArray[np.uint8]]
    """sH x sW x C: of FP32 and of each precision that is offered, or was refused."""
    truth: NDArray[np.uint8] | None
    """sH x sW x C: the original, where there is one."""

    def __post_init__(self) -> None:
        if "fp32" not in self.outputs:
            raise ValueError(f"{self.name}: no FP32 output; it is what all are compared with")
        if self.low.ndim == 1:
            return
        height, width, channels = self.low.shape
        scale = self.outputs["fp32"].shape[0] // height
        wanted = (scale * height, scale * width, channels)
        found = {each.shape for each in (*self.outputs.values(), self.reference)}
        if scale < 1 or channels not in (1, 3) or found != {wanted}:
            raise ValueError(
                f"{self.name}: outputs and original have the shapes {sorted(found)}; all must be "
                f"one multiple of the input's, {self.low.shape}, with 1 or 3 channels"
            )

    @property
    def fp32(self) -> NDArray[np.uint8]:
        """The output that the others are compared with."""
        return self.outputs["fp32"]

    @property
    def reference(self) -> NDArray[np.uint8]:
        """The original, or FP32's output where there is none."""
        return self.fp32 if self.truth is None else self.truth

    @property
    def precisions(self) -> list[Precision]:
        """What there are outputs of, FP32 first."""
        return [each for each in PRECISIONS if each in self.outputs]

    def closeness(self) -> float:
        """Decibels between FP32 and the precision that is farthest from it."""
        return min(psnr(self.fp32, each) for each in self.outputs.values())


@dataclass(frozen=True)
class CropWindow:
    """A part of an image."""

    top: int
    left: int
    height: int
    width: int

    def of(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Cut the part out of an image of H x W x C."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


def bicubic(scene: Scene) -> NDArray[np.uint8]:
    """Enlarge the input without a network."""
    height, width = scene.fp32.shape[:2]
    enlarged = _picture(scene.low).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(enlarged).reshape(scene.fp32.shape)


def difference(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return by how many levels each value differs."""
    return np.maximum(a, b) - np.minimum(a, b)


def amplified(levels: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], int]:
    """Multiply differences until they can be seen; return also by how much."""
    gain = min(_STRONGEST_GAIN, 255 // max(1, int(levels.max())))
    return levels * np.uint8(gain), gain


def strongest(values: NDArray[np.float64], side: int) -> tuple[CropWindow, float]:
    """Find the square where values add up to most; return also their sum.

    Args:
        values: H x W, not negative.
        side: of the square; where the image is smaller, its own.
    """
    height, width = (min(side, each) for each in values.shape)
    sums = np.pad(values.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
    inside = sums[height:, width:] - sums[:-height, width:]
    inside -= sums[height:, :-width] - sums[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return CropWindow(int(top), int(left), height, width), float(inside[top, left])


def telling(scene: Scene, side: int) -> CropWindow:
    """Find the part of the image that the network changes most beside bicubic interpolation."""
    return strongest(difference(scene.fp32, bicubic(scene)).sum(axis=2, dtype=np.float64), side)[0]


def as_png(image: NDArray[np.uint8]) -> str:
    """Return the data URI of an image, exact to the last level."""
    return _uri(image, "png", optimize=True)


def as_thumbnail(image: NDArray[np.uint8], side: int) -> str:
    """Return the data URI of an image made small, to show where something is in it."""
    small = _picture(image)
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _uri(np.asarray(small), "jpeg", quality=80)


def _picture(image: NDArray[np.uint8]) -> Image.Image:
    return Image.fromarray(image.squeeze(2) if image.shape[2:] == (1,) else image)


def _uri(image: NDArray[np.uint8], kind: str, **options: int) -> str:
    stream = io.BytesIO()
    _picture(image).save(stream, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode()}"
