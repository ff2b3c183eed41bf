"""`sr-generate`: pictures that a generator makes out of random numbers."""

from __future__ import annotations

import argparse
import math
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sr_deploy import images
from sr_deploy.cli import console
from sr_deploy.engine import Engine
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_deploy.images import Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Pictures = NDArray[np.uint8]

_DESCRIPTION = """\
Make pictures with a generator (such as a DCGAN's) that sr-export has turned into a bundle. The same
seed makes the same pictures."""

_EXAMPLES = """\
examples:
  sr-generate netG.srd one.png                one picture, another one each time
  sr-generate netG.srd sheet.png --count 16 --seed 1      sixteen on one sheet
  sr-generate netG.srd faces/ --count 1000    a file for each: faces/0001.png, ...
"""
_LARGEST_SEED = 1 << 32


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sr-generate`."""
    return console.run(_parser(), _command, argv)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "sr-generate",
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("bundle", metavar="BUNDLE", help="the folder that sr-export made, NAME.srd")
    parser.add_argument(
        "output", metavar="OUTPUT", help="an image file, which holds them all, or a folder"
    )
    parser.add_argument("--count", type=int, default=1, metavar="N", help="pictures (default: 1)")
    parser.add_argument(
        "--seed", type=int, help="of the random numbers (default: another each time, and printed)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    parser.add_argument(
        "--backend", default="auto", help="what runs the network; sr-doctor lists what is there"
    )
    parser.add_argument(
        "--precision",
        default="auto",
        help="fp32, fp16, bf16 or int8 (default: the fastest in the bundle)",
    )
    parser.add_argument("--device", help="which one, where the backend knows several")
    parser.add_argument("--threads", type=int, help="processor threads (default: the real cores)")
    parser.add_argument("--memory", metavar="SIZE", help="what the command may take, such as 2GiB")
    return parser


def _command(arguments: argparse.Namespace) -> int:
    targets = _targets(arguments.output, arguments.count)
    if not arguments.overwrite:
        _require_free(targets)
    seed = secrets.randbelow(_LARGEST_SEED) if arguments.seed is None else arguments.seed
    with Engine(
        arguments.bundle,
        backend=arguments.backend,
        precision=arguments.precision,
        device=arguments.device,
        threads=arguments.threads,
        memory=arguments.memory,
    ) as engine:
        pictures = engine.generate(count=arguments.count, seed=seed)
    count, height, width, _ = pictures.shape
    if len(targets) == 1:
        pictures = sheet(pictures)[None]
    targets[0].parent.mkdir(exist_ok=True)
    for target, pixels in zip(targets, pictures, strict=True):
        images.write(target, Picture(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    what = f"{count} pictures" if count > 1 else "a picture"
    console.say(f"{arguments.output}: {what} of {width}x{height}, seed {seed}")
    return 0


def sheet(pictures: Pictures) -> Pictures:
    """Return pictures (N, H, W, C) side by side, as many across as down; what is left is black."""
    count, height, width, channels = pictures.shape
    across = math.isqrt(count - 1) + 1
    down = -(-count // across)
    cells = np.zeros((down * across, height, width, channels), np.uint8)
    cells[:count] = pictures
    rows = cells.reshape(down, across, height, width, channels).swapaxes(1, 2)
    return rows.reshape(down * height, across * width, channels)


def _targets(output: str, count: int) -> list[Path]:
    """Return the files to write: one for all pictures, or one for each in a folder.

    Raises:
        InvalidInputError: the name is of no image, and of no folder.
        NotFoundError: the folder to write into is not there.
    """
    path = Path(output)
    if not path.parent.is_dir():
        raise NotFoundError(f"{path.parent}: no such folder")
    if path.is_dir() or output.endswith(("/", os.sep)):
        digits = max(4, len(str(count)))
        return [path / f"{number:0{digits}}.png" for number in range(1, count + 1)]
    if not images.could_be_image(path):
        raise InvalidInputError(
            f"{output}: neither an image by its name ({' '.join(images.SUFFIXES)}) nor a folder "
            "(write a slash behind it to have one made)"
        )
    return [path]


def _require_free(targets: Sequence[Path]) -> None:
    """Refuse to replace files.

    Raises:
        InvalidInputError: one is there.
    """
    there = [path for path in targets if path.exists()]
    if there:
        raise InvalidInputError(
            f"{there[0]}: is there already ({len(there)} of {len(targets)} files); --overwrite "
            "replaces them"
        )
