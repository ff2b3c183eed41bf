"""Taking tiles out of a frame and putting results together, in place and with little memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.tiling.planner import TilePlan


def reflected(frame: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Return a frame (H, W, bytes), continued downwards and rightwards by reflection.

    The very frame comes back if it is large enough. A side of 1 is repeated.
    """
    if frame.shape[:2] == (height, width):
        return frame
    rows = _reflection(frame.shape[0], height)
    columns = _reflection(frame.shape[1], width)
    return np.ascontiguousarray(frame[rows[:, None], columns])


def _reflection(length: int, wanted: int) -> NDArray[np.intp]:
    """Return the indices 0, 1 ... n-1, n-2 ... 1, 0, 1 ... that continue a length."""
    period = max(2 * (length - 1), 1)
    index = np.arange(wanted) % period
    return np.minimum(index, period - index) if length > 1 else np.zeros(wanted, np.intp)


@dataclass(frozen=True)
class Piece:
    """What becomes of one tile's result, in output pixels.

    Attributes:
        top: Where it goes.
        left: Where it goes.
        height: Of the part that is taken.
        width: Of the part that is taken.
        y: Where the part begins in the tile's result.
        x: Where the part begins in the tile's result.
        ramp: Columns on its left that are mixed with the tile before.
        zone: Rows, from `top` on, that are mixed with the row of tiles above, when the last tile of
            the row is there: mixing tile by tile would leave a step where four tiles meet.
        first: Whether it begins a row of tiles.
        last: Whether it ends a row of tiles.
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
    """Return what becomes of a tile's result."""
    rows, columns = plan.rows, plan.columns
    top, bottom = (scale * each for each in rows.span(row))
    left, right = (scale * each for each in columns.span(column))
    return Piece(
        *(top, left, bottom - top, right - left),
        y=top - scale * rows.starts[row],
        x=left - scale * columns.starts[column],
        ramp=scale * columns.ramp if column else 0,
        zone=scale * rows.ramp if row else 0,
        first=column == 0,
        last=column == len(columns.starts) - 1,
    )


class Stitcher:
    """Writes the results of a plan's tiles, in the plan's order, into the upscaled frame.

    Args:
        out: (scale*H, scale*W, bytes) uint8, contiguous; the caller's.
        plan: The tiles.
        scale: Of the network.
        sample: What a sample is: `uint8`, or `<u2` for two bytes.
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
        zone = slice(this.top, this.top + this.zone)
        if this.first:
            self._above = self._out[zone].copy()
        part = pixels.view(self._sample)[this.y :, this.x :][: this.height, : this.width]
        target = self._out[this.top :, this.left :][: this.height, : this.width]
        if ramp := this.ramp:
            weights = _rise(ramp)[:, None]
            target[:, :ramp] = _mixed(target[:, :ramp], part[:, :ramp], weights)
        target[:, ramp:] = part[:, ramp:]
        if this.last:
            self._mix_with_above(zone)

    def _mix_with_above(self, zone: slice) -> None:
        """Mix a finished row of tiles with what the row above had left there."""
        below = self._out[zone]
        for line, weight in enumerate(_rise(len(below))):
            below[line] = _mixed(self._above[line], below[line], weight)


def _rise(length: int) -> NDArray[np.float32]:
    """Return a smooth rise from 0 to 1 (its slope is 0 at both ends)."""
    position = (np.arange(length, dtype=np.float32) + np.float32(0.5)) / np.float32(max(length, 1))
    return position * position * (3 - 2 * position)


def _mixed(
    old: NDArray[np.generic], new: NDArray[np.generic], weight: NDArray[np.float32] | np.float32
) -> NDArray[np.float32]:
    """Return the rounded mixture, which float32 holds exactly for 8 and 16 bits."""
    before = old.astype(np.float32)
    return np.rint(before + (new.astype(np.float32) - before) * weight)
