"""Sixteen bits per sample, which Pillow reads but keeps only half of.

Pillow has no mode for 16-bit RGB: its unpackers keep the high byte of each sample. They can be
told the other byte order, though, and then keep the low byte. So a file is decoded twice, and
the halves are put together: every filter, compression and interlacing that Pillow knows, at its
speed, without code of our own for any of them.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION

from sr_deploy.errors import ImageError
from sr_deploy.images.opening import TiffFile, opened, raw_mode
from sr_deploy.images.strips import strips

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL import Image
    from PIL.ImageFile import ImageFile

    from sr_deploy.images.picture import AnyPixels

    Words = NDArray[np.uint16]

_OTHER_ORDER = {"B": "L", "L": "B"}
_NATIVE = "L" if sys.byteorder == "little" else "B"
_WHITE_IS_ZERO, _SEPARATE_PLANES = 0, 2


def is_deep(image: ImageFile) -> bool:
    """Return whether an opened, not yet loaded file has more than 8 bits per sample."""
    if isinstance(image, TiffFile):
        return image.deep_gray_alpha or max(image.tag_v2.get(BITSPERSAMPLE, (1,))) > 8
    return ";16" in raw_mode(image)


def is_gray_alpha(image: ImageFile) -> bool:
    """Return whether it has 16-bit gray and alpha, which Pillow shows as RGBA."""
    if isinstance(image, TiffFile):
        return image.deep_gray_alpha
    return raw_mode(image).startswith("LA;16")


def pixels_of(path: Path, image: ImageFile) -> Words:
    """Return all bits of a file for which `is_deep` holds, as H,W or H,W,C.

    `image` is opened from `path`, and not yet loaded.

    Raises:
        ImageError: a TIFF keeps its samples in a way that is not read.
        Exception: what Pillow raises on a damaged file.
    """
    kind, _, order = raw_mode(image).partition(";16")
    if isinstance(image, TiffFile):
        if image.deep_gray_alpha:
            swapped = (
                raw_mode(image) and image.tag_v2.prefix == b"MM" and not image.use_load_libtiff
            )
            return _paired(image, ">u2" if swapped else "<u2")
        if kind.startswith("I"):
            return _tiff_gray(image)
        if image.tag_v2.get(PLANAR_CONFIGURATION) == _SEPARATE_PLANES:
            raise ImageError(
                f"{path}: a 16-bit TIFF with its colours in separate planes is not read; "
                "save it interleaved (the usual kind), or as PNG"
            )
    if kind == "I":
        return _array(image)
    if kind == "LA":
        _unpack_as(image, "RGBA")
        return _paired(image, ">u2")
    return _both_halves(path, image, kind, _NATIVE if order == "N" else order)


def _tiff_gray(image: TiffFile) -> Words:
    layout = raw_mode(image)
    words = _array(image)
    if layout == "I;12":  # white is 4095: repeat the high bits below
        words = (words << np.uint16(4)) | (words >> np.uint16(8))
    if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        np.invert(words, out=words)
    return words


def _paired(image: ImageFile, order: str) -> Words:
    """Return gray and alpha of an image that is decoded as four bytes per pixel."""
    image.load()
    return np.asarray(image).view(order).astype(np.uint16)


def _both_halves(path: Path, image: ImageFile, kind: str, order: str) -> Words:
    straight = kind.upper()  # RGBa has colours multiplied by alpha: divided out below
    with path.open("rb") as file, opened(path, file) as again:
        _unpack_as(again, f"{straight};16{_OTHER_ORDER[order]}")
        words = _array(again)
        again.close()  # gives its memory back
    _unpack_as(image, f"{straight};16{order}")
    image.load()
    for rows in strips(words):
        block = words[rows]
        block |= np.asarray(_cut(image, rows)).astype(np.uint16) << 8
        if kind != straight:
            _divide_by_alpha(block)
    return words


def _array(image: ImageFile) -> Words:
    image.load()
    width, height = image.size
    channels = len(image.getbands())
    words = np.empty((height, width, channels) if channels > 1 else (height, width), np.uint16)
    for rows in strips(words):
        words[rows] = np.asarray(_cut(image, rows))
    return words


def _cut(image: Image.Image, rows: slice) -> Image.Image:
    return image.crop((0, rows.start, image.width, rows.stop))


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
