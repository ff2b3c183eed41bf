"""Taking tiles out of a frame and putting results together, in place and with little memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.tiling import Plan


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


class Stitcher:
    """Writes the results of a plan's tiles, in the plan's order, into the upscaled frame.

    Args:
        out: (scale*H, scale*W, bytes) uint8, contiguous; the caller's.
        plan: The tiles.
        scale: Of the network.
        sample: What a sample is: `uint8`, or `<u2` for two bytes.
    """

    def __init__(
        self, out: NDArray[np.uint8], plan: Plan, scale: int, sample: np.dtype[np.generic]
    ) -> None:
        self._out = out.view(sample)
        self._plan = plan
        self._scale = scale
        self._sample = sample
        self._above = self._out[:0]

    def put(self, row: int, column: int, pixels: NDArray[np.uint8]) -> None:
        """Write the result of one tile, (scale*h, scale*w, bytes) uint8, contiguous."""
        rows, columns, scale = self._plan.rows, self._plan.columns, self._scale
        zone = self._zone(row)
        if column == 0:
            self._above = self._out[zone].copy()
        top, bottom = (scale * each for each in rows.span(row))
        left, right = (scale * each for each in columns.span(column))
        y, x = scale * rows.starts[row], scale * columns.starts[column]
        part = pixels.view(self._sample)[top - y : bottom - y, left - x : right - x]
        target = self._out[top:bottom, left:right]
        ramp = scale * columns.ramp if column else 0
        if ramp:
            weights = _rise(ramp)[:, None]
            target[:, :ramp] = _mixed(target[:, :ramp], part[:, :ramp], weights)
        target[:, ramp:] = part[:, ramp:]
        if column == len(columns.starts) - 1:
            self._mix_with_above(zone)

    def _zone(self, row: int) -> slice:
        """Return the output rows in which this row of tiles is mixed with the one above."""
        if row == 0:
            return slice(0, 0)
        top = self._scale * self._plan.rows.span(row)[0]
        return slice(top, top + self._scale * self._plan.rows.ramp)

    def _mix_with_above(self, zone: slice) -> None:
        """Mix a finished row of tiles with what the row above had left there.

        Whole rows of tiles are mixed, not single tiles: where four tiles meet, mixing them one
        after the other would leave a step.
        """
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
