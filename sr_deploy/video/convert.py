"""Conversion between decoded frames and arrays of pixels, in numpy, exact to rounding.

FFmpeg's own conversion (swscale) is not used: where it is accurate it is no faster, above 8 bits it
takes white for 65280 of 65535, and its versions differ in their treatment of full range.

A round trip changes samples by at most 1 level for all colors that RGB can express. Others are
clipped: in limited range, luma beyond black and white and colors lighter or more vivid than RGB's.
Of a film clip (NASA, in H.264), 0.3 % of all samples come back more than 1 level away, by 19 of 255
at most; of three test patterns, with half to nearly all pixels outside RGB, 0.3 to 26 % of a
plane's samples.

Chroma is assumed to be centered on the pixels that share it, both ways: PyAV does not report its
siting. Where it is on their left (most H.264), upscaling by `scale` moves it right by
(scale - 1) / 2 pixels of the result.

Frames of 10 bits go to networks for P010 directly. As RGB, they would take 16 bits, which networks
compute only in FP32. Frames of 8 bits gain nothing from it on a CPU and are converted to RGB.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from sr_deploy.errors import InvalidInputError
from sr_deploy.runtime.yuv import YuvFrame
from sr_deploy.video.color import (
    BT470BG,
    BT709,
    BT2020,
    FULL,
    SMPTE170M,
    Levels,
    downsample_chroma,
    repeat_chroma,
    upsample_chroma,
)
from sr_deploy.video.sample_layout import layout, planes, repacked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sr_deploy.engine import Engine
    from sr_deploy.images.picture import AnyPixels
    from sr_deploy.runtime.yuv import Matrix
    from sr_deploy.video.color import Color, Floats
    from sr_deploy.video.sample_layout import SampleLayout

_GBR = (1, 2, 0)
"""Channels of the planes of RGB formats."""
_BAND = 1 << 15
"""Pixels converted at a time, so that intermediate results stay in the cache."""
_P010_SHIFTS = {"yuv420p10le": 6, "p010le": 0}
"""By how many bits P010 stores the samples of a format higher."""
_P010_MATRICES: dict[int, Matrix] = {
    BT709: "bt709",
    BT470BG: "bt601",
    SMPTE170M: "bt601",
    BT2020: "bt2020",
}


class FrameToArray:
    """Converts frames to arrays; not thread-safe.

    Args:
        color: Of the frames; missing tags follow from the size of the first frame, as in players.
    """

    def __init__(self, color: Color) -> None:
        self._color = color
        self._size: tuple[int, int] | None = None
        self._converters: dict[str, _YuvToRgb] = {}

    def __call__(self, frame: av.VideoFrame, out: AnyPixels | None = None) -> AnyPixels:
        """Return a frame's pixels: (H, W, 3), gray (H, W), or (H, W, 4) with straight alpha.

        uint8 for formats of up to 8 bits, else uint16 in the full scale of 16 bits.

        Args:
            frame: Of any size and any supported pixel format.
            out: Destination of the right shape and dtype; None for a new array.

        Raises:
            InvalidInputError: The pixel format is not supported, or `out` does not fit.
        """
        name = frame.format.name
        kind = layout(name)
        self._size = self._size or (frame.width, frame.height)
        channels = () if kind.colors == 1 else (kind.colors + kind.alpha,)
        shape = (frame.height, frame.width, *channels)
        result = np.empty(shape, kind.dtype) if out is None else out
        if result.shape != shape or result.dtype != kind.dtype:
            raise InvalidInputError(
                f"out is {result.dtype} {result.shape}; the frame's pixels are {kind.dtype} {shape}"
            )
        samples = planes(repacked(frame, kind.planar), kind)
        if kind.alpha:
            _scale_to_full(samples[-1], Levels.of(kind.bits), result[..., -1])
        if kind.colors == 1:
            color = self._color.resolved(name, *self._size)
            _scale_to_full(samples[0], Levels.of(kind.bits, color.range), result)
        elif kind.rgb:
            for plane, channel in zip(samples, _GBR, strict=False):
                _scale_to_full(plane, Levels.of(kind.bits), result[..., channel])
        else:
            if name not in self._converters:
                color = self._color.resolved(name, *self._size)
                self._converters[name] = _YuvToRgb(kind, color)
            self._converters[name].fill(samples, result)
        return result


class ArrayToFrame:
    """Converts arrays to frames; not thread-safe.

    Args:
        pixel_format: Of the frames.
        color: Of the frames; missing tags follow from their size.

    Raises:
        InvalidInputError: The pixel format is not supported.
    """

    def __init__(self, pixel_format: str, color: Color) -> None:
        self._pixel_format = pixel_format
        self._kind = layout(pixel_format)
        self._color = color

    def __call__(self, pixels: AnyPixels) -> av.VideoFrame:
        """Return a new frame of pixels in the shapes of `FrameToArray`, uint8 or uint16.

        Gray becomes color where the format has no gray, and the reverse; alpha is dropped, or
        opaque, likewise. The caller sets `pts`, `duration` and `time_base`.
        """
        kind = self._kind
        height, width = pixels.shape[:2]
        channels = pixels.reshape(height, width, -1)
        rgb = [channels[..., i if channels.shape[2] > 2 else 0] for i in range(3)]
        frame = av.VideoFrame(width, height, kind.planar)
        samples = planes(frame, kind)
        if kind.alpha and channels.shape[2] in (2, 4):
            _scale_to_levels(channels[..., -1], Levels.of(kind.bits), samples[-1])
        elif kind.alpha:
            samples[-1][...] = (1 << kind.bits) - 1
        if kind.rgb:
            for plane, channel in zip(samples, _GBR, strict=False):
                _scale_to_levels(rgb[channel], Levels.of(kind.bits), plane)
        else:
            color = self._color.resolved(self._pixel_format, width, height)
            if kind.colors == 1 and channels.shape[2] < 3:
                _scale_to_levels(rgb[0], Levels.of(kind.bits, color.range), samples[0])
            else:
                _rgb_to_yuv(rgb, kind, color, samples)
        result = repacked(frame, self._pixel_format)
        result.colorspace, result.color_range = self._color.matrix, self._color.range
        return result


def converters(
    engine: Engine, frame: av.VideoFrame, color: Color, color_out: Color, pixel_format: str
) -> tuple[Callable[[av.VideoFrame], Any], Callable[[Any], av.VideoFrame]]:
    """Return the conversions from frames to the engine's input and from its output to frames.

    Args:
        engine: Upscales the frames.
        frame: The first frame; others have its size and format.
        color: Of the frames.
        color_out: Of the resulting frames.
        pixel_format: Of the resulting frames.
    """
    resolved = color.resolved(frame.format.name, frame.width, frame.height)
    if (
        frame.format.name in _P010_SHIFTS
        and pixel_format in _P010_SHIFTS
        and resolved.matrix in _P010_MATRICES
        and engine.takes("p010", frame.height, frame.width)
    ):
        matrix, full = _P010_MATRICES[resolved.matrix], resolved.range == FULL
        return (
            lambda each: _frame_to_p010(each, matrix, full_range=full),
            lambda result: _p010_to_frame(result, pixel_format),
        )
    return FrameToArray(color), ArrayToFrame(pixel_format, color_out)


def _frame_to_p010(frame: av.VideoFrame, matrix: Matrix, *, full_range: bool) -> YuvFrame:
    name = frame.format.name
    samples = np.empty((frame.height * 3 // 2, frame.width), "<u2")
    sources = planes(frame, layout(name))
    for source, target in zip(sources, _p010_planes(samples, len(sources)), strict=True):
        np.left_shift(source, _P010_SHIFTS[name], out=target)
    return YuvFrame(samples, "p010", matrix, full_range)


def _p010_to_frame(frame: YuvFrame, pixel_format: str) -> av.VideoFrame:
    result = av.VideoFrame(frame.width, frame.height, pixel_format)
    targets = planes(result, layout(pixel_format))
    for source, target in zip(_p010_planes(frame.samples, len(targets)), targets, strict=True):
        np.right_shift(source, _P010_SHIFTS[pixel_format], out=target)
    return result


def _p010_planes(samples: AnyPixels, count: int) -> list[AnyPixels]:
    """Return Y and interleaved UV (`count` 2) or Y, U and V (3) of P010 samples, as views."""
    luma, chroma = np.split(samples, [len(samples) * 2 // 3])
    return [luma, chroma] if count == 2 else [luma, chroma[:, ::2], chroma[:, 1::2]]


class _YuvToRgb:
    """Converts planes of YUV to RGB in the full scale of their dtype."""

    def __init__(self, kind: SampleLayout, color: Color) -> None:
        levels = Levels.of(kind.bits, color.range)
        self._kind = kind
        self._white = int(np.iinfo(kind.dtype).max)
        self._luma_gain = np.float32(self._white / levels.span)
        # Half a level more, since the conversion to integers truncates.
        self._luma_offset = np.float32(0.5 - levels.black * self._white / levels.span)
        self._neutral = np.float32(levels.neutral)
        chroma = color.yuv_to_rgb()[:, 1:] * (self._white / levels.chroma_span)
        self._chroma_gains = chroma.astype(np.float32)

    def fill(self, samples: Sequence[AnyPixels], out: AnyPixels) -> None:
        """Put the colors of three planes into `out` (H, W, 3 or more)."""
        across, down = self._kind.across, self._kind.down
        height, width = out.shape[:2]
        for top, bottom in _bands(height, width, down):
            luma = _pad_to_blocks(samples[0][top:bottom], self._kind).astype(np.float32)
            luma *= self._luma_gain
            luma += self._luma_offset
            # One more row above and below, for `upsample_chroma`.
            rows = np.arange(top // down - (down > 1), -(-bottom // down) + (down > 1))
            rows = rows.clip(0, len(samples[1]) - 1)
            stored = [plane[rows].astype(np.float32) for plane in samples[1:3]]
            for plane in stored:
                plane -= self._neutral
            chroma = [upsample_chroma(plane, across, down) for plane in stored]
            rgb = self._mix(luma, chroma)
            size = bottom - top, width
            if across * down > 1 and (rgb[0].shape != size or self._clips(rgb)):
                self._restore_means(chroma, stored, rgb, size)
                rgb = self._mix(luma, chroma)
            for channel, values in enumerate(rgb):
                np.clip(values, 0, self._white + 0.5, out=values)
                out[top:bottom, :, channel] = values[: size[0], :width]

    def _mix(self, luma: Floats, chroma: Sequence[Floats]) -> list[Floats]:
        rgb = []
        for gains in self._chroma_gains:
            first, *more = [plane * f for plane, f in zip(chroma, gains, strict=True) if f]
            first += luma
            for part in more:
                first += part
            rgb.append(first)
        return rgb

    def _clips(self, rgb: Sequence[Floats]) -> bool:
        """Return whether some colors are outside RGB."""
        return any(part.min() < 0 or part.max() >= self._white + 1 for part in rgb)

    def _restore_means(
        self,
        chroma: Sequence[Floats],
        stored: Sequence[Floats],
        rgb: Sequence[Floats],
        size: tuple[int, int],
    ) -> None:
        """Repeat chroma where its ramp would not return its mean.

        That is where RGB clips the ramp, and where a block reaches beyond an odd edge.
        """
        across, down = self._kind.across, self._kind.down
        lost = np.zeros(rgb[0].shape, bool)
        lost[size[0] :] = lost[:, size[1] :] = True
        for part in rgb:
            lost |= part < 0
            lost |= part >= self._white + 1
        blocks = lost[::2] | lost[1::2] if down == 2 else lost
        blocks = functools.reduce(np.logical_or, [blocks[:, i::across] for i in range(across)])
        where = repeat_chroma(blocks, across, down)
        for plane, samples in zip(chroma, stored, strict=True):
            single = samples[1:-1] if down > 1 else samples
            np.copyto(plane, repeat_chroma(single, across, down), where=where)


def _rgb_to_yuv(
    rgb: Sequence[AnyPixels], kind: SampleLayout, color: Color, samples: Sequence[AnyPixels]
) -> None:
    """Put colors (H, W each) into planes of YUV, or into the luma of gray."""
    levels = Levels.of(kind.bits, color.range)
    scale = np.array([levels.span, levels.chroma_span, levels.chroma_span])
    white = np.iinfo(rgb[0].dtype).max
    gains = (np.linalg.inv(color.yuv_to_rgb()) * scale[:, None] / white).astype(np.float32)
    offsets = np.array([levels.black, levels.neutral, levels.neutral], np.float32) + np.float32(0.5)
    height, width = rgb[0].shape
    for top, bottom in _bands(height, width, kind.down):
        band = [_pad_to_blocks(part[top:bottom], kind).astype(np.float32) for part in rgb]
        rows = slice(top, bottom)
        for number in range(kind.colors):
            if number == 1:
                band = [downsample_chroma(part, kind.across, kind.down) for part in band]
                rows = slice(top // kind.down, -(-bottom // kind.down))
            total: Floats = band[0] * gains[number, 0]
            total += band[1] * gains[number, 1]
            total += band[2] * gains[number, 2]
            total += offsets[number]
            np.clip(total, 0, levels.maximum + 0.5, out=total)
            target = samples[number][rows]
            target[...] = total[: target.shape[0], : target.shape[1]]


def _scale_to_full(samples: AnyPixels, levels: Levels, out: AnyPixels) -> None:
    """Put the luma, alpha or RGB of a plane into `out` in the full scale of its dtype."""
    white = int(np.iinfo(out.dtype).max)
    gain = white / levels.span
    _scale(samples, np.float32(gain), np.float32(0.5 - levels.black * gain), white, out)


def _scale_to_levels(pixels: AnyPixels, levels: Levels, out: AnyPixels) -> None:
    """Put pixels in the full scale of their dtype into a plane in its levels."""
    gain = np.float32(levels.span / np.iinfo(pixels.dtype).max)
    _scale(pixels, gain, np.float32(levels.black + 0.5), levels.maximum, out)


def _scale(
    values: AnyPixels, gain: np.float32, offset: np.float32, maximum: int, out: AnyPixels
) -> None:
    if gain == 1 and int(offset) == 0:
        out[...] = values
        return
    for top, bottom in _bands(len(values), values.shape[1], 1):
        band = values[top:bottom] * gain
        band += offset
        np.clip(band, 0, maximum + 0.5, out=band)
        out[top:bottom] = band


def _bands(height: int, width: int, down: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and the end of bands of whole blocks of chroma."""
    rows = max(1, _BAND // width // down) * down
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _pad_to_blocks(rows: AnyPixels, kind: SampleLayout) -> AnyPixels:
    """Repeat the last row and column where a block of chroma reaches beyond them."""
    missing = -rows.shape[0] % kind.down, -rows.shape[1] % kind.across
    if not any(missing):
        return rows
    return np.pad(rows, ((0, missing[0]), (0, missing[1])), mode="edge")
