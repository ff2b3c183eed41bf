"""Between decoded frames and arrays of pixels, both ways, in numpy.

FFmpeg's own conversion (swscale) is not used: where it is accurate it is no faster, in formats of
more than 8 bits it takes white for 65280 of 65535, and its versions differ in what they do with the
full range. Here all is exact to rounding.

What went through both ways is what it was, to 1 level, for all colours that RGB can express. Others
are cut off: of YUV in limited range, luma beyond black and white and colours lighter or more vivid
than RGB's. Of a film clip (NASA, in H.264), 0.3 % of all samples come back more than 1 level away,
by 19 of 255 at most; of three test patterns, of whose pixels half to nearly all lie beyond RGB, 0.3
to 26 % of a plane's samples.

Chroma is taken to lie in the middle of the pixels that share it, both ways: PyAV does not say where
a video has it. Where it lies at their left (most H.264), upscaling `scale` times moves it to the
right by (scale - 1) / 2 pixels of the result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import numpy as np

from sr_deploy.errors import InvalidInputError
from sr_deploy.video.color import Levels
from sr_deploy.video.sample_layout import layout, planes, repacked
from sr_deploy.video.yuv import FromYuv, from_levels, to_levels, to_yuv, top_of

if TYPE_CHECKING:
    from sr_deploy.images.picture import AnyPixels
    from sr_deploy.video.color import Color

_GBR = (1, 2, 0)
"""Where the planes of RGB formats belong in RGB."""


class ToPixels:
    """Makes arrays of frames; one thread at a time may use it.

    Args:
        colour: What the frames' numbers mean (`Info.colour`); what is not said is taken from the
            size of the first frame, as players do.
    """

    def __init__(self, colour: Color) -> None:
        self._colour = colour
        self._size: tuple[int, int] | None = None

    def __call__(self, frame: av.VideoFrame, out: AnyPixels | None = None) -> AnyPixels:
        """Return a frame's pixels: (H, W, 3), gray (H, W), or (H, W, 4) with straight alpha.

        uint8 for formats of up to 8 bits, else uint16 in the full scale of 16 bits.

        Args:
            frame: Of any size and any pixel format that is known here.
            out: Where to put them (of fitting shape and dtype); None: a new array.

        Raises:
            InvalidInputError: the pixel format is not known here, or `out` does not fit.
        """
        kind = layout(frame.format.name)
        self._size = self._size or (frame.width, frame.height)
        colour = self._colour.meant(frame.format.name, *self._size)
        channels = () if kind.colours == 1 else (kind.colours + kind.alpha,)
        result = _checked_out(out, (frame.height, frame.width, *channels), kind.dtype)
        samples = planes(repacked(frame, kind.planar), kind)
        if kind.alpha:
            from_levels(samples[-1], Levels.full(kind.bits), result[..., -1])
        if kind.colours == 1:
            from_levels(samples[0], Levels.of(kind.bits, colour.range), result)
        elif kind.rgb:
            for plane, channel in zip(samples, _GBR, strict=False):
                from_levels(plane, Levels.full(kind.bits), result[..., channel])
        else:
            FromYuv(kind, colour, top_of(result)).fill(samples, result)
        return result


class ToFrames:
    """Makes frames of arrays; one thread at a time may use it.

    Args:
        pixel_format: Of the frames.
        colour: What their numbers shall mean; what is not said is taken from their size.

    Raises:
        InvalidInputError: the pixel format is not known here.
    """

    def __init__(self, pixel_format: str, colour: Color) -> None:
        self._pixel_format = pixel_format
        self._kind = layout(pixel_format)
        self._colour = colour

    def __call__(self, pixels: AnyPixels) -> av.VideoFrame:
        """Return a new frame of pixels (as `ToPixels` makes them, of either dtype).

        Gray is made of colours where the format has none, and the reverse; alpha is left out, or
        opaque, likewise. The caller sets `pts`, `duration` and `time_base`.
        """
        kind = self._kind
        height, width = pixels.shape[:2]
        colour = self._colour.meant(self._pixel_format, width, height)
        channels = pixels.reshape(height, width, -1)
        colours = [channels[..., i if channels.shape[2] > 2 else 0] for i in range(3)]
        frame = av.VideoFrame(width, height, kind.planar)
        samples = planes(frame, kind)
        if kind.alpha and channels.shape[2] in (2, 4):
            to_levels(channels[..., -1], Levels.full(kind.bits), samples[-1])
        elif kind.alpha:
            samples[-1][...] = (1 << kind.bits) - 1
        if kind.colours == 1 and channels.shape[2] < 3:
            to_levels(colours[0], Levels.of(kind.bits, colour.range), samples[0])
        elif kind.rgb:
            for plane, channel in zip(samples, _GBR, strict=False):
                to_levels(colours[channel], Levels.full(kind.bits), plane)
        else:
            to_yuv(colours, kind, colour, samples)
        result = repacked(frame, self._pixel_format)
        result.colorspace, result.color_range = self._colour.matrix, self._colour.range
        return result


def _checked_out(out: AnyPixels | None, shape: tuple[int, ...], dtype: np.dtype[Any]) -> AnyPixels:
    if out is None:
        return np.empty(shape, dtype)
    if out.shape != shape or out.dtype != dtype:
        raise InvalidInputError(
            f"out is {out.dtype} {out.shape}; the frame's pixels are {dtype} {shape}"
        )
    return out
