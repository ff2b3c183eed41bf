"""Spoils photos as training does, into files: to look at, or to be examined on.

python -m examples.training.spoil photos spoiled --degradation real --scale 4
python -m examples.training.spoil photos noisy --degradation noise --sigma 25
sr-bench quality denoise.srd --ground-truth photos --low-resolution noisy
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from examples.training.crops import levels_of, to_tensor
from examples.training.degradation import DEGRADATIONS, Noise
from examples.training.photos import gather, with_channels
from sr_deploy import images
from sr_deploy.cli import console
from sr_deploy.errors import InvalidInputError
from sr_deploy.images import Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from examples.training.degradation import Degradation
    from examples.training.photos import Pixels


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        "python -m examples.training.spoil",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", help="a folder")
    add("output", type=Path, help="a folder to write PNG files into, under the same names")
    add("--degradation", choices=tuple(DEGRADATIONS), required=True)
    add("--scale", type=int, default=1, help="default: %(default)s")
    add("--sigma", type=float, help="of noise: always this strong, in 255ths of white")
    add("--seed", type=int, default=0, help="default: %(default)s")
    return console.run(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> int:
    if arguments.sigma is not None and arguments.degradation != "noise":
        raise InvalidInputError("--sigma is for --degradation noise")
    photos = gather([arguments.photos], arguments.scale)
    arguments.output.mkdir(parents=True, exist_ok=True)
    with console.Progress(len(photos), "photos") as progress:
        for number, photo in enumerate(photos):
            target = arguments.output / f"{photo.high.stem}.png"
            if target.exists():
                raise InvalidInputError(f"{target}: is there already; choose another folder")
            pixels = images.read(photo.high).pixels
            random = np.random.default_rng((arguments.seed, number))
            images.write(target, Picture(spoilt(pixels, arguments, random)))
            progress.step(target.name)
    console.say(f"{len(photos)} images in {arguments.output}")
    return 0


def spoilt(pixels: Pixels, arguments: argparse.Namespace, random: np.random.Generator) -> Pixels:
    """Returns the spoilt version, without alpha, of a photo cropped to a multiple of the scale."""
    scale, levels = arguments.scale, levels_of(pixels)
    colours = with_channels(pixels, 3 if pixels.ndim == 3 and pixels.shape[2] > 2 else 1)
    height, width = (side // scale * scale for side in pixels.shape[:2])
    degrade: Degradation = DEGRADATIONS[arguments.degradation](levels)
    if arguments.sigma is not None:
        degrade = Noise(levels, (arguments.sigma, arguments.sigma))
    low = degrade(to_tensor(colours[:height, :width]), scale, random)
    found = low.mul(levels).round().permute(1, 2, 0).numpy().astype(pixels.dtype)
    return found if found.shape[2] == 3 else found[..., 0]


if __name__ == "__main__":
    sys.exit(main())
