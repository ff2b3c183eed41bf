"""Writing image files atomically, in the format of the file name's suffix."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from sr_deploy.errors import ImageError, InvalidInputError, NotFoundError, OutOfMemoryError
from sr_deploy.files import atomic_file
from sr_deploy.images import jpeg, png, strips, tiff
from sr_deploy.images.picture import exif_for

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from sr_deploy.images.picture import AnyPixels, Bytes, Metadata, Picture

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Format:
    name: str
    largest_side: int
    deep: bool = False
    alpha: bool = False
    profile: bool = True
    memory: int = 0
    """Peak memory of the encoder in bytes per pixel: measured on noise, the worst case."""
    lossless_memory: int = 0
    """The same with alpha or at quality 100."""


_LOSSLESS = 100
"""The quality at which WebP is lossless."""
_WEBP_EFFORT = 2
"""For lossy WebP, 0 to 6. Level 4, the default, keeps every decision in memory until the end: 37
bytes per pixel for noise and 15 for a photo. Level 2 takes 19 and 10 and half the time, for files
of the same size that are 0.05 to 0.45 dB worse (five photos, quality 95)."""

_PNG = _Format("PNG", (1 << 31) - 1, deep=True, alpha=True)
_TIFF = _Format("TIFF", (1 << 31) - 1, deep=True, alpha=True)
_JPEG = _Format("JPEG", 65500)
_WEBP = _Format("WebP", 16383, alpha=True, memory=20, lossless_memory=54)
_BMP = _Format("BMP", (1 << 31) - 1, profile=False, memory=4, lossless_memory=4)

_FORMATS = {
    ".png": _PNG,
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".jpe": _JPEG,
    ".jfif": _JPEG,
    ".webp": _WEBP,
    ".tif": _TIFF,
    ".tiff": _TIFF,
    ".bmp": _BMP,
}
SUFFIXES = tuple(_FORMATS)
"""The suffixes of image files, in lower case."""


def could_be_image(path: str | os.PathLike[str]) -> bool:
    """Return whether a file name has the suffix of a supported image format."""
    return Path(path).suffix.lower() in _FORMATS


def check_fits(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Check that `write` can write a picture of this size, before any work is done.

    Raises:
        InvalidInputError: The suffix is not one of SUFFIXES.
        ImageError: The picture is too large for the format.
    """
    form = _format_of(Path(path))
    if max(height, width) > form.largest_side:
        raise ImageError(
            f"{path}: {width}x{height} pixels exceed {form.name}'s limit of "
            f"{form.largest_side} per side; use PNG or TIFF"
        )


def writing_memory(path: str | os.PathLike[str], pixels: int, *, alpha: bool, quality: int) -> int:
    """Return the estimated peak memory of `write` in bytes, beside the picture itself."""
    form = _format_of(Path(path))
    lossless = alpha or quality == _LOSSLESS
    return strips.memory() + pixels * (form.lossless_memory if lossless else form.memory)


def write(path: str | os.PathLike[str], picture: Picture, *, quality: int = 95) -> None:
    """Write a picture; an existing file is replaced only when the new one is complete.

    PNG and TIFF keep everything. The other formats store 8 bits; JPEG and BMP have no alpha, so
    transparent areas become white. Each loss is logged as a warning.

    Args:
        path: The file; its suffix selects the format.
        picture: Pixels and metadata.
        quality: 1 to 100, for JPEG and WebP; at 100, WebP is lossless.

    Raises:
        InvalidInputError: The suffix is unknown, or the quality out of range.
        NotFoundError: The folder does not exist.
        ImageError: The picture is too large for the format, or the file cannot be written.
    """
    path = Path(path)
    pixels, metadata = picture.pixels, picture.metadata
    check_fits(path, *pixels.shape[:2])
    if not 1 <= quality <= 100:
        raise InvalidInputError(f"quality must be from 1 to 100, found {quality}")
    form = _format_of(path)
    _warn_of_losses(path, form, picture)
    with _translated(path), atomic_file(path) as temporary, temporary.open("wb") as file:
        if form is _PNG:
            png.write(file, pixels, metadata)
        elif form is _TIFF:
            tiff.write(file, pixels, metadata)
        elif form is _JPEG:
            jpeg.write(file, pixels, metadata, _opaque_bytes, quality)
        else:
            _write_through_pillow(file, form, picture, quality)


def _format_of(path: Path) -> _Format:
    try:
        return _FORMATS[path.suffix.lower()]
    except KeyError:
        known = " ".join(SUFFIXES)
        raise InvalidInputError(
            f"{path}: unknown image format; the name must end in one of {known}"
        ) from None


def _warn_of_losses(path: Path, form: _Format, picture: Picture) -> None:
    pixels = picture.pixels
    if pixels.itemsize > 1 and not form.deep:
        _log.warning(
            "%s: 16 bits are rounded to the 8 that %s stores; PNG and TIFF keep 16", path, form.name
        )
    if pixels.shape[2:] in ((2,), (4,)) and not form.alpha:
        _log.warning("%s: %s has no alpha; transparent areas become white", path, form.name)
    if picture.metadata.icc_profile and not form.profile:
        _log.warning("%s: %s stores no color profile; colors may shift", path, form.name)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise NotFoundError(f"{path.parent}: no such folder") from None
    except MemoryError:
        raise OutOfMemoryError(f"{path}: not enough memory to write the image") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ImageError(f"{path}: cannot be written: {reason}") from error


def _write_through_pillow(file: IO[bytes], form: _Format, picture: Picture, quality: int) -> None:
    pixels, metadata = picture.pixels, picture.metadata
    height, width = pixels.shape[:2]
    prepared = _bytes if form.alpha else _opaque_bytes
    image = Image.new(Image.fromarray(prepared(pixels[:1])).mode, (width, height))
    for rows in strips.strips(pixels):
        image.paste(Image.fromarray(prepared(pixels[rows])), (0, rows.start))
    options: dict[str, Any] = {}
    if form is _WEBP:
        options = {"quality": quality}
        options |= {"lossless": True} if quality == _LOSSLESS else {"method": _WEBP_EFFORT}
        options["exif"] = exif_for(metadata, height, width) or b""
        options["icc_profile"] = _profile_for_rgb(metadata) or b""
    elif metadata.dpi:
        options["dpi"] = metadata.dpi
    image.save(file, form.name, **options)


def _profile_for_rgb(metadata: Metadata) -> bytes | None:
    """Return the ICC profile, unless it is a gray one: WebP stores RGB only."""
    profile = metadata.icc_profile
    return None if profile and profile[16:20] == b"GRAY" else profile


def _bytes(rows: AnyPixels) -> Bytes:
    """Round samples to 8 bits."""
    if rows.dtype == np.uint8:
        return rows
    return ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _opaque_bytes(rows: AnyPixels) -> Bytes:
    """Round samples to 8 bits and blend alpha with white."""
    channels = rows.shape[2] if rows.ndim == 3 else 1
    if channels in (1, 3):
        return _bytes(rows)
    white = np.iinfo(rows.dtype).max
    alpha = rows[..., -1:].astype(np.uint32)
    mixed = rows[..., :-1] * alpha + white * (white - alpha)  # at most 65535**2: fits
    opaque = ((mixed + white // 2) // white).astype(rows.dtype)
    return _bytes(opaque[..., 0] if channels == 2 else opaque)
