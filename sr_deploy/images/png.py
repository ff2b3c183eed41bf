"""Writing PNG files of 8 or 16 bits, in strips, with several threads.

Pillow cannot write 16-bit RGB and copies the picture. Here numpy filters each strip and zlib
compresses it separately: deflate streams can be concatenated.
"""

from __future__ import annotations

import math
import struct
import zlib
from typing import IO, TYPE_CHECKING

import numpy as np

from sr_deploy.images.picture import exif_for
from sr_deploy.images.strips import deflated, in_order, strips

if TYPE_CHECKING:
    from sr_deploy.images.picture import AnyPixels, Bytes, Metadata

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
# The chunks that define the color space beside the ICC profile: HDR, sRGB, gamma and primaries.
_COLOR_CHUNKS = (b"cICP", b"mDCV", b"cLLI", b"sRGB", b"gAMA", b"cHRM")
_LARGEST_COLOR_CHUNK = 64
_PAETH = 4
_METRE_PER_INCH = 0.0254
_ZLIB_HEADER = b"\x78\x9c"
_RAW = -15  # window bits of a deflate stream without zlib's header and checksum


def color_chunks(file: IO[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    """Return name and content of the chunks that define the color space of a PNG file."""
    found = []
    file.seek(len(_SIGNATURE))
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name == b"IDAT":
            break
        if name in _COLOR_CHUNKS and length <= _LARGEST_COLOR_CHUNK:
            found.append((name, file.read(length)))
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)
    return tuple(found)


def write(file: IO[bytes], pixels: AnyPixels, metadata: Metadata) -> None:
    """Write the pixels of a Picture as a PNG file; `file` needs no seeking."""
    height, width = pixels.shape[:2]
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    header = (width, height, 8 * pixels.itemsize, _COLOR_TYPES[channels], 0, 0, 0)
    file.write(_SIGNATURE)
    _write_chunk(file, b"IHDR", struct.pack(">IIBBBBB", *header))
    _write_metadata(file, metadata, height, width)

    def encoded(rows: slice) -> tuple[bytes, bytes]:
        above = _big_endian(pixels[max(rows.start - 1, 0) : rows.start])
        filtered = _filtered(above, _big_endian(pixels[rows]), channels * pixels.itemsize)
        flush = zlib.Z_FINISH if rows.stop == height else zlib.Z_FULL_FLUSH
        return filtered, deflated(filtered, _RAW, flush)

    checksum = 1
    content = _ZLIB_HEADER
    for filtered, compressed in in_order(encoded, strips(pixels)):
        checksum = zlib.adler32(filtered, checksum)
        _write_chunk(file, b"IDAT", content + compressed)
        content = b""
    _write_chunk(file, b"IDAT", struct.pack(">I", checksum))
    _write_chunk(file, b"IEND", b"")


def _write_metadata(file: IO[bytes], metadata: Metadata, height: int, width: int) -> None:
    for name, content in metadata.png_color:
        if not (name == b"sRGB" and metadata.icc_profile):  # only one of them is allowed
            _write_chunk(file, name, content)
    if metadata.icc_profile:
        profile = b"ICC profile\0\0" + zlib.compress(metadata.icc_profile)
        _write_chunk(file, b"iCCP", profile)
    if metadata.dpi:
        per_metre = (round(each / _METRE_PER_INCH) for each in metadata.dpi)
        _write_chunk(file, b"pHYs", struct.pack(">IIB", *per_metre, 1))
    if exif := exif_for(metadata, height, width):
        _write_chunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))


def _write_chunk(file: IO[bytes], name: bytes, content: bytes) -> None:
    file.write(struct.pack(">I4s", len(content), name))
    file.write(content)
    file.write(struct.pack(">I", zlib.crc32(content, zlib.crc32(name))))


def _big_endian(rows: AnyPixels) -> Bytes:
    """Return rows of pixels as rows of bytes."""
    samples = np.ascontiguousarray(rows, rows.dtype.newbyteorder(">"))
    return samples.view(np.uint8).reshape(len(rows), rows.itemsize * math.prod(rows.shape[1:]))


def _filtered(above: Bytes, rows: Bytes, pixel_bytes: int) -> bytes:
    """Return rows of bytes with the Paeth filter applied, each prefixed by the filter's number.

    The filter predicts each byte from its left, upper or upper left neighbor, whichever is closest
    to left + upper - upper left, and stores the difference.
    """
    height, width = rows.shape
    known = np.zeros((height + 1, pixel_bytes + width), np.int16)
    known[1 - len(above) : 1, pixel_bytes:] = above
    known[1:, pixel_bytes:] = rows
    left, upper, corner = (
        known[1:, :-pixel_bytes],
        known[:-1, pixel_bytes:],
        known[:-1, :-pixel_bytes],
    )
    to_left, to_upper = upper - corner, left - corner
    to_corner = np.abs(to_left + to_upper)
    np.abs(to_left, out=to_left)
    np.abs(to_upper, out=to_upper)
    nearest = np.where(to_upper <= to_corner, upper, corner)
    use_left = (to_left <= to_upper) & (to_left <= to_corner)
    np.copyto(nearest, left, where=use_left)
    filtered = np.empty((height, 1 + width), np.uint8)
    filtered[:, 0] = _PAETH
    np.subtract(rows, nearest, out=filtered[:, 1:], casting="unsafe")
    return filtered.tobytes()
