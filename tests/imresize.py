"""MATLAB's `imresize` for whole factors, in exact arithmetic: it made the common data sets.

It reproduces the low resolution of Set5, x2 and x4, in every pixel. Tests use shipped photos:
Set5 may not be distributed.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def shrunk(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Return an image (H, W, C) reduced by the antialiased bicubic filter; halves round up."""
    for axis in (0, 1):
        image = _shrunk(image, scale, axis)
    return image


def _shrunk(image: NDArray[np.uint8], scale: int, axis: int) -> NDArray[np.uint8]:
    weights = {}
    for offset in range(-2 * scale, 3 * scale):
        weight = _cubic(Fraction(2 * offset - scale + 1, 2 * scale))
        if weight:
            weights[offset] = weight
    total = sum(weights.values())
    unit = math.lcm(*((each / total).denominator for each in weights.values()))
    border = [(3 * scale, 3 * scale) if each == axis else (0, 0) for each in range(3)]
    padded = np.pad(image.astype(np.int64), border, mode="symmetric")
    count = image.shape[axis] // scale
    result = np.array(unit // 2)
    for offset, weight in weights.items():
        places = 3 * scale + offset + scale * np.arange(count)
        result = result + int(weight / total * unit) * padded.take(places, axis)
    return (result // unit).clip(0, 255).astype(np.uint8)


def _cubic(x: Fraction) -> Fraction:
    """Return Keys' kernel with a = -1/2."""
    x = abs(x)
    if x < 1:
        return (3 * x**3 - 5 * x**2 + 2) / 2
    return (-(x**3) + 5 * x**2 - 8 * x + 4) / 2 if x < 2 else Fraction(0)
