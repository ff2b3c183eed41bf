"""The tile planner: divides a frame into equal tiles, as large as memory allows.

Both axes are divided independently, and a plan is their product. Where neighbors overlap by twice
the network's halo, every output pixel comes from a tile that contains its whole receptive field,
so the result equals that of the whole frame. Where such overlaps cost too much, or the receptive
field is the whole image, neighbors overlap by a fixed amount and are blended across a ramp in the
middle of the overlap.
"""

from __future__ import annotations

import bisect
import functools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sr_deploy.bundle.tuning import Tuning
from sr_deploy.errors import InvalidInputError
from sr_deploy.tiling.axis import (
    OVERLAP,
    SMALLEST,
    TileAxis,
    divide,
    divide_by_side,
    fit_side,
    most_tiles,
    side_of,
    with_ramp,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sr_deploy.bundle.manifest import Model

__all__ = ["OVERLAP", "SMALLEST", "TileAxis", "TilePlan", "TilePlanner"]

COSTLY = 1.5
"""Blending replaces exact tiles when these compute more than this many times the frame's pixels:
beyond that, most time would go into overlaps wider than any visible difference."""
_UNTUNED = Tuning()


@dataclass(frozen=True)
class TilePlan:
    """The tiles of a frame, the product of two divided axes, computed `batch` at a time."""

    rows: TileAxis
    columns: TileAxis
    batch: int = 1

    @property
    def tile(self) -> tuple[int, int]:
        """Height and width of each tile."""
        return self.rows.side, self.columns.side

    @functools.cached_property
    def tile_pixels(self) -> int:
        """Pixels computed at once."""
        return self.batch * self.rows.side * self.columns.side

    @property
    def pixels(self) -> int:
        """Pixels computed in total, overlaps included."""
        return len(self) * self.rows.side * self.columns.side

    @functools.cached_property
    def whole(self) -> bool:
        """Whether the frame is not tiled."""
        return self.tile == (self.rows.length, self.columns.length)

    @property
    def blended(self) -> bool:
        """Whether neighbors are blended; otherwise the result equals that of the whole frame."""
        return self.rows.ramp > 0 or self.columns.ramp > 0

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the row and column of each tile, row by row."""
        for row in range(len(self.rows.starts)):
            for column in range(len(self.columns.starts)):
                yield row, column


@dataclass(frozen=True)
class TilePlanner:
    """Divides frames into tiles for one loaded network.

    Attributes:
        model: The network; a backend may have narrowed its sizes.
        largest_tile: Largest height and width of a tile; None for any.
        max_pixels: Pixels that the memory of the device can hold at once; None for any.
    """

    model: Model
    largest_tile: tuple[int, int] | None = None
    max_pixels: int | None = None

    def plan(
        self,
        height: int,
        width: int,
        max_pixels: int | None = None,
        tile: tuple[int, int] | None = None,
        tuning: Tuning = _UNTUNED,
    ) -> TilePlan:
        """Return the tiles of a frame.

        Args:
            height: Height of the frame.
            width: Width of the frame.
            max_pixels: Pixels that the host's memory can hold at once; None for any. If not even
                the smallest sensible tile fits, the plan has that tile: compare
                `TilePlan.tile_pixels`.
            tile: The user's tile, enlarged to the network's grid; None for the tuned tile if it
                fits into memory, else the tile that computes the fewest pixels. A fixed size of
                the network overrules it.
            tuning: The tuned tile and batch.

        Raises:
            InvalidInputError: the frame or the tile has a side below 1.
        """
        allowed = math.inf if max_pixels is None else max_pixels
        if tile is None and tuning.tile is not None and math.prod(tuning.tile) <= allowed:
            tile = tuning.tile
        if tile is not None:
            found = _plan(height, width, self.model, None, self._clip(tile))
        else:
            most = min(allowed, math.inf if self.max_pixels is None else self.max_pixels)
            pixels = None if most == math.inf else max(int(most), 1)
            found = _plan(height, width, self.model, pixels, None)
            if not self._fits(found):
                found = self._cut(found, found.tile)
        # A fixed batch, or that of a TensorRT plan, cannot be tuned.
        if tuning.batch == 1 or self.model.fixed_batch is not None or self.largest_tile is not None:
            return found
        batch = min(tuning.batch, len(found), allowed // found.tile_pixels)
        return replace(found, batch=max(1, int(batch)))

    def smaller(self, plan: TilePlan) -> TilePlan | None:
        """Return a plan of the same frame that needs about half the memory; None if impossible."""
        if plan.batch > 1 and self.model.fixed_batch is None:
            return replace(plan, batch=plan.batch // 2)
        if self.model.fixed_size is not None:
            return None
        sides = plan.rows.length, plan.columns.length
        found = _plan(*sides, self.model, plan.tile_pixels // 2, None)
        if found.tile_pixels >= plan.tile_pixels:
            return None
        if self._fits(found):
            return found
        height, width = plan.tile
        halves = (-(-height // 2), width) if height > width else (height, -(-width // 2))
        found = self._cut(plan, halves)
        return found if found.tile_pixels < plan.tile_pixels else None

    def _cut(self, plan: TilePlan, tile: tuple[int, int]) -> TilePlan:
        """Return a plan of the same frame with tiles of at most this and the largest size."""
        sides = plan.rows.length, plan.columns.length
        return replace(_plan(*sides, self.model, None, self._clip(tile)), batch=plan.batch)

    def _clip(self, tile: tuple[int, int]) -> tuple[int, int]:
        if self.largest_tile is None:
            return tile
        room = self.model.multiple_of - 1  # a tile is enlarged to the grid
        height, width = (
            side if side <= most else max(most - room, 1)
            for side, most in zip(tile, self.largest_tile, strict=True)
        )
        return height, width

    def _fits(self, plan: TilePlan) -> bool:
        return self.largest_tile is None or all(
            side <= most for side, most in zip(plan.tile, self.largest_tile, strict=True)
        )


@functools.lru_cache(maxsize=64)
def _plan(
    height: int,
    width: int,
    model: Model,
    max_pixels: int | None,
    tile: tuple[int, int] | None,
) -> TilePlan:
    """Return a plan with the network's fixed tile, the given one, or the cheapest."""
    for name, sides in {"frame": (height, width), "tile": tile or (1, 1)}.items():
        if min(sides) < 1:
            found = f"{sides[1]}x{sides[0]}"
            raise InvalidInputError(f"a {name} must be at least 1x1 pixels, found {found}")
    batch = model.fixed_batch or 1
    lengths = height, width
    if model.fixed_size is not None:
        tile = model.fixed_size
    elif tile is not None:
        tile = fit_side(height, tile[0], model), fit_side(width, tile[1], model)
    if tile is not None:
        rows, columns = (
            divide_by_side(length, side, model) for length, side in zip(lengths, tile, strict=True)
        )
        return TilePlan(rows, columns, batch)
    if max_pixels is None:
        max_pixels = max(height, model.minimum) * max(width, model.minimum)
    else:
        max_pixels //= batch
    return replace(_cheapest(height, width, model, max_pixels), batch=batch)


def _cheapest(height: int, width: int, model: Model, max_pixels: int) -> TilePlan:
    """Return the plan that computes the fewest pixels with tiles of at most `max_pixels`."""
    exact = None
    if model.halo is not None:
        exact = _search(height, width, model, 2 * model.halo, max_pixels)
        if exact.tile_pixels > max_pixels:
            exact = None
        elif exact.pixels <= COSTLY * height * width or len(exact) == 1:
            return exact
    blended = _search(height, width, model, OVERLAP, max_pixels)
    if exact is not None and exact.pixels <= blended.pixels:
        return exact
    return TilePlan(with_ramp(blended.rows), with_ramp(blended.columns))


def _search(height: int, width: int, model: Model, overlap: int, max_pixels: int) -> TilePlan:
    """Search the numbers of rows and columns; of equal costs, the fewest columns win."""
    most_rows = most_tiles(height, overlap, model)
    best: tuple[bool, int, int, int] | None = None
    for columns in range(1, most_tiles(width, overlap, model) + 1):
        across = side_of(width, columns, overlap, model)
        # The side shrinks with the number of rows, so a binary search finds the first that fits.
        fitting = bisect.bisect_left(
            range(1, most_rows + 1),
            -(max_pixels // across),
            key=lambda rows: -side_of(height, rows, overlap, model),
        )
        rows = min(fitting + 1, most_rows)
        tile = across * side_of(height, rows, overlap, model)
        # If nothing fits, the smallest tile is best.
        fits = tile <= max_pixels
        found = (not fits, rows * columns * tile if fits else tile, columns, rows)
        best = found if best is None else min(best, found)
        if rows == 1 and fits:
            break  # further columns of the full height only cost more
    assert best is not None
    _, _, columns, rows = best
    return TilePlan(divide(height, rows, overlap, model), divide(width, columns, overlap, model))
