"""Sixteen bits per sample, which Pillow reads but keeps only half of.

Pillow has no mode for 16-bit RGB: its unpackers keep the high byte of each sample. They can be
told the other byte order, though, and then keep the low byte. So a file is decoded twice, and
the halves are put together: every filter, compression and interlacing that Pillow knows, at its
speed, without code of our own for any of them.
"""

from __future__ import annotations

import sys
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION, TiffImageFile

from sr_deploy.errors import ImageError
from sr_deploy.images.opening import TiffFile, opened, raw_mode, translated
from sr_deploy.images.strips import rows_per_strip, strips

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

    from sr_deploy.images.picture import AnyPixels

    Words = NDArray[np.uint16]

_OTHER_ORDER = {"B": "L", "L": "B"}
_NATIVE = "L" if sys.byteorder == "little" else "B"
_WHITE_IS_ZERO, _SEPARATE_PLANES = 0, 2


def is_deep(image: ImageFile) -> bool:
    """Return whether an opened, not yet loaded file has 16-bit (or 12-bit gray) samples."""
    return (
        ";16" in raw_mode(image)
        or image.mode.startswith("I;16")
        or getattr(image, "deep_gray_alpha", False)
    )


def pixels_of(path: Path, file: IO[bytes], image: ImageFile) -> Words:
    """Return all bits of a file for which `is_deep` holds, as H,W or H,W,C.

    Raises:
        ImageError: the file is damaged, or keeps its samples in a way that is not read.
    """
    layout = raw_mode(image)
    kind, _, order = layout.partition(";16")
    if isinstance(image, TiffImageFile):
        _check_planes(path, image)
    if getattr(image, "deep_gray_alpha", False):
        return _paired(path, image, image.tag_v2.prefix == b"MM" and "raw" in image.tile[0][0])
    if kind.startswith("I"):
        return _gray(path, image, layout)
    if kind == "LA":
        _unpack_as(image, "RGBA")
        return _paired(path, image, big_endian=True)
    return _both_halves(path, file, image, kind, _NATIVE if order == "N" else order)


def _check_planes(path: Path, image: TiffImageFile) -> None:
    if image.tag_v2.get(PLANAR_CONFIGURATION) == _SEPARATE_PLANES and image.mode[0] != "I":
        raise ImageError(
            f"{path}: a 16-bit TIFF with its colours in separate planes is not read; "
            "save it interleaved (the usual kind), or as PNG"
        )


def _gray(path: Path, image: ImageFile, layout: str) -> Words:
    with translated(path):
        image.load()
        words = np.asarray(image).astype(np.uint16)
    if layout == "I;12":
        words = words << 4 | words >> 8  # white is 4095: repeat the high bits below
    if isinstance(image, TiffFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION, 1) == (
        _WHITE_IS_ZERO
    ):
        np.invert(words, out=words)
    return words


def _paired(path: Path, image: ImageFile, big_endian: bool) -> Words:
    """Return gray and alpha of an image that was decoded as four bytes per pixel."""
    with translated(path):
        image.load()
        quads = np.asarray(image)
    return quads.view(">u2" if big_endian else "<u2").astype(np.uint16)


def _both_halves(path: Path, file: IO[bytes], image: ImageFile, kind: str, order: str) -> Words:
    straight = kind.replace("a", "A")  # RGBa: colours multiplied by alpha, divided out below
    _unpack_as(image, f"{straight};16{order}")
    words = _loaded(path, image)
    image.close()
    with translated(path):
        again = opened(path, file)
        _unpack_as(again, f"{straight};16{_OTHER_ORDER[order]}")
        again.load()
        width, height = again.size
        for rows in strips(height, rows_per_strip(words)):
            block = words[rows]
            block <<= 8
            block |= np.asarray(again.crop((0, rows.start, width, rows.stop)))
            if "a" in kind:
                _divide_by_alpha(block)
    return words


def _loaded(path: Path, image: ImageFile) -> Words:
    with translated(path):
        image.load()
        width, height = image.size
        words = np.empty((height, width, len(image.getbands())), np.uint16)
        for rows in strips(height, rows_per_strip(words)):
            words[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)))
    return words


def _unpack_as(image: ImageFile, layout: str) -> None:
    """Have the samples of a file unpacked in another way than the plugin has chosen."""

    def changed(tile: Any) -> Any:
        arguments = layout if isinstance(tile[3], str) else (layout, *tile[3][1:])
        return getattr(tile, "_make", tuple)((*tile[:3], arguments))

    image.tile = [changed(tile) for tile in image.tile]


def _divide_by_alpha(block: AnyPixels) -> None:
    alpha = block[..., 3:].astype(np.float64)
    colours = block[..., :3] * (65535.0 / np.maximum(alpha, 1))
    block[..., :3] = np.minimum(np.rint(colours), 65535)
