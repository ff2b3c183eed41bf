"""Low resolution made from high: the question that a network is trained to answer.

    degrade = DEGRADATIONS["real"](255)
    low = degrade(high, 4, np.random.default_rng((seed, number)))

Everything that is random comes from the generator: sample `number` is always the same. Images have
C x H x W float32 values in [0, 1], C being 1 or 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from examples.training.blurring import blurred, random_blur, random_sinc
from examples.training.distortions import (
    BICUBIC_REACH,
    JPEG_UNIT,
    as_jpeg,
    resized,
    rounded,
    shrunk,
    with_noise,
)
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import Tensor


class Degradation(Protocol):
    """One way to make an image worse."""

    @property
    def margin(self) -> int:
        """Low-resolution pixels at each border for which the neighbours were guessed.

        Who wants a crop as if cut from a degraded photo degrades a larger one and cuts them off.
        """

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Returns C x (H / scale) x (W / scale) of whole levels.

        Raises:
            InvalidInputError: this is not for that scale, or H or W is no multiple of it.
        """


@dataclass(frozen=True)
class Bicubic:
    """Shrunk as MATLAB's imresize does: the classical task, and that of all published figures.

    Attributes:
        levels: the value of white, 255 or 65535.
    """

    levels: int = 255
    margin = BICUBIC_REACH

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Returns the smaller image; nothing is random."""
        del random
        low_size(high, scale)
        return shrunk(high, scale, self.levels)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of a random strength, for denoising at scale 1.

    Attributes:
        levels: the value of white, 255 or 65535.
        sigmas: the standard deviation, from and to, in 255ths of white whatever `levels` is.
    """

    levels: int = 255
    sigmas: tuple[float, float] = (0.0, 50.0)
    margin = 0

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Returns the image with noise."""
        need_scale_1(scale, "noise")
        sigma = random.uniform(*self.sigmas) / 255
        return rounded(with_noise(high, sigma, random), self.levels)


@dataclass(frozen=True)
class Jpeg:
    """JPEG of a random quality, for the removal of its artefacts at scale 1.

    Attributes:
        levels: the value of white, 255 or 65535; JPEG itself has 8 bits.
        qualities: Pillow's, from and to.
    """

    levels: int = 255
    qualities: tuple[int, int] = (10, 95)
    margin = JPEG_UNIT

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Returns the image as it comes back from a file."""
        need_scale_1(scale, "jpeg")
        return rounded(as_jpeg(high, random, self.qualities), self.levels)


@dataclass(frozen=True)
class Real:
    """Blur, resizing, noise and JPEG, once or twice, for photos of unknown history.

    The order, the ranges and the shares are much like Real-ESRGAN's. At scale 1 this is the
    restoration of such photos.

    Attributes:
        levels: the value of white, 255 or 65535; JPEG leaves 8 bits.
        twice: what was made worse was shared, and made worse again.
    """

    levels: int = 255
    twice: bool = True
    # The kernels reach further, but with next to nothing: at scale 1, 8 pixels from the border, a
    # mirrored neighbour in place of the true one changes a pixel by 0.2 levels of 255 on average.
    margin = 8

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Returns what such a photo would look like."""
        low = low_size(high, scale)
        image = blurred(high, random_blur(random, WIDE_BLUR))
        smallest = SMALLEST_ZOOM / scale
        image = resized(image, zoomed(high.shape[1:], (smallest, 1.5), random), random)
        image = noisy(image, random)
        if self.twice:
            image = as_jpeg(image, random, QUALITIES)
            if random.random() < SECOND_BLUR_SHARE:
                image = blurred(image, random_blur(random, NARROW_BLUR))
            image = resized(image, zoomed(low, (SMALLEST_ZOOM, 1.2), random), random)
            image = noisy(image, random)
        # The last file is as often a JPEG of the final size as a JPEG that was resized.
        if random.random() < 0.5:
            image = as_jpeg(finished(image, low, random), random, QUALITIES)
        else:
            image = finished(as_jpeg(image, random, QUALITIES), low, random)
        return rounded(image, self.levels)


DEGRADATIONS: dict[str, Callable[[int], Degradation]] = {
    "bicubic": Bicubic,
    "real": Real,
    "noise": Noise,
    "jpeg": Jpeg,
}
"""Each made for the value of white, `levels`; their other attributes have usual values."""

# Of `Real`. Deviations of blurs, in pixels:
WIDE_BLUR = (0.2, 3.0)
NARROW_BLUR = (0.2, 1.5)
SECOND_BLUR_SHARE = 0.8
# No size on the way is smaller than this, times the low resolution.
SMALLEST_ZOOM = 0.6
SHRINKING_SHARE, GROWING_SHARE = 0.7, 0.2
# Deviations of noise, in 255ths; those of shot noise at a value of 1/255.
GAUSSIAN_NOISE = (1.0, 30.0)
SHOT_NOISE = (0.05, 3.0)
GRAY_SHARE = 0.4
FINAL_SINC_SHARE = 0.8
QUALITIES = (30, 95)


def zoomed(
    size: Sequence[int], zooms: tuple[float, float], random: np.random.Generator
) -> tuple[int, int]:
    """Returns a smaller, a larger or the same (height, width).

    Args:
        size: (height, width).
        zooms: the smallest and the largest, around 1.
        random: what to draw from.
    """
    kind = random.random()
    zoom = 1.0
    if kind < SHRINKING_SHARE:
        zoom = random.uniform(zooms[0], 1.0)
    elif kind < SHRINKING_SHARE + GROWING_SHARE:
        zoom = random.uniform(1.0, zooms[1])
    return max(1, round(size[0] * zoom)), max(1, round(size[1] * zoom))


def noisy(image: Tensor, random: np.random.Generator) -> Tensor:
    """Adds a sensor's noise: the same everywhere, or growing with the light, as photons do.

    The number of photons is Poisson's, which is as good as Gaussian from a few dozen on. Noise is
    of each channel's own or, as after many a camera's own processing, gray.
    """
    deviation: Tensor | float
    if random.random() < 0.5:
        deviation = random.uniform(*GAUSSIAN_NOISE) / 255
    else:
        deviation = random.uniform(*SHOT_NOISE) * (image.clamp(0, 1) / 255).sqrt()
    return with_noise(image, deviation, random, gray=random.random() < GRAY_SHARE)


def finished(image: Tensor, size: tuple[int, int], random: np.random.Generator) -> Tensor:
    """Returns the image in its last size, sharpened more often than not: ringing at edges."""
    image = resized(image, size, random)
    return blurred(image, random_sinc(random)) if random.random() < FINAL_SINC_SHARE else image


def low_size(high: Tensor, scale: int) -> tuple[int, int]:
    """Returns (H / scale, W / scale).

    Raises:
        InvalidInputError: one of them is no whole number.
    """
    _, height, width = high.shape
    if height % scale or width % scale:
        raise InvalidInputError(
            f"{width}x{height}: width and height must be multiples of the scale, {scale}"
        )
    return height // scale, width // scale


def need_scale_1(scale: int, name: str) -> None:
    """Refuses a scale that a degradation is not made for.

    Raises:
        InvalidInputError: the scale is not 1.
    """
    if scale != 1:
        raise InvalidInputError(
            f"the degradation {name!r} keeps the size, so it is for scale 1, not {scale}; "
            "for other scales there are bicubic and real"
        )
