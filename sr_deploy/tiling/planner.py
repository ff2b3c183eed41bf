"""Where to cut a frame: tiles of one size, as large as memory allows, put together exactly.

Lengths are in pixels of the low-resolution frame. The two axes are divided independently; a plan
is their product. Where neighbours overlap by twice the network's halo, each output pixel is taken
from a tile that saw all of its surroundings, so the result equals the whole frame's. Where that
is too dear, or the network looks at everything, neighbours overlap by a fixed amount and are mixed
across a ramp in its middle.
"""

from __future__ import annotations

import bisect
import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sr_deploy.bundle.manifest import Model

OVERLAP = 32
"""How far tiles overlap that are blended: a ramp in the middle, and 8 pixels of unreliable border
on either side of it that are thrown away."""
RAMP = 16
COSTLY = 1.5
"""Equality is given up for blending when it costs more than this many times the frame's pixels:
past that, most of the time would go into overlaps wider than what anyone can see."""
SMALLEST = 64
"""No side is chosen smaller than this: with `OVERLAP`, three quarters of the work is waste."""


@dataclass(frozen=True)
class TileAxis:
    """How one axis of the frame is divided.

    `cuts` has one more entry than `starts`: tile i is responsible for `cuts[i]` to `cuts[i + 1]`.
    With a ramp, neighbours are mixed in `ramp` pixels around the cut between them.
    """

    length: int
    side: int
    starts: tuple[int, ...]
    cuts: tuple[int, ...]
    ramp: int

    @property
    def padded(self) -> int:
        """The length that the tiles cover; what exceeds `length` is reflected."""
        return self.starts[-1] + self.side

    @property
    def whole(self) -> bool:
        """Whether one tile is exactly the axis."""
        return self.side == self.length

    def span(self, index: int) -> tuple[int, int]:
        """Return the part of the frame that a tile writes, its ramps included."""
        half = self.ramp // 2
        first, last = index == 0, index == len(self.starts) - 1
        low = self.cuts[index] - (0 if first else half)
        high = self.cuts[index + 1] + (0 if last else half)
        return low, high


@dataclass(frozen=True)
class TilePlan:
    """All tiles of a frame: the product of two divided axes, run `batch` at a time."""

    rows: TileAxis
    columns: TileAxis
    batch: int = 1

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of every tile."""
        return self.rows.side, self.columns.side

    @property
    def tile_pixels(self) -> int:
        """Pixels that go through the network at once."""
        return self.batch * self.rows.side * self.columns.side

    @property
    def pixels(self) -> int:
        """Pixels that go through the network in all."""
        return len(self) * self.rows.side * self.columns.side

    @property
    def whole(self) -> bool:
        """Whether the frame goes through as it is, in one piece."""
        return self.rows.whole and self.columns.whole

    @property
    def blended(self) -> bool:
        """Whether neighbours are mixed; otherwise the result equals the whole frame's."""
        return self.rows.ramp > 0 or self.columns.ramp > 0

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield each tile's row and column, row by row."""
        for row in range(len(self.rows.starts)):
            for column in range(len(self.columns.starts)):
                yield row, column


@functools.lru_cache(maxsize=64)
def plan(
    height: int,
    width: int,
    model: Model,
    max_pixels: int | None = None,
    tile: tuple[int, int] | None = None,
) -> TilePlan:
    """Divide a frame of any size, at least 1x1.

    Args:
        height: Height of the frame.
        width: Width of the frame.
        model: What the network needs; a fixed size of its own overrules `tile`.
        max_pixels: Pixels that may go through the network at once; None: the whole frame. Where
            not even the smallest sensible tile fits, the plan has that tile; compare
            `Plan.tile_pixels`.
        tile: Height and width that the user wants; enlarged to the network's grid.

    Raises:
        InvalidInputError: the frame or the tile has a side below 1.
    """
    for name, sides in {"frame": (height, width), "tile": tile or (1, 1)}.items():
        if min(sides) < 1:
            found = f"{sides[1]}x{sides[0]}"
            raise InvalidInputError(f"a {name} must be at least 1x1 pixels, found {found}")
    batch = model.fixed_batch or 1
    if model.fixed_size is not None:
        rows, columns = (
            _fixed(length, side, model)
            for length, side in zip((height, width), model.fixed_size, strict=True)
        )
        return TilePlan(rows, columns, batch)
    if tile is not None:
        rows, columns = (
            _wanted(length, side, model) for length, side in zip((height, width), tile, strict=True)
        )
        return TilePlan(rows, columns, batch)
    if max_pixels is not None:
        max_pixels //= batch
    return replace(_largest(height, width, model, max_pixels), batch=batch)


def smaller(current: TilePlan, model: Model) -> TilePlan | None:
    """Return a plan that needs about half the memory at once; None if there is none."""
    if current.batch > 1 and model.fixed_batch is None:
        return replace(current, batch=current.batch // 2)
    if model.fixed_size is not None:
        return None
    height, width = current.rows.length, current.columns.length
    found = plan(height, width, model, current.tile_pixels // 2)
    return found if found.tile_pixels < current.tile_pixels else None


def _largest(height: int, width: int, model: Model, max_pixels: int | None) -> TilePlan:
    """Return the plan that computes fewest pixels with tiles of at most `max_pixels`."""
    if max_pixels is None:
        max_pixels = max(height, model.minimum) * max(width, model.minimum)
    exact = None
    if model.halo is not None:
        exact = _cheapest(height, width, model, 2 * model.halo, max_pixels)
        if exact.tile_pixels > max_pixels:
            exact = None
        elif exact.pixels <= COSTLY * height * width or len(exact) == 1:
            return exact
    blended = _cheapest(height, width, model, OVERLAP, max_pixels)
    if exact is not None and exact.pixels <= blended.pixels:
        return exact
    return TilePlan(_with_ramp(blended.rows), _with_ramp(blended.columns))


def _cheapest(height: int, width: int, model: Model, overlap: int, max_pixels: int) -> TilePlan:
    """Search the numbers of rows and columns; fewer columns where two choices cost the same."""
    most_rows = _most(height, overlap, model)
    best: tuple[bool, int, int, int] | None = None
    for columns in range(1, _most(width, overlap, model) + 1):
        across = _side(width, columns, overlap, model)
        # The more rows, the smaller their side: the first that fits is found by halving.
        fitting = bisect.bisect_left(
            range(1, most_rows + 1),
            -(max_pixels // across),
            key=lambda rows: -_side(height, rows, overlap, model),
        )
        rows = min(fitting + 1, most_rows)
        tile = across * _side(height, rows, overlap, model)
        # Where nothing fits, the smallest tile comes closest.
        fits = tile <= max_pixels
        found = (not fits, rows * columns * tile if fits else tile, columns, rows)
        best = found if best is None else min(best, found)
        if rows == 1 and fits:
            break  # more columns of the full height only cost more
    assert best is not None
    _, _, columns, rows = best
    return TilePlan(
        _divide(height, rows, overlap, model),
        _divide(width, columns, overlap, model),
    )


def _most(length: int, overlap: int, model: Model) -> int:
    """Return into how many tiles a length can be divided at most."""
    least = max(model.minimum, SMALLEST, overlap + model.multiple_of)
    steps = (length - overlap) // model.multiple_of
    if steps < 2:
        return 1
    counts = range(1, steps + 1)
    return max(
        1, bisect.bisect_right(counts, -least, key=lambda n: -_side(length, n, overlap, model))
    )


def _side(length: int, count: int, overlap: int, model: Model) -> int:
    """Return the smallest side with which `count` tiles cover a length.

    Starts lie on the grid, and so does the last one, which ends where the frame does: the side is
    the length less a number of grid steps. Of the `steps` that there are after the overlap, each
    tile advances by at most a `count`-th, rounded up.
    """
    length = max(length, model.minimum)
    if count == 1:
        return length
    steps = (length - overlap) // model.multiple_of
    return length - model.multiple_of * (steps + -steps // count)


def _divide(length: int, count: int, overlap: int, model: Model) -> TileAxis:
    """Divide a length into `count` tiles."""
    return _spread(length, _side(length, count, overlap, model), count, model.multiple_of)


def _spread(length: int, side: int, count: int, step: int) -> TileAxis:
    """Spread tiles evenly from the frame's start to its (padded) end, each start on the grid."""
    end = max(length, side)
    steps = -((side - end) // step)
    starts = tuple(index * steps // max(count - 1, 1) * step for index in range(count))
    inner = ((before + here + side) // 2 for before, here in itertools.pairwise(starts))
    return TileAxis(length, side, starts, (0, *inner, length), 0)


def _with_ramp(axis: TileAxis) -> TileAxis:
    """Mix neighbours in the middle of their overlaps, and throw away as much on either side."""
    if len(axis.starts) == 1:
        return axis
    gaps = [after - before for before, after in itertools.pairwise(axis.starts)]
    ramp = min(RAMP, (axis.side - max(gaps)) // 2, min(gaps))
    return replace(axis, ramp=ramp - ramp % 2)


def _wanted(length: int, side: int, model: Model) -> TileAxis:
    """Obey the user: a tile of this side, enlarged to the network's grid and minimum."""
    length_padded = max(length, model.minimum)
    side = max(side, model.minimum)
    side = min(side + (length_padded - side) % model.multiple_of, length_padded)
    return _fixed(length, side, model)


def _fixed(length: int, side: int, model: Model) -> TileAxis:
    """Divide a length into tiles of a given side, exactly if their overlap can be large enough."""
    if side >= length:
        return _spread(length, side, 1, 1)
    if model.halo is not None and side >= 2 * model.halo + model.multiple_of:
        return _stepping(length, side, 2 * model.halo, model.multiple_of)
    overlap = min(OVERLAP, side // 2)
    # Off the grid, tiles only differ a little more from each other, and the ramp hides that.
    step = model.multiple_of if side >= overlap + model.multiple_of else 1
    return _with_ramp(_stepping(length, side, overlap, step))


def _stepping(length: int, side: int, overlap: int, step: int) -> TileAxis:
    """Divide a length into as few tiles of a given side as the overlap allows."""
    steps = math.ceil((length - side) / step)
    return _spread(length, side, 1 + math.ceil(steps / ((side - overlap) // step)), step)
