"""The content of an image file: pixels and metadata.

EXIF blocks are reduced to the tags that stay true after a picture is rotated and upscaled.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.ExifTags import IFD, Base

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8] | NDArray[np.uint16]
    Bytes = NDArray[np.uint8]
    AnyPixels = NDArray[Any]

_log = logging.getLogger(__name__)

# These tags describe the picture. The others in the main directory describe the layout of the
# original TIFF file or thumbnail.
_DESCRIPTIVE = (
    Base.ImageDescription,
    Base.Make,
    Base.Model,
    Base.Software,
    Base.DateTime,
    Base.Artist,
    Base.HostComputer,
    Base.Rating,
    Base.RatingPercent,
    Base.Copyright,
    Base.XPTitle,
    Base.XPComment,
    Base.XPAuthor,
    Base.XPKeywords,
    Base.XPSubject,
)
_INCH, _CENTIMETRE = 2, 3
# What Pillow raises on a damaged block: it has no exception class for that.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    struct.error,
)


@dataclass(frozen=True)
class Metadata:
    """The metadata of a picture; each file format keeps what it can store."""

    icc_profile: bytes | None = None
    exif: bytes | None = None
    """An EXIF block without orientation (already applied) and thumbnail."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical pixels per inch."""
    png_color: tuple[tuple[bytes, bytes], ...] = ()
    """Name and content of the PNG chunks that define the color space."""


@dataclass(frozen=True, eq=False)
class Picture:
    """The pixels and the metadata of an image file."""

    pixels: Pixels
    """(H, W) for gray, else (H, W, C) with C = 2 (gray, alpha), 3 (RGB) or 4 (RGBA).

    uint8 or uint16, with straight (not premultiplied) alpha. May be a non-contiguous view.
    """
    metadata: Metadata = field(default_factory=Metadata)

    def eight_bits(self) -> Bytes:
        """Return the pixels as uint8 (H, W, C) with C = 1 (gray) or 3 (RGB), without alpha."""
        pixels = self.pixels.reshape(*self.pixels.shape[:2], -1)
        pixels = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
        if pixels.dtype == np.uint16:
            return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return np.ascontiguousarray(pixels, np.uint8)


def exif_of(image: Image.Image, path: Path) -> Image.Exif:
    """Return the EXIF tags of an opened image; loads a PNG, whose EXIF may be at its end."""
    try:
        return image.getexif()
    except _DAMAGED as error:
        _log.warning("%s: dropping the damaged EXIF block (%s)", path, error)
        return Image.Exif()


def descriptive_exif(exif: Image.Exif, path: Path) -> bytes | None:
    """Return a block with the descriptive tags only; None if there are none."""
    try:
        tags = _descriptive(exif)
        return _packed(tags) if tags else None
    except _DAMAGED as error:
        _log.warning("%s: dropping the damaged EXIF block (%s)", path, error)
        return None


def exif_orientation(exif: Image.Exif) -> int:
    """Return the EXIF orientation, 1 (upright) to 8."""
    try:
        value = exif.get(Base.Orientation, 1)
    except _DAMAGED:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def exif_resolution(exif: Image.Exif) -> tuple[float, float] | None:
    """Return the resolution in pixels per inch."""
    try:
        unit = exif.get(Base.ResolutionUnit, _INCH)
        across, down = (float(exif[tag]) for tag in (Base.XResolution, Base.YResolution))
    except _DAMAGED:
        return None
    factor = {_INCH: 1.0, _CENTIMETRE: 2.54}.get(unit)
    return (across * factor, down * factor) if factor else None


def tags_for(metadata: Metadata, height: int, width: int) -> dict[int, Any]:
    """Return the tags for a picture of this size; a group of tags is a nested dict."""
    tags = _descriptive(_parsed(metadata.exif))
    if metadata.dpi:
        across, down = metadata.dpi
        tags |= {Base.XResolution: across, Base.YResolution: down, Base.ResolutionUnit: _INCH}
    if IFD.Exif in tags:
        tags[IFD.Exif] |= {Base.ExifImageWidth: width, Base.ExifImageHeight: height}
    return tags


def exif_for(metadata: Metadata, height: int, width: int) -> bytes | None:
    """Return the EXIF block for a picture of this size; None without any tags."""
    tags = tags_for(metadata, height, width)
    return _packed({Base.Orientation: 1, **tags}) if tags else None


def _parsed(block: bytes | None) -> Image.Exif:
    """Return the tags of a block."""
    exif = Image.Exif()
    exif.load(block or b"")
    return exif


def _descriptive(exif: Image.Exif) -> dict[int, Any]:
    tags: dict[int, Any] = {tag: exif[tag] for tag in _DESCRIPTIVE if tag in exif}
    for group in (IFD.Exif, IFD.GPSInfo):
        if values := dict(exif.get_ifd(group)):
            tags[group] = values
    if IFD.Interop in tags.get(IFD.Exif, {}):
        tags[IFD.Exif][IFD.Interop] = dict(exif.get_ifd(IFD.Interop))
    return tags


def _packed(tags: dict[int, Any]) -> bytes:
    exif = Image.Exif()
    for tag, value in tags.items():
        exif[tag] = value
    return exif.tobytes()
