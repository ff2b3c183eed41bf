"""Blur, resizing, noise and JPEG: the steps of a degradation.

Images are C x H x W float32 in [0, 1], with C = 1 or 3. Random values come from the given
generator, so the same generator state gives the same image.

The kernel families and their probabilities are those of Real-ESRGAN: isotropic and anisotropic
Gaussians; generalized Gaussians with heavier or lighter tails; plateau-shaped kernels; and sinc
filters, which cause ringing at edges.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Range of kernel radii in pixels.
RADII = (3, 10)
SINC_PROBABILITY = 0.1
ISOTROPIC_PROBABILITY = 0.6
PROFILES = {"gaussian": 0.7, "generalized": 0.15, "plateau": 0.15}
"""Probabilities of the profiles of all other kernels."""
# Exponents of generalized Gaussians: below 1 the tails are heavier than a Gaussian's.
HEAVY_TAILS, LIGHT_TAILS = (0.5, 1.0), (1.0, 4.0)
PLATEAU_EXPONENTS = (1.0, 2.0)
# Range of the highest frequency that passes a sinc filter, in radians per pixel.
CUTOFFS = (np.pi / 3, np.pi)
# FFTs are fast for multiples of a power of two and slow for primes.
FFT_MULTIPLE = 32
# Bicubic interpolation reads two pixels of the smaller image on each side.
BICUBIC_RADIUS = 2
# Interpolation modes, with and without antialiasing: many programs do not antialias.
INTERPOLATIONS = (
    ("area", False),
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", False),
    ("bicubic", True),
)
# With 4:2:0, four 8x8 blocks share one block of chroma, so 16x16 squares are coded independently.
JPEG_BLOCK = 16


def quantize_levels(image: Tensor, levels: int) -> Tensor:
    """Clip an image and round it to multiples of 1 / levels; halves round up."""
    return image.clamp(0, 1).mul(levels).add(0.5).floor().div(levels)


def mirror_pad(image: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Pad one axis by reflection, repeating the edge pixel; padding may exceed the image."""
    order = np.pad(np.arange(image.shape[axis]), (before, after), mode="symmetric")
    return image.index_select(axis, torch.from_numpy(order))


def filter_image(image: Tensor, kernel: Tensor) -> Tensor:
    """Convolve each channel with an odd square kernel; borders are mirrored.

    Uses the FFT, which for kernels this large is several times faster than a direct convolution on
    one CPU core.
    """
    _, height, width = image.shape
    radius = len(kernel) // 2
    padded = mirror_pad(mirror_pad(image, 1, radius, radius), 2, radius, radius)
    # The FFT wraps around at the border, which affects only the padding.
    size = [math.ceil(side / FFT_MULTIPLE) * FFT_MULTIPLE for side in padded.shape[1:]]
    product = torch.fft.rfft2(padded, size) * torch.fft.rfft2(kernel, size)
    full = torch.fft.irfft2(product, size)
    return full[:, 2 * radius : 2 * radius + height, 2 * radius : 2 * radius + width]


def random_kernel(random: np.random.Generator, sigmas: tuple[float, float]) -> Tensor:
    """Return a random K x K float32 blur kernel with sum 1 and K = 7, 9, ... 21.

    Args:
        random: Random generator.
        sigmas: Range of the Gaussians' standard deviations, in pixels.
    """
    if random.random() < SINC_PROBABILITY:
        return random_sinc_kernel(random)
    radius = int(random.integers(RADII[0], RADII[1] + 1))
    sigma_x = random.uniform(*sigmas)
    sigma_y = sigma_x if random.random() < ISOTROPIC_PROBABILITY else random.uniform(*sigmas)
    distances = squared_distances(radius, sigma_x, sigma_y, random.uniform(0.0, np.pi))
    match random.choice(list(PROFILES), p=list(PROFILES.values())):
        case "gaussian":
            kernel = np.exp(-0.5 * distances)
        case "generalized":
            exponent = random.uniform(*(HEAVY_TAILS if random.random() < 0.5 else LIGHT_TAILS))
            kernel = np.exp(-0.5 * distances**exponent)
        case _:
            kernel = 1.0 / (1.0 + distances ** random.uniform(*PLATEAU_EXPONENTS))
    return normalize_kernel(kernel)


def random_sinc_kernel(random: np.random.Generator) -> Tensor:
    """Return a random K x K float32 sinc kernel with sum 1 and K = 7, 9, ... 21."""
    radius = int(random.integers(RADII[0], RADII[1] + 1))
    return sinc_kernel(radius, random.uniform(*CUTOFFS))


def sinc_kernel(radius: int, cutoff: float) -> Tensor:
    """Return the circular ideal low-pass filter, truncated to (2 radius + 1) squared pixels.

    The truncation causes the ringing. `cutoff` is in radians per pixel, up to pi.
    """
    distance = torch.from_numpy(np.sqrt(squared_distances(radius, 1.0, 1.0, 0.0)))
    kernel = cutoff * torch.special.bessel_j1(cutoff * distance) / (2 * np.pi * distance)
    kernel[radius, radius] = cutoff**2 / (4 * np.pi)
    return normalize_kernel(kernel.numpy())


def squared_distances(
    radius: int, sigma_x: float, sigma_y: float, angle: float
) -> NDArray[np.float64]:
    """Return each pixel's squared distance from the kernel's center, in standard deviations.

    The axes of `sigma_x` and `sigma_y`, in pixels, are rotated by `angle` in radians.
    """
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1].astype(np.float64)
    rotated_x = np.cos(angle) * x + np.sin(angle) * y
    rotated_y = np.cos(angle) * y - np.sin(angle) * x
    return (rotated_x / sigma_x) ** 2 + (rotated_y / sigma_y) ** 2


def normalize_kernel(kernel: NDArray[np.float64]) -> Tensor:
    """Return a kernel as float32 with sum 1, which preserves brightness."""
    return torch.from_numpy((kernel / kernel.sum()).astype(np.float32))


def downscale(image: Tensor, scale: int, levels: int) -> Tensor:
    """Shrink like MATLAB's imresize, which made the low resolution of all common datasets.

    Antialiased bicubic (a = -0.5), mirrored at the border, first vertically, then horizontally,
    with rounding to levels after each pass. This reproduces the official files of Set5 in every
    pixel. That requires sums of whole numbers: halves are then exact, and round up.

    Args:
        image: Values that are multiples of 1 / levels; H and W are multiples of the scale.
        scale: Integer factor.
        levels: The value of white, 255 or 65535.
    """
    values = image.mul(levels).round()
    for axis in (1, 2):
        side = values.shape[axis] // scale + 2 * BICUBIC_RADIUS
        radius = scale * BICUBIC_RADIUS
        padded = mirror_pad(values, axis, radius, radius)
        size = (side, values.shape[2]) if axis == 1 else (values.shape[1], side)
        small = functional.interpolate(padded[None], size, mode="bicubic", antialias=True)[0]
        inner = small.narrow(axis, BICUBIC_RADIUS, side - 2 * BICUBIC_RADIUS)
        values = inner.add(0.5).floor().clamp(0, levels)
    return values.div(levels)


def random_resize(image: Tensor, size: tuple[int, int], random: np.random.Generator) -> Tensor:
    """Resize to (height, width) with a random interpolation."""
    mode, antialias = INTERPOLATIONS[random.integers(len(INTERPOLATIONS))]
    return functional.interpolate(image[None], size, mode=mode, antialias=antialias)[0]


def add_noise(
    image: Tensor, sigma: Tensor | float, random: np.random.Generator, *, gray: bool = False
) -> Tensor:
    """Add Gaussian noise; the result is not clipped.

    Args:
        image: C x H x W.
        sigma: Standard deviation relative to white; one value, or one per pixel.
        random: Random generator.
        gray: Add the same noise to all channels.
    """
    channels, height, width = image.shape
    size = (1 if gray else channels, height, width)
    return image + torch.from_numpy(random.standard_normal(size, dtype=np.float32)) * sigma


def random_jpeg(image: Tensor, random: np.random.Generator, qualities: tuple[int, int]) -> Tensor:
    """Compress with random quality, chroma subsampling and block offset.

    With a fixed offset, a network could learn the positions of the blocks in a crop. JPEG has 8
    bits, so 16-bit images lose depth. Both ends of `qualities` are included.
    """
    quality = int(random.integers(qualities[0], qualities[1] + 1))
    subsampling = "4:2:0" if random.random() < 0.5 else "4:4:4"
    top, left = (int(random.integers(JPEG_BLOCK)) for _ in range(2))
    shifted = mirror_pad(mirror_pad(image, 1, top, 0), 2, left, 0)
    return jpeg_round_trip(shifted, quality, subsampling)[:, top:, left:]


def jpeg_round_trip(image: Tensor, quality: int, subsampling: str) -> Tensor:
    """Compress and decompress an image, rounded to 8 bits first.

    Args:
        image: C x H x W.
        quality: Pillow's, 1 to 95.
        subsampling: Chroma: "4:4:4", "4:2:2" or "4:2:0".
    """
    pixels = quantize_levels(image, 255).mul(255).permute(1, 2, 0).numpy().round().astype(np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as decoded:
        values: NDArray[np.float32] = np.asarray(decoded, np.float32) / np.float32(255)
    return torch.from_numpy(values.reshape(pixels.shape)).permute(2, 0, 1).contiguous()
