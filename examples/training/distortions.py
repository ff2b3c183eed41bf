"""What happens to a photo on its way to being a poor one: shrinking, noise, JPEG.

Images are C x H x W float32 in [0, 1], C being 1 or 3. What is random comes from the generator that
is given, so that the same generator makes the same image.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Bicubic interpolation looks at two pixels of the smaller image to each side.
BICUBIC_REACH = 2
# Ways to resize, and whether they are antialiased: many programs' are not.
KERNELS = (
    ("area", False),
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", False),
    ("bicubic", True),
)
# Four of JPEG's blocks share a block of colour: such squares are coded on their own.
JPEG_UNIT = 16


def rounded(image: Tensor, levels: int) -> Tensor:
    """Returns the image as a file with the values 0 to `levels` can hold it; halves go up."""
    return image.clamp(0, 1).mul(levels).add(0.5).floor().div(levels)


def shrunk(image: Tensor, scale: int, levels: int) -> Tensor:
    """Shrinks as MATLAB's imresize does, which made the low resolution of all usual data sets.

    Bicubic (a = -0.5), antialiased, mirrored at the border; first the height, then the width,
    rounded to whole levels after each. Set5's official files come out equal in every pixel, for
    which the sums must be of whole numbers: halves are then halves, and are rounded up.

    Args:
        image: of whole levels; H and W are multiples of the scale.
        scale: how many times smaller.
        levels: the value of white, 255 or 65535.
    """
    values = image.mul(levels).round()
    for axis in (1, 2):
        side = values.shape[axis] // scale + 2 * BICUBIC_REACH
        reach = scale * BICUBIC_REACH
        padded = mirrored(values, axis, reach, reach)
        size = (side, values.shape[2]) if axis == 1 else (values.shape[1], side)
        small = functional.interpolate(padded[None], size, mode="bicubic", antialias=True)[0]
        inner = small.narrow(axis, BICUBIC_REACH, side - 2 * BICUBIC_REACH)
        values = inner.add(0.5).floor().clamp(0, levels)
    return values.div(levels)


def mirrored(image: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Extends one axis by its mirror image, the border's pixels repeated; by any number."""
    order = np.pad(np.arange(image.shape[axis]), (before, after), mode="symmetric")
    return image.index_select(axis, torch.from_numpy(order))


def resized(image: Tensor, size: tuple[int, int], random: np.random.Generator) -> Tensor:
    """Resizes to (height, width), by one of the usual ways to do so."""
    mode, antialias = KERNELS[random.integers(len(KERNELS))]
    return functional.interpolate(image[None], size, mode=mode, antialias=antialias)[0]


def with_noise(
    image: Tensor, deviation: Tensor | float, random: np.random.Generator, *, gray: bool = False
) -> Tensor:
    """Adds Gaussian noise, which may lead out of [0, 1].

    Args:
        image: what to add to.
        deviation: where white is 1; one for all, or one for each value.
        random: what to draw from.
        gray: the same noise for all channels.
    """
    channels, height, width = image.shape
    size = (1 if gray else channels, height, width)
    return image + torch.from_numpy(random.standard_normal(size, dtype=np.float32)) * deviation


def as_jpeg(image: Tensor, random: np.random.Generator, qualities: tuple[int, int]) -> Tensor:
    """Compresses with a random quality, colours of full or half resolution, blocks anywhere.

    Were the blocks always at the same place of a crop, a network could learn where they are.

    Args:
        image: 16 bits do not survive: JPEG has eight.
        random: what to draw from.
        qualities: from and to, both included, as Pillow counts them.
    """
    quality = int(random.integers(qualities[0], qualities[1] + 1))
    subsampling = "4:2:0" if random.random() < 0.5 else "4:4:4"
    top, left = (int(random.integers(JPEG_UNIT)) for _ in range(2))
    moved = mirrored(mirrored(image, 1, top, 0), 2, left, 0)
    return compressed(moved, quality, subsampling)[:, top:, left:]


def compressed(image: Tensor, quality: int, subsampling: str) -> Tensor:
    """Returns what is left of an image that was a JPEG file.

    Args:
        image: rounded to 8 bits first.
        quality: 1 to 95, Pillow's.
        subsampling: of colours: "4:4:4", "4:2:2" or "4:2:0".
    """
    pixels = rounded(image, 255).mul(255).permute(1, 2, 0).numpy().round().astype(np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    picture.save(file, "JPEG", quality=quality, subsampling=subsampling)
    with Image.open(file) as decoded:
        values: NDArray[np.float32] = np.asarray(decoded, np.float32) / np.float32(255)
    return torch.from_numpy(values.reshape(pixels.shape)).permute(2, 0, 1).contiguous()
