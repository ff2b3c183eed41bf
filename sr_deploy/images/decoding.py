"""Opening an image file with Pillow: format by content, bounded size, one-line errors.

Pillow's limit against decompression bombs is global to the process, too small for large
photographs, and at first only a warning. So each file is opened with its plugin's class, which has
no limit, and the size in the header is checked here.
"""

from __future__ import annotations

import contextlib
import struct
import zlib
from typing import IO, TYPE_CHECKING, Any

from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import (
    BITSPERSAMPLE,
    EXTRASAMPLES,
    IMAGELENGTH,
    IMAGEWIDTH,
    PHOTOMETRIC_INTERPRETATION,
    SAMPLESPERPIXEL,
    TiffImageFile,
)
from PIL.WebPImagePlugin import WebPImageFile

from sr_deploy.errors import ImageError, NotFoundError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL.ImageFile import ImageFile

LARGEST_PIXELS = 1 << 30
"""The largest picture that is read, in pixels; a header with more is refused."""

_MIN_IS_BLACK, _RGB, _STRAIGHT_ALPHA = 1, 2, 2

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


_READERS: tuple[tuple[bytes, type[ImageFile]], ...] = (
    (b"\x89PNG\r\n\x1a\n", PngImageFile),
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


def raw_mode(image: ImageFile) -> str:
    """Return Pillow's name for the sample layout (`RGB;16B`) of an image not yet loaded."""
    arguments: Any = image.tile[0][3] if image.tile else ""
    first = arguments if isinstance(arguments, str) else arguments[0] if arguments else ""
    return str(first)


def _reader(path: Path, head: bytes) -> type[ImageFile]:
    if head[:4] == b"RIFF" and head[8:] == b"WEBP":
        return WebPImageFile
    for signature, reader in _READERS:
        if head.startswith(signature):
            return reader
    raise ImageError(f"{path}: unsupported image format; use PNG, JPEG, WebP, TIFF or BMP")
