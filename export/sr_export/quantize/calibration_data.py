"""Calibration data: tiles for calibration, and held-out images for the acceptance check."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.errors import InvalidInputError, SrDeployError
from sr_export import photos
from sr_export.quantize.image_folder import FolderImage, ImageEntry, find, load

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Size = tuple[int, int]

_log = logging.getLogger(__name__)

OWN_PHOTOS = "photos that ship with sr-export"
"""The default calibration images."""
_TILES = 96
_TILE_SIDE = 64
# Networks with a large minimum size get fewer tiles, to bound the time of calibration.
_MOST_PIXELS = 4 * _TILES * _TILE_SIDE**2
_LEAST_TILES = 16
_HELD_OUT_SIDE = 192
_MOST_HELD_OUT = 8
# Unreadable images named in a warning.
_MOST_NAMED = 10
# Random positions considered per tile.
_PLACES_PER_TILE = 16
# INT8 hurts smooth images most, so this one is always held out.
_SMOOTH = "retina"


@dataclass(frozen=True)
class Example:
    """A held-out image."""

    name: str
    low: Pixels
    """The network's input, (H, W, C)."""
    truth: Pixels | None
    """The original, (scale*H, scale*W, C), if there is one."""


@dataclass(frozen=True)
class CalibrationData:
    """Calibration tiles and held-out images, from different images."""

    tiles: tuple[Pixels, ...]
    """Low-resolution tiles (H, W, C), all of one size, in random order."""
    held_out: tuple[Example, ...]
    text: str
    """Description of the tiles, for the manifest."""


def gather(
    folder: Path | None,
    *,
    channels: int,
    scale: int,
    minimum: int,
    fixed_size: Size | None,
    low_resolution: bool,
    seed: int,
    report: Callable[[str], None],
) -> CalibrationData:
    """Cut calibration tiles from most images, and hold out about every fifth image.

    Originals are downscaled with antialiased bicubic; pairs are used as they are. The project's own
    smooth photo is always held out. The same seed gives the same data.

    Args:
        folder: The user's images; None for the project's own set.
        channels: Channels of the network, 1 or 3.
        scale: Scale of the network; at 1, images are used as they are and have no original.
        minimum: The smallest side that the network accepts.
        fixed_size: The only (height, width) that the network accepts, if it is fixed.
        low_resolution: The images are network inputs, used as they are.
        seed: Seed for the choice of images and tiles.
        report: Called with the progress.

    Raises:
        NotFoundError: The folder does not exist.
        InvalidInputError: It is a file, or contains no image that can be read.
    """
    rng = np.random.default_rng(seed)
    cutter = _Cutter(fixed_size, minimum, rng)
    own = _own(photos.FOLDER, scale)
    if folder is None:
        # The images are small: at less than half their size, too little would be left.
        reduction, held_out = min(scale, 2), 0
        entries = _own(photos.CALIBRATION_FOLDER, reduction)
        origin = OWN_PHOTOS
    else:
        reduction, entries = scale, find(folder, scale, low_resolution=low_resolution)
        held_out = min(_MOST_HELD_OUT, max(1, round(len(entries) / 5)))
        origin = f"images in {folder.resolve().name}"
    reader = _Reader([entries[i] for i in rng.permutation(len(entries))], channels, reduction)
    tiles, exam = cutter.divide(reader, held_out, report)
    reader.report_errors()
    text = f"{len(tiles)} tiles of {reader.count - len(exam)} {origin}, seed {seed}"
    if exam:
        own = [each for each in own if each.name == _SMOOTH]
    exam += [cutter.example(*each) for each in _Reader(own, channels, scale)]
    return CalibrationData(tuple(tiles), tuple(exam), text)


class _Reader:
    """Reads images one at a time, to hold one in memory; skips those that cannot be read."""

    def __init__(self, entries: Sequence[ImageEntry], channels: int, scale: int) -> None:
        self._entries = entries
        self._channels = channels
        self._scale = scale
        self._errors: list[str] = []
        self.left = len(entries)
        self.count = 0
        """Number of images read."""

    def __iter__(self) -> Iterator[tuple[str, FolderImage]]:
        for entry in self._entries:
            self.left -= 1
            try:
                picture = load(entry, self._channels, self._scale)
            except SrDeployError as error:
                self._errors.append(str(error))
                continue
            self.count += 1
            yield entry.name, picture

    def report_errors(self) -> None:
        """Log the images that could not be read.

        Raises:
            InvalidInputError: No image could be read.
        """
        if self._errors and not self.count:
            raise InvalidInputError(
                f"none of the {len(self._errors)} calibration images can be read: {self._errors[0]}"
            )
        if self._errors:
            shown = "; ".join(self._errors[:_MOST_NAMED])
            more = "; ..." if len(self._errors) > _MOST_NAMED else ""
            _log.warning("skipped %d images: %s%s", len(self._errors), shown, more)


class _Cutter:
    """Cuts tiles and held-out images.

    Args:
        fixed_size: The only (height, width) that the network accepts, if it is fixed.
        minimum: The smallest side that it accepts.
        rng: Source of random positions.
    """

    def __init__(self, fixed_size: Size | None, minimum: int, rng: np.random.Generator) -> None:
        self._fixed = fixed_size is not None
        self._tile = fixed_size or (max(_TILE_SIDE, minimum),) * 2
        self._rng = rng

    def divide(
        self, reader: _Reader, held_out: int, report: Callable[[str], None]
    ) -> tuple[list[Pixels], list[Example]]:
        """Return tiles from most images, and the others as held-out images."""
        tiles: list[Pixels] = []
        exam: list[Example] = []
        height, width = self._tile
        wanted = min(_TILES, max(_LEAST_TILES, _MOST_PIXELS // (height * width)))
        for name, picture in reader:
            report(f"reading images: {reader.count}, {len(tiles)} of {wanted} tiles cut")
            # The first is used for calibration, since it may be the only one.
            if tiles and len(exam) < held_out:
                exam.append(self.example(name, picture))
            else:
                sharing = 1 + reader.left - (held_out - len(exam))
                tiles += self._tiles(picture, math.ceil((wanted - len(tiles)) / max(1, sharing)))
            if len(tiles) == wanted and len(exam) == held_out:
                break
        # In random order, so that the first few are as varied as all.
        return [tiles[i] for i in self._rng.permutation(len(tiles))], exam

    def example(self, name: str, picture: FolderImage) -> Example:
        """Return the center of an image, with its original if there is one."""
        height, width = self._tile
        if not self._fixed:
            height = min(max(picture.height, height), max(_HELD_OUT_SIDE, height))
            width = min(max(picture.width, width), max(_HELD_OUT_SIDE, width))
        top = max(0, picture.height - height) // 2
        left = max(0, picture.width - width) // 2
        place = (top, left, (height, width))
        return Example(name, picture.piece(*place), picture.original(*place))

    def _tiles(self, picture: FolderImage, count: int) -> list[Pixels]:
        """Return tiles from flat to textured: random positions, sorted by their contrast."""
        height, width = self._tile
        free = (max(0, picture.height - height), max(0, picture.width - width))
        places = self._rng.integers(0, free, (_PLACES_PER_TILE * count, 2), endpoint=True)
        places = np.unique(places, axis=0)
        sketch = picture.sketch()
        channel = sketch.shape[2] // 2
        spread = [
            sketch[top : top + height, left : left + width, channel].std() for top, left in places
        ]
        places = places[np.argsort(spread, kind="stable")]
        # One from each of `count` equal parts of the sorted positions.
        count = min(count, len(places))
        borders = np.arange(count + 1) * len(places) // count
        chosen = places[self._rng.integers(borders[:-1], borders[1:])]
        return [picture.piece(int(top), int(left), self._tile) for top, left in chosen]


def _own(folder: Path, scale: int) -> list[ImageEntry]:
    """Return the photos that ship with the project, which are originals."""
    paths = sorted(folder.glob("*.jpg"))
    return [ImageEntry.of_one_file(path.stem, path, as_it_is=scale == 1) for path in paths]
