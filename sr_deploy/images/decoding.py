"""Opening an image file with Pillow: format by content, bounded size, one-line errors.

Pillow's limit against decompression bombs is global to the process, too small for large
photographs, and at first only a warning. So each file is opened with its plugin's class, which has
no limit, and the size in the header is checked here.

Pillow has no mode for 16-bit RGB: its unpackers keep the high byte of each sample. Told the
opposite byte order, they keep the low byte. So such a file is decoded twice and the halves are
combined. This supports every filter, compression and interlacing that Pillow does, at its speed.
"""

from __future__ import annotations

import contextlib
import logging
import struct
import sys
import zlib
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile, PngStream
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    EXTRASAMPLES,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    PLANAR_CONFIGURATION,
    SAMPLESPERPIXEL,
    TiffImageFile,
)
from PIL.WebPImagePlugin import WebPImageFile

from sr_deploy.errors import ImageError, NotFoundError, OutOfMemoryError
from sr_deploy.images.strips import strips

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from PIL.ImageFile import ImageFile

    from sr_deploy.images.picture import AnyPixels

    Words = NDArray[np.uint16]

_log = logging.getLogger(__name__)

LARGEST_PIXELS = 1 << 30
"""The largest picture that is read, in pixels; a header with more is refused."""

_LARGEST_PROFILE = 64 << 20

_WHITE_IS_ZERO, _MIN_IS_BLACK, _RGB = 0, 1, 2
_STRAIGHT_ALPHA, _SEPARATE_PLANES = 2, 2
_OTHER_ORDER = {"B": "L", "L": "B"}
_NATIVE = "L" if sys.byteorder == "little" else "B"

# What Pillow's plugins raise on damaged files.
_DAMAGED = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)


class TiffFile(TiffImageFile):
    """A TIFF file without Pillow's size limit, and with support for 16-bit gray and alpha.

    Attributes:
        deep_gray_alpha: The file has 16-bit gray with straight alpha, which Pillow does not
            support. It is decoded as 8-bit RGBA, which has the same bytes.
    """

    deep_gray_alpha = False

    def _setup(self) -> None:
        tags = self.tag_v2
        found = [tags.get(tag) for tag in (PHOTOMETRIC_INTERPRETATION, BITSPERSAMPLE, EXTRASAMPLES)]
        if found == [_MIN_IS_BLACK, (16, 16), (_STRAIGHT_ALPHA,)]:
            self.deep_gray_alpha = True
            tags[PHOTOMETRIC_INTERPRETATION] = _RGB
            tags[BITSPERSAMPLE] = (8, 8, 8, 8)
            tags[SAMPLESPERPIXEL] = 4
        super()._setup()

    def load(self) -> Any:
        """Load the pixels into memory allocated here: Pillow's size limit is in its allocation."""
        if self.tile:
            size = (self.tag_v2[IMAGEWIDTH], self.tag_v2[IMAGELENGTH])
            self.im = Image.new(self.mode, size).im
        return super().load()


class PngFile(PngImageFile):
    """A PNG file with large texts and profiles, for which Pillow would reject the picture."""

    @property
    def png(self) -> PngStream | None:
        """The reader of the chunks, which Pillow sets once per file."""
        return self._stream

    @png.setter
    def png(self, stream: PngStream | None) -> None:
        self._stream = _PngChunks(stream.fp) if stream and stream.fp else None


class _PngChunks(PngStream):
    """Skips texts that Pillow refuses, and reads larger ICC profiles."""

    def call(self, cid: bytes, pos: int, length: int) -> bytes:
        """Handle a chunk and return its content."""
        try:
            return super().call(cid, pos, length)
        except ValueError:
            if cid not in (b"iCCP", b"tEXt", b"zTXt", b"iTXt"):
                raise
        assert self.fp is not None
        self.fp.seek(pos)
        content = self.fp.read(length)
        if cid == b"iCCP":
            compressed = content[content.find(b"\0") + 2 :]
            unpacker = zlib.decompressobj()
            self.im_info["icc_profile"] = unpacker.decompress(compressed, _LARGEST_PROFILE)
            if unpacker.unconsumed_tail:
                self.im_info["icc_profile"] = None
                _log.warning(
                    "%s: dropping an ICC profile of more than %d MiB; colors may shift",
                    self.fp.name,
                    _LARGEST_PROFILE >> 20,
                )
        return content


_READERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngFile),
    (b"\xff\xd8\xff", JpegImageFile),
    (b"II*\0", TiffFile),
    (b"MM\0*", TiffFile),
    (b"II+\0", TiffFile),
    (b"BM", BmpImageFile),
)


@contextlib.contextmanager
def translated(path: Path) -> Iterator[None]:
    """Convert whatever Pillow raises while reading a file to one of our errors, with the path."""
    try:
        yield
    except (ImageError, NotFoundError):
        raise
    except FileNotFoundError:
        raise NotFoundError(f"{path}: no such file") from None
    except MemoryError:
        raise OutOfMemoryError(f"{path}: does not fit into memory") from None
    except _DAMAGED as error:
        if isinstance(error, OSError) and error.strerror:
            raise ImageError(f"{path}: cannot be read: {error.strerror}") from error
        raise ImageError(f"{path}: damaged or unsupported image ({error})") from error


def opened(path: Path, file: IO[bytes]) -> ImageFile:
    """Read the header of an image file; call within `translated`.

    Raises:
        ImageError: The format is unsupported, or the image too large.
    """
    file.seek(0)
    head = file.read(12)
    if not head:
        raise ImageError(f"{path}: the file is empty")
    file.seek(0)
    image = _reader(path, head)(file)
    width, height = image.size
    if width * height > LARGEST_PIXELS:
        raise ImageError(
            f"{path}: {width}x{height} pixels exceed the limit of "
            f"{LARGEST_PIXELS / 1e6:.0f} million"
        )
    return image


def _reader(path: Path, head: bytes) -> type[ImageFile]:
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return WebPImageFile
    for signature, reader in _READERS:
        if head.startswith(signature):
            return reader
    raise ImageError(f"{path}: unsupported image format; use PNG, JPEG, WebP, TIFF or BMP")


def raw_mode(image: ImageFile) -> str:
    """Return Pillow's name for the sample layout (`RGB;16B`) of an image not yet loaded."""
    arguments: Any = image.tile[0][3] if image.tile else ""
    first = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return str(first)


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


def deep_pixels(path: Path, image: ImageFile) -> Words:
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
