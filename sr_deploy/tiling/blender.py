"""The blender: writes the results of tiles into the upscaled frame, in place.

numpy does the work, or the compiled library of `native/` with bit-identical results.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.tiling import native

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.tiling.native import Steps
    from sr_deploy.tiling.planner import TilePlan


def reflected(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a frame (H, W, bytes), extended by reflection at the bottom and the right.

    The frame itself is returned if it is large enough. A side of 1 is repeated.
    """
    if frame.shape[:2] == (height, width):
        return frame
    rows = _reflection(frame.shape[0], height)
    columns = _reflection(frame.shape[1], width)
    return np.ascontiguousarray(frame[rows[:, None], columns])


def _reflection(length: int, wanted: int) -> NDArray[np.intp]:
    """Return the indices 0, 1 ... n-1, n-2 ... 1, 0, 1 ... that extend a length."""
    period = max(2 * (length - 1), 1)
    index = np.arange(wanted) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros(wanted, np.intp)


@dataclass(frozen=True)
class Piece:
    """The part of a tile's result that goes into the frame, in output pixels.

    Attributes:
        top: First row in the frame.
        left: First column in the frame.
        height: Rows of the part.
        width: Columns of the part.
        y: First row in the tile's result.
        x: First column in the tile's result.
        ramp: Columns at the left that are blended with the tile before.
        zone: Rows from `top` on that are blended with the row of tiles above once this row of
            tiles is complete: blending tile by tile would leave a step where four tiles meet.
        first: Whether the tile begins a row.
        last: Whether the tile ends a row.
    """

    top: int
    left: int
    height: int
    width: int
    y: int
    x: int
    ramp: int
    zone: int
    first: bool
    last: bool


def piece(plan: TilePlan, scale: int, row: int, column: int) -> Piece:
    """Return the part of a tile's result that goes into the frame."""
    rows, columns = plan.rows, plan.columns
    top, bottom = rows.span(row)
    left, right = columns.span(column)
    return Piece(
        top=scale * top,
        left=scale * left,
        height=scale * (bottom - top),
        width=scale * (right - left),
        y=scale * (top - rows.starts[row]),
        x=scale * (left - columns.starts[column]),
        ramp=scale * columns.ramp if column else 0,
        zone=scale * rows.ramp if row else 0,
        first=column == 0,
        last=column == len(columns.starts) - 1,
    )


class Blender:
    """Writes the results of a plan's tiles, in the plan's order, into the upscaled frame.

    Args:
        out: (scale*H, scale*W, bytes) uint8, contiguous; owned by the caller.
        plan: The tiles.
        scale: Scale of the network.
        sample: Type of a sample: `uint8`, or `<u2` for 16 bits.
    """

    def __init__(
        self, out: NDArray[np.uint8], plan: TilePlan, scale: int, sample: np.dtype[np.generic]
    ) -> None:
        self._out = out.view(sample)
        self._plan = plan
        self._scale = scale
        self._sample = sample
        self._above = self._out[:0]

    def put(self, row: int, column: int, pixels: NDArray[np.uint8]) -> None:
        """Write the result of one tile, (scale*h, scale*w, bytes) uint8, contiguous."""
        this = piece(self._plan, self._scale, row, column)
        zone = self._out[this.top : this.top + this.zone]
        if this.first:
            self._above = zone.copy()
        self._write(this, pixels.view(self._sample))
        if this.last and this.zone:
            self._mix(zone)

    def _write(self, this: Piece, pixels: NDArray[np.generic]) -> None:
        """Write a part into the frame, blended with the tile on its left."""
        part = pixels[this.y :, this.x :][: this.height, : this.width]
        target = self._out[this.top :, this.left :][: this.height, : this.width]
        if ramp := this.ramp:
            weights = _rise(ramp)[:, None]
            target[:, :ramp] = _mixed(target[:, :ramp], part[:, :ramp], weights)
        target[:, ramp:] = part[:, ramp:]

    def _mix(self, zone: NDArray[np.generic]) -> None:
        """Blend the top of a complete row of tiles with what the row above had written there."""
        for line, weight in enumerate(_rise(len(zone))):
            zone[line] = _mixed(self._above[line], zone[line], weight)


class NativeBlender(Blender):
    """The same with the library of `native/`, bit-identical."""

    def __init__(
        self,
        library: Steps,
        out: NDArray[np.uint8],
        plan: TilePlan,
        scale: int,
        sample: np.dtype[np.generic],
    ) -> None:
        super().__init__(out, plan, scale, sample)
        self._library = library

    def _write(self, this: Piece, pixels: NDArray[np.generic]) -> None:
        step = native.Scatter(
            part=pixels[this.y :, this.x :].ctypes.data,
            out=self._out[this.top :, this.left :].ctypes.data,
            part_pitch=pixels.strides[0],
            out_pitch=self._out.strides[0],
            height=this.height,
            width=this.width,
            ramp=this.ramp,
            channels=pixels.shape[2],
            sample=self._sample.itemsize,
        )
        self._library.sr_scatter(ctypes.byref(step))

    def _mix(self, zone: NDArray[np.generic]) -> None:
        step = native.Mix(
            above=self._above.ctypes.data,
            out=zone.ctypes.data,
            out_pitch=self._out.strides[0],
            height=len(zone),
            samples=self._out.strides[0] // self._sample.itemsize,
            sample=self._sample.itemsize,
        )
        self._library.sr_mix(ctypes.byref(step))


def open_blender(
    out: NDArray[np.uint8], plan: TilePlan, scale: int, sample: np.dtype[np.generic]
) -> Blender:
    """Return the faster blender; see `Blender` for the arguments.

    Blending 16-bit frames takes the library 0.6 of numpy's time (1920x1080, x2, in tiles of 256:
    6.5 against 10.8 ms, medians of interleaved runs on two busy cores). 8-bit frames take it 1.25
    of numpy's time, and exact tiles are only copied either way.
    """
    library = native.library() if plan.blended and sample.itemsize == 2 else None
    if library is None:
        return Blender(out, plan, scale, sample)
    return NativeBlender(library, out, plan, scale, sample)


def _rise(length: int) -> NDArray[np.float32]:
    """Return a smooth rise from 0 to 1, with slope 0 at both ends."""
    position = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(max(length, 1))
    return position * position * (3 - 2 * position)


def _mixed(
    old: NDArray[np.generic], new: NDArray[np.generic], weight: NDArray[np.float32] | np.float32
) -> NDArray[np.float32]:
    """Return the rounded mixture, which float32 represents exactly for 8 and 16 bits."""
    before = old.astype(np.float32)
    return np.rint(before + (new.astype(np.float32) - before) * weight)
