"""Between planes of samples in their levels and colours in the full scale of their dtype."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.video.chroma import blocks, gathered, repeated, spread
from sr_deploy.video.color import Levels

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sr_deploy.images.picture import AnyPixels
    from sr_deploy.video.chroma import Floats
    from sr_deploy.video.color import Color
    from sr_deploy.video.sample_layout import SampleLayout

_BAND = 1 << 15
"""Pixels that are converted at a time, so that what is made of them stays in the cache."""


class FromYuv:
    """Makes RGB of planes in YUV.

    Args:
        kind: Layout of the planes.
        colour: What their numbers mean, nothing left unsaid.
        top: White in the result.
    """

    def __init__(self, kind: SampleLayout, colour: Color, top: int) -> None:
        self._kind = kind
        self._top = top
        self._luma, self._middle, reach = _scaling(Levels.of(kind.bits, colour.range), top)
        self._mix = (colour.from_yuv()[:, 1:] * reach).astype(np.float32)

    def fill(self, samples: Sequence[AnyPixels], out: AnyPixels) -> None:
        """Put what luma and two planes of chroma show into `out` (H, W, 3 or more)."""
        kind, (height, width) = self._kind, out.shape[:2]
        for top, bottom in _bands(height, width, kind.down):
            luma = _whole_blocks(samples[0][top:bottom], kind).astype(np.float32)
            gain, offset = self._luma
            luma *= gain
            luma += offset
            stored = [self._chroma(plane, top, bottom) for plane in samples[1:3]]
            chroma = [spread(plane, kind.across, kind.down) for plane in stored]
            colours = self._mixed(luma, chroma)
            inside = (bottom - top, width)
            if kind.across * kind.down > 1 and not self._fit(colours, inside):
                self._tame(chroma, stored, colours, inside)
                colours = self._mixed(luma, chroma)
            for channel, values in enumerate(colours):
                np.clip(values, 0, self._top + 0.5, out=values)
                out[top:bottom, :, channel] = values[: bottom - top, :width]

    def _chroma(self, plane: AnyPixels, top: int, bottom: int) -> Floats:
        """Return the chroma of a band of rows, with what `spread` needs above and below."""
        down = self._kind.down
        rows = np.arange(top // down - (down > 1), -(-bottom // down) + (down > 1))
        result: Floats = plane[rows.clip(0, len(plane) - 1)].astype(np.float32)
        result -= self._middle
        return result

    def _mixed(self, luma: Floats, chroma: Sequence[Floats]) -> list[Floats]:
        colours = []
        for factors in self._mix:
            first, *more = [plane * f for plane, f in zip(chroma, factors, strict=True) if f]
            first += luma
            for part in more:
                first += part
            colours.append(first)
        return colours

    def _fit(self, colours: Sequence[Floats], inside: tuple[int, int]) -> bool:
        """Return whether RGB can express all, and all blocks of chroma lie inside the frame."""
        return colours[0].shape == inside and all(
            part.min() >= 0 and part.max() < self._top + 1 for part in colours
        )

    def _tame(
        self,
        chroma: Sequence[Floats],
        stored: Sequence[Floats],
        colours: Sequence[Floats],
        inside: tuple[int, int],
    ) -> None:
        """Repeat chroma as it is stored where its spread parts would not give its mean back.

        They are cut off where RGB cannot express them, and where they lie beyond an odd edge.
        """
        kind = self._kind
        lost = np.zeros(colours[0].shape, bool)
        lost[inside[0] :] = lost[:, inside[1] :] = True
        for part in colours:
            lost |= part < 0
            lost |= part >= self._top + 1
        where = repeated(blocks(lost, kind.across, kind.down), kind.across, kind.down)
        for plane, samples in zip(chroma, stored, strict=True):
            single = samples[1:-1] if kind.down > 1 else samples
            np.copyto(plane, repeated(single, kind.across, kind.down), where=where)


def to_yuv(
    colours: Sequence[AnyPixels], kind: SampleLayout, colour: Color, samples: Sequence[AnyPixels]
) -> None:
    """Put colours (H, W each) into the planes of YUV, or of gray, which is its luma alone."""
    levels = Levels.of(kind.bits, colour.range)
    scale = np.array([levels.span, levels.reach, levels.reach])
    mix = np.linalg.inv(colour.from_yuv()) * scale[:, None] / top_of(colours[0])
    offsets = np.array([levels.black, levels.middle, levels.middle]) + 0.5
    height, width = colours[0].shape
    for top, bottom in _bands(height, width, kind.down):
        rgb = [_whole_blocks(part[top:bottom], kind).astype(np.float32) for part in colours]
        _store(rgb, mix[0], offsets[0], kind, samples[0][top:bottom])
        if kind.colours == 1:
            continue
        rgb = [gathered(part, kind.across, kind.down) for part in rgb]
        for number in (1, 2):
            rows = samples[number][top // kind.down : -(-bottom // kind.down)]
            _store(rgb, mix[number], offsets[number], kind, rows)


def _store(
    rgb: Sequence[Floats], factors: Any, offset: float, kind: SampleLayout, out: AnyPixels
) -> None:
    """Put the weighted sum of three colours into a part of a plane."""
    total: Floats = rgb[0] * np.float32(factors[0])
    for part, factor in zip(rgb[1:], factors[1:], strict=True):
        total += part * np.float32(factor)
    total += np.float32(offset)
    np.clip(total, 0, (1 << kind.bits) - 0.5, out=total)
    out[...] = total[: out.shape[0], : out.shape[1]]


def _scaling(levels: Levels, top: int) -> tuple[tuple[np.float32, np.float32], np.float32, float]:
    """Return gain and offset of luma, the middle of chroma and its gain, for colours up to `top`.

    The offset holds half a level more, since what becomes an integer is cut off, not rounded.
    """
    gain = top / levels.span
    luma = np.float32(gain), np.float32(0.5 - levels.black * gain)
    return luma, np.float32(levels.middle), top / levels.reach


def from_levels(samples: AnyPixels, levels: Levels, out: AnyPixels) -> None:
    """Put samples, in a plane's levels, into `out` in the full scale of its dtype."""
    top = top_of(out)
    (gain, offset), *_ = _scaling(levels, top)
    _linear(samples, gain, offset, top, out)


def to_levels(pixels: AnyPixels, levels: Levels, out: AnyPixels) -> None:
    """Put pixels, in the full scale of their dtype, into a plane in its levels."""
    gain = np.float32(levels.span / top_of(pixels))
    _linear(pixels, gain, np.float32(levels.black + 0.5), levels.top, out)


def _linear(
    values: AnyPixels, gain: np.float32, offset: np.float32, most: int, out: AnyPixels
) -> None:
    if gain == 1 and int(offset) == 0:
        out[...] = values
        return
    for top, bottom in _bands(len(values), values.shape[1], 1):
        band = values[top:bottom] * gain
        band += offset
        np.clip(band, 0, most + 0.5, out=band)
        out[top:bottom] = band


def top_of(pixels: AnyPixels) -> int:
    """Return the highest number of an array's dtype: white."""
    return int(np.iinfo(pixels.dtype).max)


def _bands(height: int, width: int, down: int) -> Iterator[tuple[int, int]]:
    """Yield the first row and that after the last of bands that hold whole blocks of chroma."""
    rows = max(1, _BAND // width // down) * down
    for top in range(0, height, rows):
        yield top, min(top + rows, height)


def _whole_blocks(rows: AnyPixels, kind: SampleLayout) -> AnyPixels:
    """Repeat the last row and column where a block of chroma reaches beyond them."""
    missing = -rows.shape[0] % kind.down, -rows.shape[1] % kind.across
    if not any(missing):
        return rows
    return np.pad(rows, ((0, missing[0]), (0, missing[1])), mode="edge")
