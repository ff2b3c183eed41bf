"""Pictures to image files, by the suffix of the name, whole or not at all."""

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
from sr_deploy.images.metadata import exif_for

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
    """Bytes per pixel that the encoder takes at most: measured on noise, the worst, rounded up."""
    lossless_memory: int = 0
    """The same where there is alpha, and at quality 100."""


_LOSSLESS = 100
"""The quality at which WebP keeps every bit."""
_WEBP_EFFORT = 2
"""Of 0 to 6, for lossy WebP. More of it keeps every decision in memory until the end: 37 bytes per
pixel of noise and 15 of a photo where this takes 19 and 10, in half of the time, for files of the
same size that are 0.05 to 0.45 dB worse (five photos, quality 95)."""

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
"""The names that image files end in, lower case."""


def could_be_image(path: str | os.PathLike[str]) -> bool:
    """Return whether the name of a file says that it is an image of a kind that is read."""
    return Path(path).suffix.lower() in _FORMATS


def check_fits(path: str | os.PathLike[str], height: int, width: int) -> None:
    """Check, before any work, that `write` could put a picture of this size into this file.

    Raises:
        InvalidInputError: the name does not end in one of SUFFIXES.
        ImageError: the format does not hold so large a picture.
    """
    form = _format_of(Path(path))
    if max(height, width) > form.largest_side:
        raise ImageError(
            f"{path}: {form.name} holds at most {form.largest_side} pixels a side, this picture "
            f"has {width}x{height}; PNG and TIFF hold it"
        )


def writing_memory(path: str | os.PathLike[str], pixels: int, *, alpha: bool, quality: int) -> int:
    """Return about how many bytes `write` takes for so many pixels, beside the picture itself."""
    form = _format_of(Path(path))
    lossless = alpha or quality == _LOSSLESS
    return strips.memory() + pixels * (form.lossless_memory if lossless else form.memory)


def write(path: str | os.PathLike[str], picture: Picture, *, quality: int = 95) -> None:
    """Write a picture; what was at `path` before stays until all is written.

    PNG and TIFF hold everything. The others get 8 bits, rounded; JPEG and BMP have no alpha, so
    what is transparent becomes white; a warning says so.

    Args:
        path: where to; its suffix says the format.
        picture: the pixels and what goes with them.
        quality: 1 to 100, for JPEG and WebP; at 100, WebP is lossless.

    Raises:
        InvalidInputError: the suffix is of no known format, or the quality out of range.
        NotFoundError: the folder is not there.
        ImageError: the picture is too large for the format, or the file cannot be written.
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
            f"{path}: no image format by this name; it must end in one of {known}"
        ) from None


def _warn_of_losses(path: Path, form: _Format, picture: Picture) -> None:
    pixels = picture.pixels
    if pixels.itemsize > 1 and not form.deep:
        _log.warning(
            "%s: %s holds 8 bits; 16 are rounded to them (PNG and TIFF keep 16)", path, form.name
        )
    if pixels.shape[2:] in ((2,), (4,)) and not form.alpha:
        _log.warning("%s: %s has no transparency; it becomes white", path, form.name)
    if picture.metadata.icc_profile and not form.profile:
        _log.warning("%s: %s has no colour profile; colours may shift", path, form.name)


@contextlib.contextmanager
def _translated(path: Path) -> Iterator[None]:
    try:
        yield
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from None
    except FileNotFoundError:
        raise NotFoundError(f"{path.parent}: no such folder") from None
    except MemoryError:
        raise OutOfMemoryError(f"{path}: not enough memory to write it") from None
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
    """Return the profile unless it is for gray, which WebP has not."""
    profile = metadata.icc_profile
    return None if profile and profile[16:20] == b"GRAY" else profile


def _bytes(rows: AnyPixels) -> Bytes:
    """Return samples of 8 bits, rounded."""
    if rows.dtype == np.uint8:
        return rows
    return ((rows.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _opaque_bytes(rows: AnyPixels) -> Bytes:
    """Return samples of 8 bits without alpha, on white."""
    channels = rows.shape[2] if rows.ndim == 3 else 1
    if channels in (1, 3):
        return _bytes(rows)
    white = np.iinfo(rows.dtype).max
    alpha = rows[..., -1:].astype(np.uint32)
    mixed = rows[..., :-1] * alpha + white * (white - alpha)  # at most 65535**2: fits
    opaque = ((mixed + white // 2) // white).astype(rows.dtype)
    return _bytes(opaque[..., 0] if channels == 2 else opaque)
