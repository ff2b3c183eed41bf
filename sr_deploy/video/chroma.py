"""Chroma that several pixels share: spread over them and gathered again, each undoing the other.

Gathering takes the mean of the pixels. Spreading makes a ramp in every sample, as steep as its
neighbours say, whose mean is the sample: so gathering gives back exactly what was spread (it is the
2/6 wavelet pair). Measured on five photos and drawn text, halved and upscaled two times (bicubic),
chroma comes 0.2 to 3.7 dB nearer to the original than with samples repeated, which is the simplest
exact pair and leaves stairs. Linear interpolation is -0.7 to 1.1 dB from repeating, and not undone
by a mean; what undoes it multiplies rounding errors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

_Any = TypeVar("_Any", bound=np.generic)
_EIGHTH = np.float32(0.125)


def spread(samples: Floats, across: int, down: int) -> Floats:
    """Return chroma for every pixel.

    Args:
        samples: (H + 2, W): the rows wanted and one more above and below, where `down` is 2; else
            (H, W).
        across: Pixels, side by side, that share a sample: 1, 2 or 4.
        down: Pixels, one below the other, that share it: 1 or 2.

    Returns:
        (down * H, across * W).
    """
    if down == 2:
        ramp = samples[2:] - samples[:-2]
        ramp *= _EIGHTH
        rows = np.empty((len(ramp), 2, ramp.shape[1]), np.float32)
        np.subtract(samples[1:-1], ramp, out=rows[:, 0])
        np.add(samples[1:-1], ramp, out=rows[:, 1])
        samples = rows.reshape(-1, ramp.shape[1])
    while across > 1:
        # Beyond an edge, the samples at it go on.
        wide = np.concatenate((samples[:, :1], samples, samples[:, -1:]), axis=1)
        ramp = wide[:, 2:] - wide[:, :-2]
        ramp *= _EIGHTH
        columns = np.empty((*samples.shape, 2), np.float32)
        np.subtract(samples, ramp, out=columns[..., 0])
        np.add(samples, ramp, out=columns[..., 1])
        samples = columns.reshape(len(samples), -1)
        across //= 2
    return samples


def repeated(samples: NDArray[_Any], across: int, down: int) -> NDArray[_Any]:
    """Return each sample (H, W) for all the pixels that share it."""
    if across > 1:
        wide = np.empty((len(samples), samples.shape[1] * across), samples.dtype)
        for start in range(across):  # many times as fast as numpy's repeat of single numbers
            wide[:, start::across] = samples
        samples = wide
    return samples.repeat(down, axis=0) if down > 1 else samples


def gathered(pixels: Floats, across: int, down: int) -> Floats:
    """Return the mean of each block of pixels (down * H, across * W) -> (H, W)."""
    if across == down == 1:
        return pixels
    total = pixels[::down] + pixels[1::down] if down == 2 else pixels
    parts = [total[:, start::across] for start in range(across)]
    result = sum(parts[1:], start=parts[0]) if across > 1 else total
    return result * np.float32(1 / (across * down))


def blocks(pixels: NDArray[np.bool_], across: int, down: int) -> NDArray[np.bool_]:
    """Return for each block of pixels whether any of them is set."""
    rows = pixels[::2] | pixels[1::2] if down == 2 else pixels
    result = rows[:, ::across]
    for start in range(1, across):
        result = result | rows[:, start::across]
    return result
