"""Tiles out of a frame and back into one, all in the device's memory.

The steps are those of `sr_deploy.tiling.blender`, as kernels; each tile has its own launches, in
the order of the plan, because what is mixed depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.backends.cuda import driver
from sr_deploy.tiling import native
from sr_deploy.tiling.blender import piece

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_deploy.backends.cuda.driver import CudaStream, Kernels
    from sr_deploy.tiling.planner import TilePlan


@dataclass(frozen=True)
class Addresses:
    """Where everything lies in the device's memory, rows without gaps.

    Attributes:
        frame: (H, W, bytes).
        out: (scale*H, scale*W, bytes).
        tiles: What goes through the network at once: (N, h, w, bytes).
        results: And comes out of it: (N, scale*h, scale*w, bytes).
        above: The rows of `out` in which a row of tiles is mixed with the one above.
    """

    frame: int
    out: int
    tiles: int
    results: int
    above: int


class Tiles:
    """Runs a network on the tiles of a plan.

    Args:
        kernels: Those of `native/`.
        plan: How the frame is cut.
        frames: (H, W, bytes), before and after.
        addresses: Where they lie.
        scale: Of the network.
        sample: Bytes of a sample.
    """

    def __init__(
        self,
        kernels: Kernels,
        plan: TilePlan,
        frames: tuple[tuple[int, ...], tuple[int, ...]],
        addresses: Addresses,
        scale: int,
        sample: int,
    ) -> None:
        self._kernels = kernels
        self._plan = plan
        (self._height, self._width, self._depth), (_, out_width, _) = frames
        self._pitch = out_width * self._depth
        self._at = addresses
        self._scale = scale
        self._sample = sample

    def put(self, stream: CudaStream, enqueue: Callable[[CudaStream], None]) -> None:
        """Put everything into a stream; `enqueue` puts the network there, for one batch."""
        tiles, batch = list(self._plan), self._plan.batch
        for first in range(0, len(tiles), batch):
            part = tiles[first : first + batch]
            for slot, tile in enumerate(part):
                self._gather(tile, slot, stream)
            # A batch is always run whole; what is left over is not looked at.
            enqueue(stream)
            for slot, tile in enumerate(part):
                self._scatter(tile, slot, stream)

    def _gather(self, tile: tuple[int, int], slot: int, stream: CudaStream) -> None:
        """Take a tile out of the frame."""
        row, column = tile
        height, width = self._plan.tile
        step = native.Gather(
            frame=self._at.frame,
            tile=self._at.tiles + slot * height * width * self._depth,
            pitch=self._width * self._depth,
            frame_height=self._height,
            frame_width=self._width,
            top=self._plan.rows.starts[row],
            left=self._plan.columns.starts[column],
            height=height,
            width=width,
            depth=self._depth,
        )
        self._kernels.launch("sr_gather", step, (height, width * self._depth), stream)

    def _scatter(self, tile: tuple[int, int], slot: int, stream: CudaStream) -> None:
        """Put a result into the frame, as `Blender.put` does."""
        this = piece(self._plan, self._scale, *tile)
        height, width = (self._scale * side for side in self._plan.tile)
        pitch, depth = self._pitch, self._depth
        target = self._at.out + this.top * pitch
        if this.first and this.zone:
            driver.copy(self._at.above, target, (this.zone, pitch), (pitch, pitch), stream)
        offset = ((slot * height + this.y) * width + this.x) * depth
        step = native.Scatter(
            part=self._at.results + offset,
            out=target + this.left * depth,
            part_pitch=width * depth,
            out_pitch=pitch,
            height=this.height,
            width=this.width,
            ramp=this.ramp,
            channels=depth // self._sample,
            sample=self._sample,
        )
        self._kernels.launch("sr_scatter", step, (this.height, this.width * depth), stream)
        if this.last and this.zone:
            self._mix(target, this.zone, stream)

    def _mix(self, target: int, rows: int, stream: CudaStream) -> None:
        """Mix a finished row of tiles with what the row above had left there."""
        samples = self._pitch // self._sample
        step = native.Mix(
            above=self._at.above,
            out=target,
            out_pitch=self._pitch,
            height=rows,
            samples=samples,
            sample=self._sample,
        )
        self._kernels.launch("sr_mix", step, (rows, samples), stream)
