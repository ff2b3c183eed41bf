"""Conversion between the channels of an image and those of the network.

A network has 1 or 3 channels, an image 1 to 4: gray, gray + alpha, RGB, RGB + alpha. An image is
upscaled in one or more passes. Alpha is a pass of its own, upscaled by the network like gray; a
constant alpha is filled in instead.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.errors import InvalidInputError, OutOfMemoryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BAND = 64
"""Output rows averaged at a time, which bounds the memory of the wider sums."""


@dataclass(frozen=True)
class Pass:
    """One run of the network, on the channels `first` to `last` (exclusive) of the image."""

    first: int
    last: int
    replicate: int
    """How many times the single channel is repeated for the network; 1: not repeated."""
    alpha: bool

    def take(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return the network's input (H, W, channels), contiguous and little-endian.

        It is the image (H, W, C) itself, not a copy, if that already has this form.
        """
        part = image[..., self.first : self.last]
        if self.replicate > 1:
            part = np.broadcast_to(part, (*part.shape[:2], self.replicate))
        return np.ascontiguousarray(part, dtype=image.dtype.newbyteorder("<"))

    def give(self, result: NDArray[Any], out: NDArray[Any]) -> None:
        """Write the network's output (H, W, channels) into the channels of `out`."""
        target = out[..., self.first : self.last]
        if self.replicate == 1:
            target[...] = result
            return
        for top in range(0, len(out), _BAND):
            band = result[top : top + _BAND].sum(axis=2, keepdims=True, dtype=np.uint32)
            target[top : top + _BAND] = (band + self.replicate // 2) // self.replicate

    def constant(self, image: NDArray[Any]) -> int | None:
        """Return the value of the pass's channel if it is constant, else None."""
        part = image[..., self.first]
        value = part[0, 0]
        return int(value) if bool((part == value).all()) else None


@functools.lru_cache
def passes(channels: int, network: int) -> tuple[Pass, ...]:
    """Return the passes of an image with 1 to 4 channels on a network with 1 or 3."""
    alpha = channels in (2, 4)
    colors = channels - alpha
    if colors == network:
        runs = [Pass(0, colors, 1, alpha=False)]
    else:  # gray for an RGB network, or each color on its own for a gray one
        runs = [Pass(i, i + 1, network, alpha=False) for i in range(colors)]
    if alpha:
        runs.append(Pass(colors, channels, network, alpha=True))
    return tuple(runs)


def checked_image(image: object) -> NDArray[Any]:
    """Return a view (H, W, C) of the user's image.

    Raises:
        InvalidInputError: type, shape or dtype are not those of an image.
    """
    if not isinstance(image, np.ndarray):
        raise InvalidInputError(
            f"an image must be a numpy array, found {type(image).__name__}; convert it with "
            "numpy.asarray"
        )
    allowed_shape = image.ndim == 2 or (image.ndim == 3 and 1 <= image.shape[2] <= 4)
    if not allowed_shape or 0 in image.shape:
        raise InvalidInputError(
            f"unsupported image shape {image.shape}; allowed are (H, W) and (H, W, C) with H "
            "and W of at least 1, and C = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha)"
        )
    if image.dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise InvalidInputError(
            f"unsupported image dtype {image.dtype}; allowed are uint8 and uint16 (scale a float "
            "image to 0..255 or 0..65535, round it, and convert it)"
        )
    return image[..., None] if image.ndim == 2 else image


def checked_result(out: NDArray[Any] | None, image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Return `out` or a new array for the result of the user's image.

    Raises:
        InvalidInputError: `out` is read-only, overlaps itself, or its shape or dtype are not the
            result's.
        OutOfMemoryError: allocating the new array fails.
    """
    shape = (scale * image.shape[0], scale * image.shape[1], *image.shape[2:])
    dtype = image.dtype.newbyteorder("=")
    if out is None:
        try:
            return np.empty(shape, dtype)
        except MemoryError as error:
            raise OutOfMemoryError(f"cannot allocate a result of shape {shape}: {error}") from error
    if not isinstance(out, np.ndarray) or (out.shape, out.dtype) != (shape, dtype):
        found = (
            f"shape {out.shape} and dtype {out.dtype}"
            if isinstance(out, np.ndarray)
            else type(out).__name__
        )
        raise InvalidInputError(f"out must have shape {shape} and dtype {dtype}, found {found}")
    if not out.flags.writeable:
        raise InvalidInputError("out must be writable, found a read-only array")
    if _overlaps_itself(out):
        raise InvalidInputError(
            f"out must not overlap itself, found strides {out.strides} for shape {out.shape}; "
            "numpy.empty creates an array"
        )
    return out


def _overlaps_itself(array: NDArray[Any]) -> bool:
    """Return whether elements can share memory, as in `np.broadcast_to` and `as_strided`."""
    end = array.itemsize
    steps = ((abs(step), size) for step, size in zip(array.strides, array.shape, strict=True))
    for step, size in sorted(each for each in steps if each[1] > 1):
        if step < end:
            return True
        end += step * (size - 1)
    return False
