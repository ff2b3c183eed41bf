"""`sr-generate`: generate images from noise."""

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
Generate images from noise with the bundle of a generator, such as a DCGAN's. The same seed gives
the same images."""

_EXAMPLES = """\
examples:
  sr-generate netG.srd one.png                            one image from a random seed
  sr-generate netG.srd sheet.png --count 16 --seed 1      sixteen images in a grid
  sr-generate netG.srd faces/ --count 1000                one file each: faces/0001.png, ...
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
    parser.add_argument("bundle", metavar="BUNDLE", help="a bundle from sr-export, NAME.srd")
    parser.add_argument(
        "output", metavar="OUTPUT", help="an image file for a grid of all images, or a folder"
    )
    parser.add_argument("--count", type=int, default=1, metavar="N", help="images (default: 1)")
    parser.add_argument("--seed", type=int, help="random seed (default: a new one, printed)")
    parser.add_argument("--overwrite", action="store_true", help="replace existing files")
    parser.add_argument(
        "--backend",
        default="auto",
        help="openvino, onnxruntime, tensorrt or tensorrt_rtx; sr-doctor lists the installed ones",
    )
    parser.add_argument(
        "--precision",
        default="auto",
        help="fp32, fp16, bf16 or int8 (default: the fastest in the bundle)",
    )
    parser.add_argument("--device", help="the backend's name of a device, such as cuda:1")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all physical cores)")
    parser.add_argument("--memory", metavar="SIZE", help="memory limit, such as 2GiB")
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
    plural = "s" if count > 1 else ""
    console.say(f"{arguments.output}: {count} image{plural} of {width}x{height}, seed {seed}")
    return 0


def sheet(pictures: Pictures) -> Pictures:
    """Return a nearly square grid of images (N, H, W, C); empty cells are black."""
    count, height, width, channels = pictures.shape
    across = math.isqrt(count - 1) + 1
    down = -(-count // across)
    cells = np.zeros((down * across, height, width, channels), np.uint8)
    cells[:count] = pictures
    rows = cells.reshape(down, across, height, width, channels).swapaxes(1, 2)
    return rows.reshape(down * height, across * width, channels)


def _targets(output: str, count: int) -> list[Path]:
    """Return the files to write: one for all images, or one per image in a folder.

    Raises:
        InvalidInputError: The output is neither an image name nor a folder.
        NotFoundError: The parent folder does not exist.
    """
    path = Path(output)
    if not path.parent.is_dir():
        raise NotFoundError(f"{path.parent}: no such folder")
    if path.is_dir() or output.endswith(("/", os.sep)):
        digits = max(4, len(str(count)))
        return [path / f"{number:0{digits}}.png" for number in range(1, count + 1)]
    if not images.could_be_image(path):
        raise InvalidInputError(
            f"{output}: must end in {' '.join(images.SUFFIXES)}, or in a slash for a folder"
        )
    return [path]


def _require_free(targets: Sequence[Path]) -> None:
    """Check that no output exists.

    Raises:
        InvalidInputError: One does.
    """
    existing = [path for path in targets if path.exists()]
    if existing:
        raise InvalidInputError(
            f"{existing[0]}: already exists ({len(existing)} of {len(targets)} files); "
            "--overwrite replaces them"
        )
