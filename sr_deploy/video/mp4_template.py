"""Template of a video stream with a display matrix and HDR metadata: an MP4 file without pictures.

PyAV lets a program set a stream's size and colors, but not its HDR metadata, and its display matrix
only from PyAV 17 on; it copies both from the template of a stream that was read. So this makes one.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from sr_deploy.video.color import HdrMetadata, MasteringDisplay

UPRIGHT = (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
"""Display matrix without rotation, mirroring or shift."""

_FOURCC = {
    "h264": b"avc1",
    "hevc": b"hvc1",
    "av1": b"av01",
    "vp9": b"vp09",
    "vp8": b"VP80",
    "prores": b"apch",
    "ffv1": b"FFV1",
    "mpeg4": b"mp4v",
    "mjpeg": b"mjpg",
    "dnxhd": b"AVdn",
    "huffyuv": b"HFYU",
    "ffvhuff": b"FFVH",
}
CODECS = tuple(_FOURCC)
"""FFmpeg's names of the supported codecs."""
_LARGEST = (1 << 31) - 1
"""Largest fixed-point number of a matrix."""
_CHROMATICITY = 50000
"""Units of `mdcv` per 1."""
_LUMINANCE = 10000
"""Units of `mdcv` per cd/m2."""


@dataclass(frozen=True)
class Mp4Template:
    """Properties of a stream that PyAV cannot set.

    Attributes:
        codec: FFmpeg's name of the codec.
        matrix: Display matrix, in fixed-point numbers of 16.16 and, every third, 2.30 bits.
        hdr: HDR10 metadata; None for none.
    """

    codec: str
    matrix: tuple[int, ...] = UPRIGHT
    hdr: HdrMetadata | None = None

    def to_mp4(self) -> bytes:
        """Return a file with one video stream, whose other properties are placeholders.

        Raises:
            InvalidInputError: The codec is not supported.
        """
        if self.codec not in _FOURCC:
            raise InvalidInputError(
                f"unsupported codec {self.codec}; choose an encoder of {', '.join(_FOURCC)}"
            )
        sample = _box(_FOURCC[self.codec], _VISUAL, *_hdr_boxes(self.hdr))
        table = _box(
            b"stbl",
            _full_box(b"stsd", _numbers(1), sample),
            *(_full_box(name, _numbers(0)) for name in (b"stts", b"stsc", b"stco")),
            _full_box(b"stsz", _numbers(0, 0)),
        )
        data = _box(b"dinf", _full_box(b"dref", _numbers(1), _full_box(b"url ", flags=1)))
        media = _box(
            b"mdia",
            _full_box(b"mdhd", _numbers(0, 0, 1000, 0, 0)),
            _full_box(b"hdlr", bytes(4), b"vide", bytes(13)),
            _box(b"minf", _full_box(b"vmhd", bytes(8), flags=1), data, table),
        )
        matrix = struct.pack(">9i", *self.matrix)
        track = _full_box(b"tkhd", _numbers(0, 0, 1, 0, 0, 0, 0, 0, 0), matrix, bytes(8), flags=3)
        movie = _full_box(
            b"mvhd",
            _numbers(0, 0, 1000, 0, 1 << 16, 1 << 24, 0, 0),
            struct.pack(">9i", *UPRIGHT),
            bytes(24),
            _numbers(2),
        )
        file_type = _box(b"ftyp", b"isom", bytes(4), b"isom")
        return file_type + _box(b"moov", movie, _box(b"trak", track, media))


def scaled_matrix(matrix: tuple[int, ...], factor: Fraction) -> tuple[int, ...]:
    """Return a display matrix for larger pictures: its shift grows with them, up to the limit."""
    a, b, u, c, d, v, x, y, w = matrix
    x, y = (_within(-_LARGEST - 1, each * factor, _LARGEST) for each in (x, y))
    return a, b, u, c, d, v, x, y, w


_VISUAL = struct.pack(">6xH16xHHII4xH32xHh", 1, 16, 16, 72 << 16, 72 << 16, 1, 24, -1)
"""Fields of a visual sample entry: 16x16 pixels, 72 dpi, 24 bits, no palette."""


def _hdr_boxes(hdr: HdrMetadata | None) -> list[bytes]:
    if hdr is None:
        return []
    boxes = []
    if hdr.mastering is not None and (body := _mastering_body(hdr.mastering)):
        boxes.append(_box(b"mdcv", body))
    if hdr.content_light is not None:
        levels = (_within(0, Fraction(each), 0xFFFF) for each in hdr.content_light)
        boxes.append(_box(b"clli", struct.pack(">HH", *levels)))
    return boxes


def _mastering_body(mastering: MasteringDisplay) -> bytes | None:
    """Return the body of `mdcv`; None for incomplete metadata, which it cannot express."""
    points = (mastering.green, mastering.blue, mastering.red, mastering.white)
    light = (mastering.max_luminance, mastering.min_luminance)
    if None in points or None in light:
        return None
    flat = [
        _within(0, value * _CHROMATICITY, 0xFFFF) for point in points if point for value in point
    ]
    levels = (_within(0, (value or Fraction(0)) * _LUMINANCE, 0xFFFFFFFF) for value in light)
    return struct.pack(">8H2I", *flat, *levels)


def _within(least: int, value: Fraction, most: int) -> int:
    return max(least, min(round(value), most))


def _box(name: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _full_box(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    return _box(name, _numbers(flags), *parts)


def _numbers(*values: int) -> bytes:
    return struct.pack(f">{len(values)}I", *values)
