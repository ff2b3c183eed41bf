"""What a folder of images holds, and its images one at a time, cut into pieces."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sr_deploy import images
from sr_deploy.errors import InvalidInputError, NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]

_ROLE = re.compile(r"(?:^|[_-])(HR|LR)(?=$|[_-]|x\d)", re.IGNORECASE)
_SCALE = re.compile(r"x(\d+)$", re.IGNORECASE)
# How far around a piece, in low resolution, antialiased bicubic looks: two pixels, and one spare.
_REACH = 3


@dataclass(frozen=True)
class ImageEntry:
    """Where an image is, in low resolution, in high resolution, or in both."""

    name: str
    low: Path | None
    truth: Path | None

    @classmethod
    def of_one_file(cls, name: str, path: Path, *, as_it_is: bool) -> ImageEntry:
        """Return an image that is there once: as the network sees it, or as the original."""
        return cls(name, path, None) if as_it_is else cls(name, None, path)


@dataclass(frozen=True, eq=False)
class FolderImage:
    """An image in memory; at least one of its two versions is there."""

    scale: int
    low: Pixels | None
    """H,W,C; None where it is to be made from the original."""
    truth: Pixels | None
    """scale*H,scale*W,C."""

    @property
    def height(self) -> int:
        """Of the low resolution."""
        return len(self.sketch())

    @property
    def width(self) -> int:
        """Of the low resolution."""
        return self.sketch().shape[1]

    def sketch(self) -> Pixels:
        """Return about the low resolution, without computing or copying anything."""
        if self.low is not None:
            return self.low
        assert self.truth is not None
        return self.truth[:: self.scale, :: self.scale]

    def piece(self, top: int, left: int, size: tuple[int, int]) -> Pixels:
        """Return a (height, width) of the low resolution; reflected where the image ends."""
        rows, columns = _span(top, size[0], self.height), _span(left, size[1], self.width)
        piece = self._reduced(rows, columns) if self.low is None else self.low[rows, columns]
        return _grown(piece, size)

    def original(self, top: int, left: int, size: tuple[int, int]) -> Pixels | None:
        """Return what `piece` shows, in high resolution, if that is there."""
        if self.truth is None:
            return None
        rows, columns = _span(top, size[0], self.height), _span(left, size[1], self.width)
        piece = self.truth[_times(rows, self.scale), _times(columns, self.scale)]
        return _grown(piece, (size[0] * self.scale, size[1] * self.scale))

    def _reduced(self, rows: slice, columns: slice) -> Pixels:
        """Make a piece of the low resolution, with the same pixels as if all of it were made."""
        assert self.truth is not None
        top, left = (max(0, each.start - _REACH) for each in (rows, columns))
        bottom = min(self.height, rows.stop + _REACH)
        right = min(self.width, columns.stop + _REACH)
        around = _times(slice(top, bottom), self.scale), _times(slice(left, right), self.scale)
        reduced = _resized(self.truth[around], bottom - top, right - left)
        return reduced[_moved(rows, -top), _moved(columns, -left)]


def find(folder: Path, scale: int, *, low_resolution: bool) -> list[ImageEntry]:
    """Return the images in a folder and below it, by name; hidden ones are left out.

    Where it holds pairs as data sets have them (`HR` and `LRx2`, or `..._HR` and
    `..._LR_bicubic/X2`), the pairs of this scale are returned.

    Args:
        folder: Where to look.
        scale: Of the network.
        low_resolution: The images are what the network will see, rather than originals.

    Raises:
        NotFoundError: there is no such folder.
        InvalidInputError: it is a file, holds no images, or its pairs do not match.
    """
    if not folder.exists():
        raise NotFoundError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise InvalidInputError(f"{folder}: a file; calibration needs a folder of images")
    high, low = _layout(folder, scale)
    if high is not None and low is not None:
        return _pairs(folder, high, low)
    paths = list(_images(high or folder))
    if not paths:
        known = " ".join(images.SUFFIXES)
        raise InvalidInputError(
            f"{folder}: holds no images to calibrate on; files that end in one of {known} are read"
        )
    as_it_is = low_resolution or scale == 1
    return [ImageEntry.of_one_file(_name(path, folder), path, as_it_is=as_it_is) for path in paths]


def load(entry: ImageEntry, channels: int, scale: int) -> FolderImage:
    """Read an image; an original is cropped to a multiple of the scale.

    Raises:
        NotFoundError, ImageError: it cannot be read.
        InvalidInputError: it is too small, or the two sizes of a pair do not fit.
    """
    low = None if entry.low is None else _plain(images.read(entry.low).pixels, channels)
    truth = None if entry.truth is None else _plain(images.read(entry.truth).pixels, channels)
    if truth is not None:
        height, width = (side // scale for side in truth.shape[:2])
        if not height or not width:
            raise InvalidInputError(f"{entry.truth}: too small to be reduced by {scale}")
        if low is not None and low.shape[:2] != (height, width):
            raise InvalidInputError(
                f"{entry.low}: {low.shape[1]}x{low.shape[0]}, but {width}x{height} "
                f"is its original at 1/{scale} of its size"
            )
        truth = truth[: height * scale, : width * scale]
    return FolderImage(scale, low, truth)


def _layout(folder: Path, scale: int) -> tuple[Path | None, Path | None]:
    """Return the sub-folders of originals and of their low resolution at this scale."""
    roles: dict[str, list[Path]] = {"HR": [], "LR": []}
    for each in _folders(folder):
        if role := _ROLE.search(each.name):
            roles[role[1].upper()].append(each)
    lows = [each for low in roles["LR"] for each in (low, *_folders(low))]
    scales = {each: _SCALE.search(each.name) for each in lows}
    fitting = [each for each, found in scales.items() if found and int(found[1]) == scale]
    unnamed = [
        each for each, found in scales.items() if not found and any(_images(each, deep=False))
    ]
    return next(iter(roles["HR"]), None), next(iter([*fitting, *unnamed]), None)


def _pairs(folder: Path, high: Path, low: Path) -> list[ImageEntry]:
    lows = {_SCALE.sub("", path.stem): path for path in _images(low)}
    entries = [
        ImageEntry(_name(path, folder), lows[stem], path)
        for path in _images(high)
        if (stem := _SCALE.sub("", path.stem)) in lows
    ]
    if not entries:
        raise InvalidInputError(
            f"{folder}: no file in {_name(low, folder)} has the name of one in "
            f"{_name(high, folder)}; a pair has the same name, or the same with x2, x3, x4"
        )
    return entries


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")


def _images(folder: Path, *, deep: bool = True) -> Iterator[Path]:
    """Yield the images in a folder, and in all below it if `deep`."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each[0] != ".") if deep else []
        for name in sorted(names):
            if name[0] != "." and images.could_be_image(name):
                yield Path(parent, name)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _plain(pixels: NDArray[Any], channels: int) -> Pixels:
    """Return H,W,C of bytes, without alpha: one channel is gray, or green, which is nearest."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    if channels != pixels.shape[2]:
        pixels = np.repeat(pixels, 3, axis=2) if channels == 3 else pixels[..., 1:2]
    if pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint32) + 128) // 257
    return np.ascontiguousarray(pixels, np.uint8)


def _resized(image: Pixels, height: int, width: int) -> Pixels:
    """Shrink with antialiased bicubic; Pillow would round bytes twice, floats are rounded once."""
    planes = [
        Image.fromarray(image[..., i].astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for i in range(image.shape[2])
    ]
    values = np.stack([np.asarray(plane) for plane in planes], axis=2)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grown(piece: Pixels, size: tuple[int, int]) -> Pixels:
    """Return a copy that is reflected at its lower right up to (height, width)."""
    lacking = [(0, wanted - side) for wanted, side in zip(size, piece.shape[:2], strict=True)]
    return np.pad(piece, [*lacking, (0, 0)], mode="symmetric")


def _span(start: int, length: int, limit: int) -> slice:
    return slice(start, min(start + length, limit))


def _times(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)
