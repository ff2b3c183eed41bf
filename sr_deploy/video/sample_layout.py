"""How the samples of a frame lie in memory, and frames whose planes numpy can read and write."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import av
import numpy as np
from av.video.reformatter import Interpolation

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from av.video.plane import VideoPlane

    from sr_deploy.images.picture import AnyPixels

_SUBSAMPLINGS = {(1, 1): "444", (2, 1): "422", (2, 2): "420", (1, 2): "440", (4, 1): "411"}
_HALF_PLANAR = {
    **dict.fromkeys(("nv12", "nv16", "nv24", "p016le", "p216le", "p416le"), 0),
    **dict.fromkeys(("p012le", "p212le", "p412le"), 4),
    **dict.fromkeys(("p010le", "p210le", "p410le"), 6),
}
"""Formats with both kinds of chroma in one plane, and how many unused bits are below theirs."""


@dataclass(frozen=True)
class SampleLayout:
    """What a pixel format holds.

    Attributes:
        planar: The format with the same samples, each component in a plane of its own.
        bits: Of one sample.
        colours: 1: gray, 3: RGB or YUV.
        rgb: It is RGB; its planes come as green, blue, red.
        alpha: The last plane is straight alpha.
        across: How many pixels, side by side, share a chroma sample.
        down: How many pixels, one below the other, share it.
    """

    planar: str
    bits: int
    colours: int
    rgb: bool
    alpha: bool
    across: int = 1
    down: int = 1

    @property
    def dtype(self) -> np.dtype[np.uint8] | np.dtype[np.uint16]:
        """Of the planes' samples."""
        return np.dtype("<u2") if self.bits > 8 else np.dtype("u1")


@functools.lru_cache
def layout(pixel_format: str) -> SampleLayout:
    """Return what a pixel format holds.

    Raises:
        InvalidInputError: it is of a kind that is not converted here (samples in floating point,
            raw sensor data, ...).
    """
    found = av.VideoFormat(pixel_format, 16, 16)
    if not found.components:
        raise _unknown(pixel_format)
    bits = max(8, *(part.bits for part in found.components))
    depth = f"{bits}le" if bits > 8 else ""
    alpha = found.has_palette or any(part.is_alpha for part in found.components)
    if len(found.components) == 1 and not alpha:
        return _known(pixel_format, SampleLayout(f"gray{depth}", bits, 1, rgb=False, alpha=False))
    letter = "a" if alpha else ""
    # Gray with alpha has no planar format; RGB with three equal colours holds the same.
    if found.is_rgb or found.has_palette or len(found.components) == 2:
        return _known(
            pixel_format, SampleLayout(f"gbr{letter}p{depth}", bits, 3, rgb=True, alpha=alpha)
        )
    shared = 16 // found.chroma_width(), 16 // found.chroma_height()
    name = f"yuv{letter}{_SUBSAMPLINGS.get(shared, '?')}p{depth}"
    return _known(pixel_format, SampleLayout(name, bits, 3, False, alpha, *shared))


def _known(pixel_format: str, result: SampleLayout) -> SampleLayout:
    strange = any(part in pixel_format for part in ("f16", "f32", "bayer", "xyz"))
    try:
        av.VideoFormat(result.planar)
    except ValueError:
        strange = True
    if strange or result.bits > 16:
        raise _unknown(pixel_format)
    return result


def _unknown(pixel_format: str) -> InvalidInputError:
    return InvalidInputError(
        f"pixel format {pixel_format}: not converted here; convert the video first, for example "
        "with ffmpeg -pix_fmt yuv444p16le"
    )


def repacked(frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """Return a frame with the same samples in another order; itself where it is that already."""
    name = frame.format.name
    if pixel_format in (name, name.replace("yuvj", "yuv")):
        return frame
    # FFmpeg's conversion of these formats loses chroma in odd widths.
    if name in _HALF_PLANAR or pixel_format in _HALF_PLANAR:
        return _regrouped(frame, pixel_format)
    return frame.reformat(format=pixel_format, interpolation=Interpolation.POINT)


def _regrouped(frame: av.VideoFrame, pixel_format: str) -> av.VideoFrame:
    """Return a frame with its two kinds of chroma side by side, or no longer side by side."""
    result = av.VideoFrame(frame.width, frame.height, pixel_format)
    result.colorspace, result.color_range = frame.colorspace, frame.color_range
    samples, targets = (_separate(each) for each in (frame, result))
    down, up = (_HALF_PLANAR.get(each.format.name, 0) for each in (frame, result))
    for plane, target in zip(samples, targets, strict=True):
        target[...] = plane >> down if down else plane << up
    return result


def _separate(frame: av.VideoFrame) -> list[AnyPixels]:
    """Return luma and the two kinds of chroma of a planar or half-planar frame."""
    found = planes(frame, layout(frame.format.name))
    return found if len(found) > 2 else [found[0], found[1][:, ::2], found[1][:, 1::2]]


def planes(frame: av.VideoFrame, kind: SampleLayout) -> list[AnyPixels]:
    """Return the planes of a planar frame, as arrays that share its memory.

    Args:
        frame: Of the format `kind.planar`, or with both kinds of chroma in one plane.
        kind: Its layout.
    """
    return [
        _plane(plane, kind, 2 if number == 1 and len(frame.planes) == 2 else 1)
        for number, plane in enumerate(frame.planes)
    ]


def _plane(plane: VideoPlane, kind: SampleLayout, components: int) -> AnyPixels:
    rows = np.frombuffer(memoryview(plane), kind.dtype).reshape(plane.height, -1)
    if plane.line_size < 0:  # some decoders hand out pictures bottom up
        rows = rows[::-1]
    return rows[:, : plane.width * components]
