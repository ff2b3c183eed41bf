"""Writing TIFF files of 8 or 16 bits, in strips, with several threads: deflate and prediction."""

from __future__ import annotations

from itertools import accumulate
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import TiffImagePlugin as Tags
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from sr_deploy.errors import ImageError
from sr_deploy.images.picture import tags_for
from sr_deploy.images.strips import deflated, in_order, strips

if TYPE_CHECKING:
    from sr_deploy.images.picture import AnyPixels, Metadata

_HEADER = b"II*\0\x08\0\0\0"
_LARGEST_FILE = (1 << 32) - 1
_MIN_IS_BLACK, _RGB = 1, 2
_DEFLATE, _DIFFERENCES, _STRAIGHT_ALPHA = 8, 2, 2
_WHOLE_STREAM = 15


def write(file: IO[bytes], pixels: AnyPixels, metadata: Metadata) -> None:
    """Write the pixels of a Picture as a TIFF file.

    Raises:
        ImageError: The file exceeds the 4 GiB that TIFF can address.
    """
    parts = strips(pixels)

    def encoded(rows: slice) -> bytes:
        return deflated(_differences(pixels[rows]), _WHOLE_STREAM)

    # The directory is at the start, where readers of streams need it. Its length is known before
    # its content, so it is written twice.
    directory = _directory(pixels, metadata, parts, [0] * len(parts))
    end = file.write(_HEADER) + file.write(directory)
    sizes = []
    for strip in in_order(encoded, parts):
        sizes.append(file.write(strip))
        end += sizes[-1]
        if end > _LARGEST_FILE:
            raise ImageError("larger than TIFF's limit of 4 GiB; write a PNG instead")
    file.seek(len(_HEADER))
    written = file.write(_directory(pixels, metadata, parts, sizes))
    assert written == len(directory)


def _directory(
    pixels: AnyPixels, metadata: Metadata, parts: list[slice], sizes: list[int]
) -> bytes:
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    tags = ImageFileDirectory_v2(_HEADER)
    for tag, value in tags_for(metadata, height, width).items():
        tags[tag] = value
    tags[Tags.IMAGEWIDTH] = width
    tags[Tags.IMAGELENGTH] = height
    tags[Tags.BITSPERSAMPLE] = (8 * pixels.itemsize,) * channels
    tags[Tags.SAMPLESPERPIXEL] = channels
    tags[Tags.PHOTOMETRIC_INTERPRETATION] = _RGB if channels > 2 else _MIN_IS_BLACK
    if channels in (2, 4):
        tags[Tags.EXTRASAMPLES] = _STRAIGHT_ALPHA
    tags[Tags.COMPRESSION] = _DEFLATE
    tags[Tags.PREDICTOR] = _DIFFERENCES
    tags[Tags.ROWSPERSTRIP] = parts[0].stop
    tags[Tags.STRIPBYTECOUNTS] = tuple(sizes)
    # Pillow counts these from the end of the directory.
    tags[Tags.STRIPOFFSETS] = tuple(accumulate(sizes, initial=0))[:-1]
    if metadata.icc_profile:
        tags[Tags.ICCPROFILE] = metadata.icc_profile
    return tags.tobytes(len(_HEADER))


def _differences(rows: AnyPixels) -> bytes:
    """Return little-endian differences of each sample and its left neighbor."""
    samples = np.array(rows, rows.dtype.newbyteorder("<"))
    samples[:, 1:] -= rows[:, :-1]
    return samples.tobytes()
