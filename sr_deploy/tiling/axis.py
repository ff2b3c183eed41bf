"""Division of one axis of a frame into tiles of equal side.

Lengths are in pixels of the low-resolution frame. Tiles start on the network's grid
(`Model.multiple_of`).
"""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sr_deploy.bundle.manifest import Model

OVERLAP = 32
"""Overlap of blended tiles: a ramp in the middle, and 8 unreliable border pixels on either side of
it, which are discarded."""
RAMP = 16
SMALLEST = 64
"""Smallest side that is chosen automatically: with `OVERLAP`, three quarters of the work is
waste."""


@dataclass(frozen=True)
class TileAxis:
    """One axis of the frame, divided into tiles.

    Tile i writes from `cuts[i]` to `cuts[i + 1]`, so `cuts` has one more entry than `starts`. With
    a ramp, neighboring tiles are blended in `ramp` pixels around the cut between them.
    """

    length: int
    side: int
    starts: tuple[int, ...]
    cuts: tuple[int, ...]
    ramp: int

    @property
    def padded(self) -> int:
        """The length that the tiles cover; pixels past `length` are reflected."""
        return self.starts[-1] + self.side

    def span(self, index: int) -> tuple[int, int]:
        """Return the part of the frame that a tile writes, including its ramps."""
        half = self.ramp // 2
        first, last = index == 0, index == len(self.starts) - 1
        low = self.cuts[index] - (0 if first else half)
        high = self.cuts[index + 1] + (0 if last else half)
        return low, high


def most_tiles(length: int, overlap: int, model: Model) -> int:
    """Return the largest number of tiles that a length can be divided into."""
    least = max(model.minimum, SMALLEST, overlap + model.multiple_of)
    steps = (length - overlap) // model.multiple_of
    if steps < 2:
        return 1
    counts = range(1, steps + 1)
    return max(
        1, bisect.bisect_right(counts, -least, key=lambda n: -side_of(length, n, overlap, model))
    )


def side_of(length: int, count: int, overlap: int, model: Model) -> int:
    """Return the smallest side with which `count` tiles cover a length.

    All starts are on the grid, including that of the last tile, which ends with the frame: the
    side is the length minus a number of grid steps. Of the `steps` after the overlap, each tile
    advances by at most `steps / count`, rounded up.
    """
    length = max(length, model.minimum)
    if count == 1:
        return length
    steps = (length - overlap) // model.multiple_of
    return length - model.multiple_of * (steps + -steps // count)


def divide(length: int, count: int, overlap: int, model: Model) -> TileAxis:
    """Divide a length into `count` tiles."""
    return _spread(length, side_of(length, count, overlap, model), count, model.multiple_of)


def divide_by_side(length: int, side: int, model: Model) -> TileAxis:
    """Divide a length into tiles of a given side, exactly if their overlap can be large enough."""
    if side >= length:
        return _spread(length, side, 1, 1)
    if model.halo is not None and side >= 2 * model.halo + model.multiple_of:
        return _stepping(length, side, 2 * model.halo, model.multiple_of)
    overlap = min(OVERLAP, side // 2)
    # Off the grid, tiles differ slightly more from each other, which the ramp hides.
    step = model.multiple_of if side >= overlap + model.multiple_of else 1
    return with_ramp(_stepping(length, side, overlap, step))


def fit_side(length: int, side: int, model: Model) -> int:
    """Return a requested side, enlarged to the network's grid and minimum."""
    length = max(length, model.minimum)
    side = max(side, model.minimum)
    return min(side + (length - side) % model.multiple_of, length)


def with_ramp(axis: TileAxis) -> TileAxis:
    """Blend neighbors in the middle of their overlaps, discarding as much on either side."""
    if len(axis.starts) == 1:
        return axis
    gaps = [after - before for before, after in itertools.pairwise(axis.starts)]
    ramp = min(RAMP, (axis.side - max(gaps)) // 2, min(gaps))
    return replace(axis, ramp=ramp - ramp % 2)


def _stepping(length: int, side: int, overlap: int, step: int) -> TileAxis:
    """Divide a length into as few tiles of a given side as the overlap allows."""
    steps = math.ceil((length - side) / step)
    return _spread(length, side, 1 + math.ceil(steps / ((side - overlap) // step)), step)


def _spread(length: int, side: int, count: int, step: int) -> TileAxis:
    """Spread tiles evenly from the frame's start to its padded end, each start on the grid."""
    end = max(length, side)
    steps = -((side - end) // step)
    starts = tuple(index * steps // max(count - 1, 1) * step for index in range(count))
    inner = ((before + here + side) // 2 for before, here in itertools.pairwise(starts))
    return TileAxis(length, side, starts, (0, *inner, length), 0)
