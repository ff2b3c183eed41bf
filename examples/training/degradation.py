"""Degradations: low-resolution or noisy inputs made from clean images.

In the trainer, the same random generator gives the same image, so sample n is always the same:

    degrade = DEGRADATIONS["real"](255)
    low = degrade(high, 4, np.random.default_rng((seed, n)))

Images are C x H x W float32 in [0, 1], with C = 1 or 3. As a command, this module writes degraded
copies of photos, to look at or to test a network on:

    python -m examples.training.degradation photos low --degradation real --scale 4
    python -m examples.training.degradation photos noisy --degradation noise --sigma 25
    sr-bench quality denoise.srd --ground-truth photos --low-resolution noisy
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from examples.training import distortions
from examples.training.dataset import convert_channels, find_photos, levels_of, to_tensor
from examples.training.distortions import add_noise, filter_image, quantize_levels, random_jpeg
from sr_deploy import images
from sr_deploy.cli import console
from sr_deploy.errors import InvalidInputError
from sr_deploy.images import Picture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from examples.training.dataset import Pixels


class Degradation(Protocol):
    """Makes the input of a network from its target."""

    @property
    def margin(self) -> int:
        """Width of the low-resolution border that depends on pixels outside the image.

        For a crop as if cut from a degraded photo, degrade a larger crop and cut this border off.
        """

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Return C x (H / scale) x (W / scale), rounded to the levels of the file format.

        Raises:
            InvalidInputError: The degradation does not support the scale, or H or W is not a
                multiple of it.
        """


@dataclass(frozen=True)
class Bicubic:
    """Downscaling like MATLAB's imresize: the classical task of all published benchmarks."""

    levels: int = 255
    """The value of white, 255 or 65535."""
    margin = distortions.BICUBIC_RADIUS

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Return the downscaled image; nothing is random."""
        del random
        low_size(high, scale)
        return distortions.downscale(high, scale, self.levels)


@dataclass(frozen=True)
class Noise:
    """Gaussian noise of random strength, for denoising at scale 1."""

    levels: int = 255
    """The value of white, 255 or 65535."""
    sigmas: tuple[float, float] = (0.0, 50.0)
    """Range of the standard deviation, in 255ths of white for any `levels`."""
    margin = 0

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Return the noisy image."""
        require_scale_1(scale, "noise")
        sigma = random.uniform(*self.sigmas) / 255
        return quantize_levels(add_noise(high, sigma, random), self.levels)


@dataclass(frozen=True)
class Jpeg:
    """JPEG of random quality, for artifact removal at scale 1."""

    levels: int = 255
    """The value of white, 255 or 65535; JPEG itself has 8 bits."""
    qualities: tuple[int, int] = (10, 95)
    """Range of Pillow's quality."""
    margin = distortions.JPEG_BLOCK

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Return the image after JPEG compression."""
        require_scale_1(scale, "jpeg")
        return quantize_levels(random_jpeg(high, random, self.qualities), self.levels)


# Parameters of `Real`. Ranges of blur sigmas, in pixels:
FIRST_BLUR = (0.2, 3.0)
SECOND_BLUR = (0.2, 1.5)
SECOND_BLUR_PROBABILITY = 0.8
# The smallest intermediate size, relative to the low resolution.
SMALLEST_ZOOM = 0.6
SHRINK_PROBABILITY, GROW_PROBABILITY = 0.7, 0.2
# Ranges of noise sigmas, in 255ths of white; of shot noise, at a pixel value of 1/255.
GAUSSIAN_NOISE = (1.0, 30.0)
SHOT_NOISE = (0.05, 3.0)
GRAY_NOISE_PROBABILITY = 0.4
FINAL_SINC_PROBABILITY = 0.8
QUALITIES = (30, 95)


@dataclass(frozen=True)
class Real:
    """Blur, resizing, noise and JPEG, once or twice, for photos of unknown history.

    Order, ranges and probabilities follow Real-ESRGAN. At scale 1 this trains restoration.
    """

    levels: int = 255
    """The value of white, 255 or 65535; JPEG leaves 8 bits."""
    twice: bool = True
    """Apply the chain a second time, as if a degraded photo was shared and degraded again."""
    # The kernels reach further, but with tiny weights: at scale 1, 8 pixels from the border, a
    # mirrored neighbor instead of the true one changes a pixel by 0.2 levels of 255 on average.
    margin = 8

    def __call__(self, high: Tensor, scale: int, random: np.random.Generator) -> Tensor:
        """Return the degraded image."""
        low = low_size(high, scale)
        image = filter_image(high, distortions.random_kernel(random, FIRST_BLUR))
        size = random_size(high.shape[1:], (SMALLEST_ZOOM / scale, 1.5), random)
        image = add_camera_noise(distortions.random_resize(image, size, random), random)
        if self.twice:
            image = random_jpeg(image, random, QUALITIES)
            if random.random() < SECOND_BLUR_PROBABILITY:
                image = filter_image(image, distortions.random_kernel(random, SECOND_BLUR))
            size = random_size(low, (SMALLEST_ZOOM, 1.2), random)
            image = add_camera_noise(distortions.random_resize(image, size, random), random)
        # The last file is equally often a JPEG of the final size and a resized JPEG.
        if random.random() < 0.5:
            image = random_jpeg(resize_and_sharpen(image, low, random), random, QUALITIES)
        else:
            image = resize_and_sharpen(random_jpeg(image, random, QUALITIES), low, random)
        return quantize_levels(image, self.levels)


DEGRADATIONS: dict[str, Callable[[int], Degradation]] = {
    "bicubic": Bicubic,
    "real": Real,
    "noise": Noise,
    "jpeg": Jpeg,
}
"""Constructors by name; they take the value of white."""


def random_size(
    size: Sequence[int], zooms: tuple[float, float], random: np.random.Generator
) -> tuple[int, int]:
    """Return (height, width) scaled by a random factor between `zooms`, or unchanged."""
    kind = random.random()
    zoom = 1.0
    if kind < SHRINK_PROBABILITY:
        zoom = random.uniform(zooms[0], 1.0)
    elif kind < SHRINK_PROBABILITY + GROW_PROBABILITY:
        zoom = random.uniform(1.0, zooms[1])
    return max(1, round(size[0] * zoom)), max(1, round(size[1] * zoom))


def add_camera_noise(image: Tensor, random: np.random.Generator) -> Tensor:
    """Add sensor noise: uniform Gaussian noise, or shot noise that grows with brightness.

    Photon counts are Poisson-distributed; from a few dozen photons on, a Gaussian is accurate
    enough. The noise is independent per channel or, as after many cameras' processing, gray.
    """
    sigma: Tensor | float
    if random.random() < 0.5:
        sigma = random.uniform(*GAUSSIAN_NOISE) / 255
    else:
        sigma = random.uniform(*SHOT_NOISE) * (image.clamp(0, 1) / 255).sqrt()
    return add_noise(image, sigma, random, gray=random.random() < GRAY_NOISE_PROBABILITY)


def resize_and_sharpen(image: Tensor, size: tuple[int, int], random: np.random.Generator) -> Tensor:
    """Resize to the final size and usually apply a sinc filter, which adds ringing."""
    image = distortions.random_resize(image, size, random)
    if random.random() < FINAL_SINC_PROBABILITY:
        return filter_image(image, distortions.random_sinc_kernel(random))
    return image


def low_size(high: Tensor, scale: int) -> tuple[int, int]:
    """Return (H / scale, W / scale).

    Raises:
        InvalidInputError: H or W is not a multiple of the scale.
    """
    _, height, width = high.shape
    if height % scale or width % scale:
        raise InvalidInputError(
            f"{width}x{height}: width and height must be multiples of the scale, {scale}"
        )
    return height // scale, width // scale


def require_scale_1(scale: int, name: str) -> None:
    """Raise InvalidInputError if the scale is not 1."""
    if scale != 1:
        raise InvalidInputError(
            f"degradation {name!r} needs scale 1, not {scale}; for other scales use bicubic or real"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Write degraded copies of photos."""
    parser = argparse.ArgumentParser(
        "python -m examples.training.degradation",
        description="Write degraded copies of photos: what a network sees in training.",
        epilog="examples:\n" + (__doc__ or "").rpartition(":\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", metavar="PHOTOS", help="folder of clean photos")
    add(
        "output", metavar="OUTPUT", type=Path, help="folder for the PNG files, under the same names"
    )
    add("--degradation", choices=tuple(DEGRADATIONS), required=True)
    add("--scale", type=int, default=1, help="default: %(default)s")
    add("--sigma", type=float, help="fixed strength of noise, in 255ths of white")
    add("--seed", type=int, default=0, help="default: %(default)s")
    return console.run(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> int:
    if arguments.sigma is not None and arguments.degradation != "noise":
        raise InvalidInputError("--sigma needs --degradation noise")
    photos = find_photos([arguments.photos], arguments.scale)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with console.Progress(len(photos), "photos") as progress:
        for number, photo in enumerate(photos):
            target = arguments.output / f"{photo.high.stem}.png"
            if target.exists():
                raise InvalidInputError(f"{target}: already exists; choose another OUTPUT")
            pixels = images.read(photo.high).pixels
            random = np.random.default_rng((arguments.seed, number))
            images.write(target, Picture(_degraded(pixels, arguments, random)))
            progress.step(target.name)
    console.say(f"{len(photos)} images in {arguments.output}")
    return 0


def _degraded(pixels: Pixels, arguments: argparse.Namespace, random: np.random.Generator) -> Pixels:
    """Return the degraded photo without alpha; it is first cropped to a multiple of the scale."""
    scale, levels = arguments.scale, levels_of(pixels)
    opaque = convert_channels(pixels, 3 if pixels.ndim == 3 and pixels.shape[2] > 2 else 1)
    height, width = (side // scale * scale for side in pixels.shape[:2])
    degrade: Degradation = DEGRADATIONS[arguments.degradation](levels)
    if arguments.sigma is not None:
        degrade = Noise(levels, (arguments.sigma, arguments.sigma))
    low = degrade(to_tensor(opaque[:height, :width]), scale, random)
    result = low.mul(levels).round().permute(1, 2, 0).numpy().astype(pixels.dtype)
    return result if result.shape[2] == 3 else result[..., 0]


if __name__ == "__main__":
    sys.exit(main())
