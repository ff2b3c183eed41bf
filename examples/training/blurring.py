"""Blurs of lenses, of motion and of bad sharpening: random kernels, and how they are applied.

The families and shares are Real-ESRGAN's: Gaussians, round or stretched in some direction; with
heavier or lighter tails; flat in the middle; and sinc filters, which leave ringing at edges.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from examples.training.distortions import mirrored

if TYPE_CHECKING:
    from numpy.typing import NDArray

# How far kernels reach from their centre, in pixels: from, and to.
RADII = (3, 10)
SINC_SHARE = 0.1
ROUND_SHARE = 0.6
# Of Gaussians, of those with other tails, of those that are flat in the middle.
PROFILES = {"gaussian": 0.7, "tails": 0.15, "plateau": 0.15}
# Below 1 the tails are heavier than a Gaussian's, above 1 lighter.
HEAVY, LIGHT = (0.5, 1.0), (1.0, 4.0)
FLATNESS = (1.0, 2.0)
# The highest frequency that a sinc filter leaves, in radians per pixel.
CUTOFFS = (np.pi / 3, np.pi)
# Fourier transforms are fast where the sides are multiples of a power of two, slow where they are
# prime.
FAST_SIDE = 32


def blurred(image: Tensor, kernel: Tensor) -> Tensor:
    """Filters each channel of C x H x W with an odd square kernel; mirrored at the border.

    By way of the Fourier transform, which for such large kernels is a few times faster than a
    convolution, on one CPU core.
    """
    _, height, width = image.shape
    reach = len(kernel) // 2
    padded = mirrored(mirrored(image, 1, reach, reach), 2, reach, reach)
    # The transform takes the image for periodic, which touches nothing but what was padded.
    size = [math.ceil(side / FAST_SIDE) * FAST_SIDE for side in padded.shape[1:]]
    product = torch.fft.rfft2(padded, size) * torch.fft.rfft2(kernel, size)
    full = torch.fft.irfft2(product, size)
    return full[:, 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width]


def random_blur(random: np.random.Generator, deviations: tuple[float, float]) -> Tensor:
    """Returns a K x K float32 kernel that sums to one, K = 7, 9, ... 21.

    Args:
        random: what to draw from.
        deviations: of the Gaussians, in pixels: from, and to.
    """
    if random.random() < SINC_SHARE:
        return random_sinc(random)
    radius = int(random.integers(RADII[0], RADII[1] + 1))
    along = random.uniform(*deviations)
    across = along if random.random() < ROUND_SHARE else random.uniform(*deviations)
    squares = distances(radius, along, across, random.uniform(0.0, np.pi))
    match random.choice(list(PROFILES), p=list(PROFILES.values())):
        case "gaussian":
            kernel = np.exp(-0.5 * squares)
        case "tails":
            power = random.uniform(*(HEAVY if random.random() < 0.5 else LIGHT))
            kernel = np.exp(-0.5 * squares**power)
        case _:
            kernel = 1.0 / (1.0 + squares ** random.uniform(*FLATNESS))
    return summing_to_one(kernel)


def random_sinc(random: np.random.Generator) -> Tensor:
    """Returns a K x K float32 sinc filter that sums to one, K = 7, 9, ... 21."""
    radius = int(random.integers(RADII[0], RADII[1] + 1))
    return sinc(radius, random.uniform(*CUTOFFS))


def sinc(radius: int, cutoff: float) -> Tensor:
    """Returns the round low-pass filter: all frequencies up to `cutoff`, none above.

    Args:
        radius: of the kernel, in pixels; what is beyond is left out, hence the ringing.
        cutoff: in radians per pixel, up to pi.
    """
    distance = torch.from_numpy(np.sqrt(distances(radius, 1.0, 1.0, 0.0)))
    kernel = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * np.pi * distance)
    kernel[radius, radius] = cutoff**2 / (4 * np.pi)
    return summing_to_one(kernel.numpy())


def distances(radius: int, along: float, across: float, angle: float) -> NDArray[np.float64]:
    """Returns each pixel's squared distance from the centre, in deviations along and across.

    Args:
        radius: of the square that is returned, K = 2 radius + 1.
        along: the deviation in the direction of `angle`, in pixels.
        across: that at right angles to it.
        angle: in radians, from the x axis.
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    turned_x = np.cos(angle) * x + np.sin(angle) * y
    turned_y = np.cos(angle) * y - np.sin(angle) * x
    return (turned_x / along) ** 2 + (turned_y / across) ** 2


def summing_to_one(kernel: NDArray[np.float64]) -> Tensor:
    """Returns a kernel in float32 that keeps the brightness."""
    return torch.from_numpy((kernel / kernel.sum()).astype(np.float32))
