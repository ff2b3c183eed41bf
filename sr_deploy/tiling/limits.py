"""What a loaded network takes, where that is less than the bundle's model says."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sr_deploy.bundle.tuning import Tuning
from sr_deploy.tiling import planner

if TYPE_CHECKING:
    from sr_deploy.bundle.manifest import Model
    from sr_deploy.tiling.planner import TilePlan

_UNTUNED = Tuning()


@dataclass(frozen=True)
class TileLimits:
    """How frames may be cut for a network.

    Attributes:
        model: What it needs.
        most: The largest height and width of a tile; None: any.
        pixels: The most that may go through at once, by the memory of its device; None: any.
    """

    model: Model
    most: tuple[int, int] | None = None
    pixels: int | None = None

    def plan(
        self,
        height: int,
        width: int,
        pixels: int,
        tile: tuple[int, int] | None = None,
        tuning: Tuning = _UNTUNED,
    ) -> TilePlan:
        """Return how a frame is cut.

        Args:
            height: Of the frame.
            width: Of the frame.
            pixels: The most that may go through at once, by the memory of the host.
            tile: The user's choice of a tile; None for the tuned tile where it fits into memory,
                else the largest that does.
            tuning: The tuned tile and batch.
        """
        if tile is None and tuning.tile is not None and math.prod(tuning.tile) <= pixels:
            tile = tuning.tile
        found = self._plan(height, width, pixels, tile)
        if self.model.fixed_batch is not None or self.most is not None:
            return found  # the network or its TensorRT plan fixes the batch
        batch = min(tuning.batch, len(found), pixels // found.tile_pixels)
        return replace(found, batch=max(1, batch))

    def _plan(self, height: int, width: int, pixels: int, tile: tuple[int, int] | None) -> TilePlan:
        allowed = pixels if self.pixels is None else max(min(pixels, self.pixels), 1)
        if tile is not None:
            return planner.plan(height, width, self.model, None, self._clipped(tile))
        found = planner.plan(height, width, self.model, allowed)
        return found if self._fits(found) else self._cut(found, found.tile)

    def smaller(self, plan: TilePlan) -> TilePlan | None:
        """Return a plan that needs about half the memory at once; None if there is none."""
        found = planner.smaller(plan, self.model)
        if found is None or self._fits(found):
            return found
        height, width = plan.tile
        halves = (-(-height // 2), width) if height > width else (height, -(-width // 2))
        found = self._cut(plan, halves)
        return found if found.tile_pixels < plan.tile_pixels else None

    def _cut(self, plan: TilePlan, tile: tuple[int, int]) -> TilePlan:
        """Return a plan for the same frame with tiles of at most a size."""
        sides = plan.rows.length, plan.columns.length
        found = planner.plan(*sides, self.model, None, self._clipped(tile))
        return replace(found, batch=plan.batch)

    def _clipped(self, tile: tuple[int, int]) -> tuple[int, int]:
        if self.most is None:
            return tile
        # The planner enlarges tiles to the grid.
        room = self.model.multiple_of - 1
        height, width = (
            side if side <= most else max(most - room, 1)
            for side, most in zip(tile, self.most, strict=True)
        )
        return height, width

    def _fits(self, plan: TilePlan) -> bool:
        return self.most is None or all(
            side <= most for side, most in zip(plan.tile, self.most, strict=True)
        )
