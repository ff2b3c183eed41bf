"""Reading image files: channels and bit depth are kept, the EXIF orientation is applied."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from sr_deploy.errors import ImageError
from sr_deploy.images import png
from sr_deploy.images.decoding import (
    LARGEST_PIXELS,
    deep_pixels,
    is_deep,
    is_gray_alpha,
    opened,
    raw_mode,
    translated,
)
from sr_deploy.images.picture import (
    Metadata,
    Picture,
    descriptive_exif,
    exif_of,
    exif_orientation,
    exif_resolution,
)
from sr_deploy.images.strips import strips

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from sr_deploy.images.picture import AnyPixels, Bytes

__all__ = ["LARGEST_PIXELS", "Header", "inspect", "read"]

_log = logging.getLogger(__name__)

_CHANNELS = {"1": 1, "L": 1, "LA": 2, "La": 2, "P": 3, "PA": 4, "RGB": 3, "RGBX": 3, "RGBA": 4}
_CHANNELS |= {"RGBa": 4, "CMYK": 3, "YCbCr": 3}
_REFUSED = {
    "F": "floating-point samples",
    "I": "32-bit or signed samples",
    "LAB": "Lab colors",
    "HSV": "HSV colors",
}
# Bytes per pixel while decoding. Pillow holds four, twice when it converts CMYK. WebP's decoder is
# made for animations and holds several frames, even of a photo; measured: 13.3.
_CONVERTING = 8
_DECODING = {"WEBP": 14}
# Pillow scales samples of fewer than 8 bits to 0..255, but not the value of the transparent color.
_KEY_SCALES = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Header:
    """The header of an image file."""

    height: int
    width: int
    channels: int
    bits: int
    decoding: int
    """Estimated peak memory of `read` in bytes, beside the array that it returns."""

    @property
    def alpha(self) -> bool:
        """Whether one channel is alpha."""
        return self.channels in (2, 4)

    @property
    def bytes(self) -> int:
        """Size of the array that `read` returns."""
        return self.height * self.width * self.channels * self.bits // 8


def inspect(path: str | os.PathLike[str]) -> Header:
    """Read only the header of an image file.

    Height and width are as stored, before any rotation by EXIF.

    Raises:
        NotFoundError, ImageError: As `read`.
    """
    path = Path(path)
    with translated(path), path.open("rb") as file, opened(path, file) as image:
        bits = 16 if is_deep(image) else 8
        decoding = image.height * image.width * _DECODING.get(image.format or "", _CONVERTING)
        decoding += os.fstat(file.fileno()).st_size  # some decoders hold the whole file
        return Header(image.height, image.width, _channels(image), bits, decoding)


def read(path: str | os.PathLike[str]) -> Picture:
    """Read an image file: gray stays gray, alpha stays alpha, 16 bits stay 16 bits.

    The EXIF orientation is applied. A palette becomes RGB, or RGBA if it has transparency; one bit
    becomes gray; CMYK becomes sRGB through its profile. Of an animation or a file with several
    pages, only the first is read, with a warning.

    Raises:
        NotFoundError: The file does not exist.
        ImageError: The file cannot be read, is in an unsupported format, damaged or truncated, has
            more than LARGEST_PIXELS, or samples that cannot be upscaled (floating point, Lab).
    """
    path = Path(path)
    with translated(path), path.open("rb") as file, opened(path, file) as image:
        if getattr(image, "is_animated", False):
            _log.warning("%s: contains several images; only the first is read", path)
        if image.mode in _REFUSED and image.format != "PNG":  # old Pillows call 16-bit gray I
            raise ImageError(
                f"{path}: {_REFUSED[image.mode]} are not supported; save the image as 16-bit RGB"
            )
        if isinstance(image, TiffImageFile):
            about = _metadata(path, file, image)  # first: loading closes the file
            return Picture(_pixels(path, image), about)  # Pillow rotates TIFF files itself
        pixels = _pixels(path, image)
        turn = exif_orientation(exif_of(image, path))
        return Picture(_upright(pixels, turn), _metadata(path, file, image, turned=turn > 4))


def _channels(image: ImageFile) -> int:
    if is_gray_alpha(image):
        return 2
    if image.mode == "I" or image.mode.startswith("I;16"):
        channels = 1
    else:
        channels = _CHANNELS.get(image.mode, 4)
    return channels + ("transparency" in image.info)


def _metadata(path: Path, file: IO[bytes], image: ImageFile, *, turned: bool = False) -> Metadata:
    exif = exif_of(image, path)
    block = descriptive_exif(exif, path)
    dpi = image.info.get("dpi") or exif_resolution(exif)
    return Metadata(
        icc_profile=None if image.mode == "CMYK" else image.info.get("icc_profile") or None,
        exif=block,
        dpi=_plain(dpi, turned=turned),
        png_color=png.color_chunks(file) if image.format == "PNG" else (),
    )


def _pixels(path: Path, image: ImageFile) -> AnyPixels:
    layout = raw_mode(image)
    key = image.info.get("transparency") if image.mode not in ("P", "PA") else None
    if image.mode == "CMYK" and is_deep(image):
        _log.warning("%s: converting 16-bit CMYK to RGB reduces it to 8 bits", path)
    elif is_deep(image):
        return _with_key(deep_pixels(path, image), key)
    image.load()
    pixels = _array(_plain_mode(path, image))
    if isinstance(key, int):
        key *= _KEY_SCALES.get(layout, 1)
    return _with_key(pixels, key)


def _plain_mode(path: Path, image: Image.Image) -> Image.Image:
    """Convert an image to mode L, LA, RGB or RGBA."""
    mode = image.mode
    if mode == "CMYK":
        return _from_cmyk(path, image)
    if mode == "P":
        return image.convert("RGBA" if "transparency" in image.info else "RGB")
    simpler = {"1": "L", "La": "LA", "PA": "RGBA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB"}
    return image.convert(simpler[mode]) if mode in simpler else image


def _from_cmyk(path: Path, image: Image.Image) -> Image.Image:
    """Convert CMYK to sRGB, the profile that viewers assume by default."""
    profile = image.info.get("icc_profile")
    if not profile:
        _log.warning("%s: CMYK without a color profile; colors are approximate", path)
        return image.convert("RGB")
    try:
        converted = ImageCms.profileToProfile(
            image,
            ImageCms.ImageCmsProfile(BytesIO(profile)),
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, OSError) as error:
        _log.warning("%s: damaged CMYK profile (%s); colors are approximate", path, error)
        return image.convert("RGB")
    assert converted is not None  # None means: converted in place
    return converted


def _array(image: Image.Image) -> Bytes:
    """Copy the pixels in strips: np.asarray(image) would hold three copies."""
    width, height = image.size
    channels = len(image.getbands())
    pixels = np.empty((height, width, channels) if channels > 1 else (height, width), np.uint8)
    for rows in strips(pixels):
        pixels[rows] = np.asarray(image.crop((0, rows.start, width, rows.stop)))
    return pixels


def _with_key(pixels: AnyPixels, key: object) -> AnyPixels:
    """Add the alpha channel of a PNG that declares one color transparent."""
    if not isinstance(key, int | tuple):
        return pixels
    colors = pixels if pixels.ndim == 3 else pixels[..., None]
    opaque = (colors != np.array(key)).any(axis=2, keepdims=True)
    alpha = opaque * np.array(np.iinfo(pixels.dtype).max, pixels.dtype)
    return np.concatenate([colors, alpha], axis=2)


def _upright(pixels: AnyPixels, orientation: int) -> AnyPixels:
    """Return a view with the EXIF orientation applied."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _plain(dpi: object, turned: bool) -> tuple[float, float] | None:
    """Return a resolution as two positive numbers; None if it is not one."""
    if not isinstance(dpi, tuple) or len(dpi) != 2:
        return None
    try:
        across, down = (float(each) for each in dpi)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    if not (0 < across < 1e6 and 0 < down < 1e6):
        return None
    return (down, across) if turned else (across, down)
