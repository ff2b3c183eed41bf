"""A folder of calibration images: single files or HR/LR pairs, read one at a time, in crops."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

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
# Support of antialiased bicubic around a crop, in low-resolution pixels: two, and one spare.
_REACH = 3


@dataclass(frozen=True)
class ImageEntry:
    """The files of an image: in low resolution, in high resolution, or both."""

    name: str
    low: Path | None
    truth: Path | None

    @classmethod
    def of_one_file(cls, name: str, path: Path, *, as_it_is: bool) -> ImageEntry:
        """Return an image with one file: the network's input (`as_it_is`) or the original."""
        return cls(name, path, None) if as_it_is else cls(name, None, path)


@dataclass(frozen=True, eq=False)
class FolderImage:
    """An image in memory, in at least one resolution."""

    scale: int
    low: Pixels | None
    """(H, W, C); None if it is downscaled from the original."""
    truth: Pixels | None
    """The original, (scale*H, scale*W, C)."""

    @property
    def height(self) -> int:
        """Height in low resolution."""
        return len(self.sketch())

    @property
    def width(self) -> int:
        """Width in low resolution."""
        return self.sketch().shape[1]

    def sketch(self) -> Pixels:
        """Return an approximation of the low resolution, without computing or copying."""
        if self.low is not None:
            return self.low
        assert self.truth is not None
        return self.truth[:: self.scale, :: self.scale]

    def piece(self, top: int, left: int, size: tuple[int, int]) -> Pixels:
        """Return a low-resolution crop of (height, width), reflected beyond the image's end."""
        rows, columns = _span(top, size[0], self.height), _span(left, size[1], self.width)
        piece = self._reduced(rows, columns) if self.low is None else self.low[rows, columns]
        return _grown(piece, size)

    def original(self, top: int, left: int, size: tuple[int, int]) -> Pixels | None:
        """Return the same crop as `piece` in high resolution, if there is an original."""
        if self.truth is None:
            return None
        rows, columns = _span(top, size[0], self.height), _span(left, size[1], self.width)
        piece = self.truth[_times(rows, self.scale), _times(columns, self.scale)]
        return _grown(piece, (size[0] * self.scale, size[1] * self.scale))

    def _reduced(self, rows: slice, columns: slice) -> Pixels:
        """Downscale a crop, with the same pixels as downscaling the whole image."""
        assert self.truth is not None
        top, left = (max(0, each.start - _REACH) for each in (rows, columns))
        bottom = min(self.height, rows.stop + _REACH)
        right = min(self.width, columns.stop + _REACH)
        around = _times(slice(top, bottom), self.scale), _times(slice(left, right), self.scale)
        reduced = _resized(self.truth[around], bottom - top, right - left)
        return reduced[_moved(rows, -top), _moved(columns, -left)]


def find(folder: Path, scale: int, *, low_resolution: bool) -> list[ImageEntry]:
    """Return the images in a folder and its subfolders, sorted by name, without hidden ones.

    If it has the layout of a data set (`HR` and `LRx2`, or `..._HR` and `..._LR_bicubic/X2`), the
    pairs of this scale are returned.

    Args:
        folder: The folder.
        scale: Scale of the network.
        low_resolution: The images are network inputs, not originals.

    Raises:
        NotFoundError: The folder does not exist.
        InvalidInputError: It is a file, contains no images, or its pairs do not match.
    """
    if not folder.exists():
        raise NotFoundError(f"{folder}: no such folder")
    if not folder.is_dir():
        raise InvalidInputError(f"{folder}: is a file; calibration needs a folder of images")
    high, low = _layout(folder, scale)
    if high is not None and low is not None:
        return _pairs(folder, high, low)
    paths = list(_images(high or folder))
    if not paths:
        known = " ".join(images.SUFFIXES)
        raise InvalidInputError(
            f"{folder}: contains no calibration images; supported suffixes are {known}"
        )
    as_it_is = low_resolution or scale == 1
    return [ImageEntry.of_one_file(_name(path, folder), path, as_it_is=as_it_is) for path in paths]


def load(entry: ImageEntry, channels: int, scale: int) -> FolderImage:
    """Read an image; an original is cropped to a multiple of the scale.

    Raises:
        NotFoundError, ImageError: It cannot be read.
        InvalidInputError: It is too small, or the sizes of a pair do not match.
    """
    low = None if entry.low is None else _plain(images.read(entry.low), channels)
    truth = None if entry.truth is None else _plain(images.read(entry.truth), channels)
    if truth is not None:
        height, width = (side // scale for side in truth.shape[:2])
        if not height or not width:
            raise InvalidInputError(f"{entry.truth}: too small to downscale by {scale}")
        if low is not None and low.shape[:2] != (height, width):
            raise InvalidInputError(
                f"{entry.low}: {low.shape[1]}x{low.shape[0]} pixels, but its original at "
                f"1/{scale} has {width}x{height}"
            )
        truth = truth[: height * scale, : width * scale]
    return FolderImage(scale, low, truth)


def _layout(folder: Path, scale: int) -> tuple[Path | None, Path | None]:
    """Return the subfolders of originals and of their low resolution at this scale."""
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
            f"{folder}: {_name(low, folder)} and {_name(high, folder)} have no pair of files; a "
            "pair has the same name, apart from x2, x3 or x4 at its end"
        )
    return entries


def _folders(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and each.name[0] != ".")


def _images(folder: Path, *, deep: bool = True) -> Iterator[Path]:
    """Yield the images in a folder, and in its subfolders if `deep`."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if each[0] != ".") if deep else []
        for name in sorted(names):
            if name[0] != "." and images.could_be_image(name):
                yield Path(parent, name)


def _name(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix()


def _plain(picture: images.Picture, channels: int) -> Pixels:
    """Return bytes (H, W, C) without alpha; one channel is gray, or green as the closest to it."""
    pixels = picture.eight_bits()
    if channels != pixels.shape[2]:
        pixels = np.repeat(pixels, 3, axis=2) if channels == 3 else pixels[..., 1:2]
    return np.ascontiguousarray(pixels)


def _resized(image: Pixels, height: int, width: int) -> Pixels:
    """Downscale with antialiased bicubic, in floats: on bytes, Pillow would round twice."""
    planes = [
        Image.fromarray(image[..., i].astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for i in range(image.shape[2])
    ]
    values = np.stack([np.asarray(plane) for plane in planes], axis=2)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _grown(piece: Pixels, size: tuple[int, int]) -> Pixels:
    """Return a copy extended to (height, width) by reflection at the bottom and right."""
    lacking = [(0, wanted - side) for wanted, side in zip(size, piece.shape[:2], strict=True)]
    return np.pad(piece, [*lacking, (0, 0)], mode="symmetric")


def _span(start: int, length: int, limit: int) -> slice:
    return slice(start, min(start + length, limit))


def _times(span: slice, factor: int) -> slice:
    return slice(span.start * factor, span.stop * factor)


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)
