"""Reading 16 bits per sample, of which Pillow keeps only 8.

Pillow has no mode for 16-bit RGB: its unpackers keep the high byte of each sample. Told the
opposite byte order, they keep the low byte. So the file is decoded twice and the halves are
combined. This supports every filter, compression and interlacing that Pillow does, at its speed.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, PLANAR_CONFIGURATION

from sr_deploy.errors import ImageError
from sr_deploy.images.decoding import TiffFile, opened, raw_mode
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
    """Return whether an opened, not yet loaded image has more than 8 bits per sample."""
    if isinstance(image, TiffFile):
        return image.deep_gray_alpha or max(image.tag_v2.get(BITSPERSAMPLE, (1,))) > 8
    return ";16" in raw_mode(image)


def is_gray_alpha(image: ImageFile) -> bool:
    """Return whether an image has 16-bit gray and alpha, which Pillow reports as RGBA."""
    if isinstance(image, TiffFile):
        return image.deep_gray_alpha
    return raw_mode(image).startswith("LA;16")


def pixels_of(path: Path, image: ImageFile) -> Words:
    """Return the pixels of an image for which `is_deep` is true, as (H, W) or (H, W, C).

    Args:
        path: The file.
        image: Opened from `path`, not yet loaded.

    Raises:
        ImageError: The sample layout of a TIFF is unsupported.
        Exception: Whatever Pillow raises on a damaged file.
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
                f"{path}: 16-bit TIFF with separate color planes is not supported; "
                "save it with interleaved samples (the default of most programs) or as PNG"
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
    if layout == "I;12":  # white is 4095: fill the low bits with the high ones
        words = (words << np.uint16(4)) | (words >> np.uint16(8))
    if image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        np.invert(words, out=words)
    return words


def _paired(image: ImageFile, order: str) -> Words:
    """Return gray and alpha of an image that Pillow decodes as four bytes per pixel."""
    image.load()
    return np.asarray(image).view(order).astype(np.uint16)


def _both_halves(path: Path, image: ImageFile, kind: str, order: str) -> Words:
    straight = kind.upper()  # RGBa has premultiplied colors, which are divided below
    with path.open("rb") as file, opened(path, file) as again:
        _unpack_as(again, f"{straight};16{_OTHER_ORDER[order]}")
        words = _array(again)
        again.close()  # frees its memory
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
    """Replace the sample layout that Pillow's plugin has chosen."""

    def changed(tile: Any) -> Any:
        arguments = layout if isinstance(tile[3], str) else (layout, *tile[3][1:])
        return getattr(tile, "_make", tuple)((*tile[:3], arguments))

    image.tile = [changed(tile) for tile in image.tile]


def _divide_by_alpha(block: AnyPixels) -> None:
    alpha = block[..., 3:].astype(np.float64)
    colors = block[..., :3] * (65535.0 / np.maximum(alpha, 1))
    block[..., :3] = np.minimum(np.rint(colors), 65535)
