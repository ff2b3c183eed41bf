"""Between the channels of a user's image and those of the network.

A network takes 1 or 3 channels, an image has 1 to 4: gray, gray with alpha, RGB, RGB with alpha.
Each image goes through in one or more passes. Alpha is an image of its own: it is upscaled by the
network like gray, never stretched; an alpha that is the same everywhere is filled in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.errors import InvalidInputError, OutOfMemoryError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BAND = 64
"""Output rows that are averaged at a time, so that the wider sums stay small."""


@dataclass(frozen=True)
class Pass:
    """One run of the network: the channels `first` to `last` (excluded) of the image."""

    first: int
    last: int
    replicate: int
    """How many times the one channel is repeated for the network; 1: as it is."""
    alpha: bool

    def take(self, image: NDArray[Any]) -> NDArray[Any]:
        """Return what goes in: (H, W, channels of the network), contiguous, little-endian.

        The image (H, W, C) itself comes back where it already is that.
        """
        part = image[..., self.first : self.last]
        if self.replicate > 1:
            part = np.broadcast_to(part, (*part.shape[:2], self.replicate))
        return np.ascontiguousarray(part, dtype=image.dtype.newbyteorder("<"))

    def give(self, result: NDArray[Any], out: NDArray[Any]) -> None:
        """Put what came out (H, W, channels of the network) into the channels of `out`."""
        target = out[..., self.first : self.last]
        if self.replicate == 1:
            target[...] = result
            return
        for top in range(0, len(out), _BAND):
            band = result[top : top + _BAND].sum(axis=2, keepdims=True, dtype=np.uint32)
            target[top : top + _BAND] = (band + self.replicate // 2) // self.replicate

    def constant(self, image: NDArray[Any]) -> int | None:
        """Return the value of an alpha channel that is the same everywhere."""
        if not self.alpha:
            return None
        part = image[..., self.first]
        value = part[0, 0]
        return int(value) if bool((part == value).all()) else None


def passes(channels: int, network: int) -> tuple[Pass, ...]:
    """Return the runs that an image of 1 to 4 channels needs on a network of 1 or 3."""
    alpha = channels in (2, 4)
    colours = channels - alpha
    if colours == network:
        runs = [Pass(0, colours, 1, alpha=False)]
    else:  # gray for an RGB network, or each colour on its own for a gray one
        runs = [Pass(i, i + 1, network, alpha=False) for i in range(colours)]
    if alpha:
        runs.append(Pass(colours, channels, network, alpha=True))
    return tuple(runs)


def checked(image: object) -> NDArray[Any]:
    """Return an image as (H, W, C), a view of what the user gave.

    Raises:
        InvalidInputError: it is not an image that `Engine.upscale` takes.
    """
    if not isinstance(image, np.ndarray):
        raise InvalidInputError(
            f"an image must be a numpy array, found {type(image).__name__}; numpy.asarray makes one"
        )
    allowed_shape = image.ndim == 2 or (image.ndim == 3 and 1 <= image.shape[2] <= 4)
    if not allowed_shape or 0 in image.shape:
        raise InvalidInputError(
            f"an image of shape {image.shape} does not fit; allowed are (H, W) and (H, W, C) with "
            "H and W of at least 1, and C = 1 (gray), 2 (gray, alpha), 3 (RGB) or 4 (RGB, alpha)"
        )
    if image.dtype.newbyteorder("=") not in (np.dtype(np.uint8), np.dtype(np.uint16)):
        raise InvalidInputError(
            f"an image of dtype {image.dtype} does not fit; allowed are uint8 and uint16 "
            "(scale a float image to 0..255 or 0..65535, round it, and convert it)"
        )
    return image[..., None] if image.ndim == 2 else image


def checked_out(out: NDArray[Any] | None, image: NDArray[Any], scale: int) -> NDArray[Any]:
    """Return where the result of an image as the user gave it goes: `out`, or a new array.

    Raises:
        InvalidInputError: `out` is not writable, or not of the shape and dtype of the result.
        OutOfMemoryError: the system refuses a new array of that size.
    """
    shape = (scale * image.shape[0], scale * image.shape[1], *image.shape[2:])
    dtype = image.dtype.newbyteorder("=")
    if out is None:
        try:
            return np.empty(shape, dtype)
        except MemoryError as error:
            raise OutOfMemoryError(f"no memory for a result of {shape}: {error}") from error
    if not isinstance(out, np.ndarray) or (out.shape, out.dtype) != (shape, dtype):
        found = (
            f"shape {out.shape} and dtype {out.dtype}"
            if isinstance(out, np.ndarray)
            else type(out).__name__
        )
        raise InvalidInputError(f"out must have shape {shape} and dtype {dtype}, found {found}")
    if not out.flags.writeable:
        raise InvalidInputError("out must be writable, found a read-only array")
    return out
