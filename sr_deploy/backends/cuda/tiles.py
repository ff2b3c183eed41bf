"""Tiling in GPU memory: the steps of `sr_deploy.tiling.blender` as kernels.

Every tile has its own launches, in the plan's order, because the result of blending depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.backends.cuda import driver
from sr_deploy.tiling import native
from sr_deploy.tiling.blender import piece

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_deploy.backends.cuda.buffers import Buffers
    from sr_deploy.backends.cuda.driver import CudaStream, Kernels
    from sr_deploy.tiling.planner import TilePlan


class DeviceTiles:
    """Runs a network on the tiles of a plan, all in GPU memory.

    Args:
        kernels: The kernels of `native/`.
        plan: The frame's tiles.
        buffers: The lane's buffers, with the frame and its result; those of tiles are added.
        frame: Shape of the frame, (H, W, bytes).
        scale: Scale of the network.
        sample: Bytes of a sample.

    Attributes:
        batch_shape: Shape of a batch of tiles, (N, h, w, bytes).
        result_shape: Shape of its result, (N, scale*h, scale*w, bytes).
        inputs: Address of the batch.
        results: Address of its result.
    """

    def __init__(
        self,
        kernels: Kernels,
        plan: TilePlan,
        buffers: Buffers,
        frame: tuple[int, ...],
        scale: int,
        sample: int,
    ) -> None:
        self._kernels = kernels
        self._plan = plan
        self._scale = scale
        self._sample = sample
        self._height, self._width, self._depth = frame
        self._pitch = scale * self._width * self._depth
        self.batch_shape = (plan.batch, *plan.tile, self._depth)
        height, width = plan.tile
        self.result_shape = (plan.batch, scale * height, scale * width, self._depth)
        self._frame, self._out = buffers.address("frame"), buffers.address("out")
        self.inputs = buffers.reserve("tiles", int(np.prod(self.batch_shape)))
        self.results = buffers.reserve("results", int(np.prod(self.result_shape)))
        # The rows of the result that two rows of tiles share, as the upper one left them.
        self._above = buffers.reserve("above", scale * plan.rows.ramp * self._pitch)

    def enqueue(self, stream: CudaStream, infer: Callable[[CudaStream], None]) -> None:
        """Enqueue all steps; `infer` enqueues the network for one batch."""
        tiles, batch = list(self._plan), self._plan.batch
        for first in range(0, len(tiles), batch):
            part = tiles[first : first + batch]
            for slot, (row, column) in enumerate(part):
                self._gather(row, column, slot, stream)
            infer(stream)  # always a whole batch; results of unused slots are ignored
            for slot, (row, column) in enumerate(part):
                self._scatter(row, column, slot, stream)

    def _gather(self, row: int, column: int, slot: int, stream: CudaStream) -> None:
        """Copy a tile out of the frame."""
        height, width = self._plan.tile
        step = native.Gather(
            frame=self._frame,
            tile=self.inputs + slot * height * width * self._depth,
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

    def _scatter(self, row: int, column: int, slot: int, stream: CudaStream) -> None:
        """Blend a result into the upscaled frame, as `Blender.put` does."""
        this = piece(self._plan, self._scale, row, column)
        height, width = (self._scale * side for side in self._plan.tile)
        pitch, depth = self._pitch, self._depth
        target = self._out + this.top * pitch
        if this.first and this.zone:
            driver.copy_bytes(self._above, target, this.zone * pitch, stream)
        step = native.Scatter(
            part=self.results + ((slot * height + this.y) * width + this.x) * depth,
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
            samples = pitch // self._sample
            mix = native.Mix(
                above=self._above,
                out=target,
                out_pitch=pitch,
                height=this.zone,
                samples=samples,
                sample=self._sample,
            )
            self._kernels.launch("sr_mix", mix, (this.zone, samples), stream)
