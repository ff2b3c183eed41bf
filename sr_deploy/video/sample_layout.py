"""Layout of a frame's samples in memory, and its planes as numpy arrays."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import Interpolation

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from sr_deploy.images.picture import AnyPixels

_SUBSAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}
_SEMI_PLANAR = {
    **dict.fromkeys(("nv12", "nv16", "nv24", "p016le", "p216le", "p416le"), 0),
    **dict.fromkeys(("p012le", "p212le", "p412le"), 4),
    **dict.fromkeys(("p010le", "p210le", "p410le"), 6),
}
"""Formats with U and V interleaved in one plane, and the unused low bits of their samples."""


@dataclass(frozen=True)
class SampleLayout:
    """Samples of a pixel format.

    Attributes:
        planar: Format with the same samples and a plane for each component.
        bits: Of one sample.
        colors: 1 for gray, 3 for RGB and YUV.
        rgb: RGB, whose planes are in the order green, blue, red.
        alpha: The last plane is straight alpha.
        across: Width of a chroma sample in pixels.
        down: Height of a chroma sample in pixels.
    """

    planar: str
    bits: int
    colors: int
    rgb: bool
    alpha: bool
    across: int = 1
    down: int = 1

    @functools.cached_property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Of the samples."""
        return np.dtype("<u2") if self.bits > 8 else np.dtype("u1")


@functools.lru_cache
def layout(pixel_format: str) -> SampleLayout:
    """Return the layout of a pixel format.

    Raises:
        InvalidInputError: The format is not supported (floating point, raw sensor data, ...).
    """
    found = av.VideoFormat(pixel_format, 16, 16)
    components = found.components
    bits = max(8, *(part.bits for part in components)) if len(components) else 99
    depth = f"{bits}le" if bits > 8 else ""
    alpha = found.has_palette or any(part.is_alpha for part in components)
    letter = "a" if alpha else ""
    if len(components) == 1 and not alpha:
        result = SampleLayout(f"gray{depth}", bits, 1, rgb=False, alpha=False)
    elif found.is_rgb or found.has_palette or len(components) == 2:
        # Gray with alpha has no planar format; RGB with three equal colors holds the same.
        result = SampleLayout(f"gbr{letter}p{depth}", bits, 3, rgb=True, alpha=alpha)
    else:
        shared = 16 // found.chroma_width(), 16 // found.chroma_height()
        name = f"yuv{letter}{_SUBSAMPLINGS.get(shared, '?')}p{depth}"
        result = SampleLayout(name, bits, 3, False, alpha, *shared)
    supported = bits <= 16 and not any(
        part in pixel_format for part in ("f16", "f32", "bayer", "xyz")
    )
    try:
        av.VideoFormat(result.planar)
    except ValueError:
        supported = False
    if not supported:
        raise InvalidInputError(
            f"pixel format {pixel_format}: not supported; convert the video first, for example "
            "with ffmpeg -pix_fmt yuv444p16le"
        )
    return result


def plain_name(pixel_format: str) -> str:
    """Return a format's name without the range that FFmpeg once put into names (yuvj420p)."""
    return pixel_format.replace("yuvj", "yuv")


def repacked(frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """Return a frame with the same samples in another arrangement, or itself if it fits."""
    name = frame.format.name
    if pixel_format in (name, plain_name(name)):
        return frame
    if name not in _SEMI_PLANAR and pixel_format not in _SEMI_PLANAR:
        return frame.reformat(format=pixel_format, interpolation=Interpolation.POINT)
    # FFmpeg's conversion of semi-planar formats loses chroma in odd widths.
    result = av.VideoFrame(frame.width, frame.height, pixel_format)
    result.colorspace, result.color_range = frame.colorspace, frame.color_range
    down, up = _SEMI_PLANAR.get(name, 0), _SEMI_PLANAR.get(pixel_format, 0)
    for plane, target in zip(_components(frame), _components(result), strict=True):
        target[...] = plane >> down if down else plane << up
    return result


def _components(frame: av.VideoFrame) -> list[AnyPixels]:
    """Return Y, U and V of a planar or semi-planar frame."""
    found = planes(frame, layout(frame.format.name))
    return found if len(found) > 2 else [found[0], found[1][:, ::2], found[1][:, 1::2]]


def planes(frame: av.VideoFrame, kind: SampleLayout) -> list[AnyPixels]:
    """Return the planes of a planar or semi-planar frame, as views of its memory.

    Args:
        frame: Of the format `kind.planar`, or with U and V interleaved.
        kind: Its layout.
    """
    result = []
    sources = frame.planes
    for number, plane in enumerate(sources):
        rows = np.frombuffer(memoryview(plane), kind.dtype).reshape(plane.height, -1)
        if plane.line_size < 0:  # some decoders return pictures bottom up
            rows = rows[::-1]
        components = 2 if number == 1 and len(sources) == 2 else 1
        result.append(rows[:, : plane.width * components])
    return result
