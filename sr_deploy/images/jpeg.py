"""Writing JPEG files in strips.

Pillow's encoder needs a copy of the whole picture, a third larger than ours. But a JPEG can be cut
at restart markers: each strip is encoded as a picture with a restart after every row of blocks, and
the scans are concatenated under the header of the first. Restart markers count from 0 to 7 and
wrap around, so every strip has a multiple of eight rows of blocks.
"""

from __future__ import annotations

import logging
import struct
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

from PIL import Image

from sr_deploy.images.picture import exif_for
from sr_deploy.images.strips import strips

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_deploy.images.picture import AnyPixels, Bytes, Metadata

_log = logging.getLogger(__name__)

_ROWS = 64
_START_OF_FRAME, _START_OF_SCAN = 0xC0, 0xDA
_LAST_RESTART, _END_OF_IMAGE = b"\xff\xd7", b"\xff\xd9"
_LARGEST_SEGMENT = 65533
_LARGEST_DENSITY = 65535


def write(
    file: IO[bytes],
    pixels: AnyPixels,
    metadata: Metadata,
    prepared: Callable[[AnyPixels], Bytes],
    quality: int,
) -> None:
    """Write a JPEG file without chroma subsampling; `file` needs no seeking.

    Args:
        file: The file to write.
        pixels: A Picture's pixels.
        metadata: A Picture's metadata.
        prepared: Converts rows of pixels to uint8 (H, W) or (H, W, 3).
        quality: libjpeg's, 1 to 100.
    """
    for rows in strips(pixels, _ROWS):
        extra = _extra(metadata, *pixels.shape[:2]) if rows.start == 0 else {}
        encoded = _encoded(prepared(pixels[rows]), quality, extra)
        height_at, scan_at = _landmarks(encoded)
        if rows.start == 0:
            encoded[height_at : height_at + 2] = struct.pack(">H", len(pixels))
            file.write(encoded[:scan_at])
        else:
            file.write(_LAST_RESTART)
        file.write(encoded[scan_at : -len(_END_OF_IMAGE)])
    file.write(_END_OF_IMAGE)


def _extra(metadata: Metadata, height: int, width: int) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if metadata.icc_profile:
        extra["icc_profile"] = metadata.icc_profile
    if metadata.dpi and max(metadata.dpi) <= _LARGEST_DENSITY:
        extra["dpi"] = metadata.dpi
    if exif := exif_for(metadata, height, width):
        if len(exif) <= _LARGEST_SEGMENT:
            extra["exif"] = exif
        else:
            _log.warning("dropping EXIF of %d bytes: JPEG's limit is 64 KiB", len(exif))
    return extra


def _encoded(rows: Bytes, quality: int, extra: dict[str, Any]) -> bytearray:
    buffer = BytesIO()
    Image.fromarray(rows).save(
        buffer, "JPEG", quality=quality, subsampling=0, restart_marker_rows=1, **extra
    )
    return bytearray(buffer.getbuffer())


def _landmarks(encoded: bytearray) -> tuple[int, int]:
    """Return the offsets of the height and of the compressed scan."""
    height_at, position = 0, 2
    while True:
        marker, length = struct.unpack_from(">xBH", encoded, position)
        if marker == _START_OF_FRAME:
            height_at = position + 5
        position += 2 + length
        if marker == _START_OF_SCAN:
            return height_at, position
