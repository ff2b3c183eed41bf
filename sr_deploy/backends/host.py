"""The lane of every backend that computes from and into the host's memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sr_deploy.errors import OutOfMemoryError
from sr_deploy.tiling.blender import open_blender, reflected

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Model, PixelFormat
    from sr_deploy.tiling.planner import TilePlan

SAMPLES: dict[str, np.dtype[np.generic]] = {
    "rgb24": np.dtype("u1"),
    "gray8": np.dtype("u1"),
    "rgb48": np.dtype("<u2"),
    "gray16": np.dtype("<u2"),
    "yuv420p": np.dtype("u1"),
    "nv12": np.dtype("u1"),
    "p010": np.dtype("<u2"),
}


class Inference(Protocol):
    """A network that is ready to run; the only thing that a host backend has to bring."""

    def infer(
        self,
        pixels: NDArray[Any],
        into: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
    ) -> None:
        """Run on (N, h, w, bytes) into (N, scale*h, scale*w, bytes), both contiguous.

        Frames of YUV come with their `color`, see `Lane.run`. In the place of
        pixels, a generator gets float32 (N, size), and makes (N, height, width, bytes).

        Raises:
            OutOfMemoryError: it lacked memory.
            BackendError: it failed otherwise.
        """

    def release(self) -> None:
        """Give back what is only kept to be faster the next time."""

    def close(self) -> None:
        """Give everything back."""


class HostLane:
    """Gathers tiles into reused buffers, runs them, and puts the results together in place.

    A frame that goes through whole is neither gathered nor put together: the network reads it
    where it is and writes its result where it belongs.
    """

    def __init__(self, inference: Inference, model: Model, pixel_format: PixelFormat) -> None:
        self._inference = inference
        self._model = model
        self._sample = SAMPLES[pixel_format]
        self._tiles = self._results = np.empty((0, 0, 0, 0), np.uint8)

    def run(
        self,
        frame: NDArray[np.uint8],
        plan: TilePlan,
        out: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
    ) -> None:
        """Upscale one frame; see `Lane.run`."""
        try:
            if plan.whole and self._model.fixed_batch in (None, 1):
                self._inference.infer(frame[None], out[None], color)
            else:
                self._run_tiles(frame, plan, out)
        except MemoryError as error:
            self.release()
            if isinstance(error, OutOfMemoryError):
                raise
            raise OutOfMemoryError(f"no memory for tiles of {plan.tile} pixels") from error

    def generate(self, noise: NDArray[np.float32], into: NDArray[np.uint8]) -> None:
        """Make images out of numbers; see `Lane.generate`."""
        self._inference.infer(noise, into)

    def release(self) -> None:
        """Free buffers that only save time for the next frame."""
        self.release_tiles()
        self._inference.release()

    def release_tiles(self) -> None:
        """Free the buffers of tiles."""
        self._tiles = self._results = np.empty((0, 0, 0, 0), np.uint8)

    def close(self) -> None:
        """Give everything back."""
        self.release()
        self._inference.close()

    def _run_tiles(self, frame: NDArray[np.uint8], plan: TilePlan, out: NDArray[np.uint8]) -> None:
        frame = reflected(frame, plan.rows.padded, plan.columns.padded)
        self._reserve(plan, frame.shape[2], out.shape[2])
        blender = open_blender(out, plan, self._model.scale, self._sample)
        height, width = plan.tile
        for batch in _batches(plan):
            for tile, (row, column) in zip(self._tiles, batch, strict=False):
                top, left = plan.rows.starts[row], plan.columns.starts[column]
                tile[...] = frame[top : top + height, left : left + width]
            # A network of a fixed batch gets all of it; what is left over is not looked at.
            count = self._model.fixed_batch or len(batch)
            self._inference.infer(self._tiles[:count], self._results[:count])
            for result, (row, column) in zip(self._results, batch, strict=False):
                blender.put(row, column, result)

    def _reserve(self, plan: TilePlan, bytes_in: int, bytes_out: int) -> None:
        """Have buffers for a batch of tiles; those of the frame before, if they are as large."""
        scale = self._model.scale
        height, width = plan.tile
        shape = (plan.batch, height, width, bytes_in)
        results = (plan.batch, scale * height, scale * width, bytes_out)
        if (self._tiles.shape, self._results.shape) != (shape, results):
            self._tiles = self._results = self._tiles[:0]  # the old ones go first
            self._tiles, self._results = np.zeros(shape, np.uint8), np.empty(results, np.uint8)


def _batches(plan: TilePlan) -> Iterator[list[tuple[int, int]]]:
    """Yield the plan's tiles, `plan.batch` at a time."""
    tiles = list(plan)
    for first in range(0, len(tiles), plan.batch):
        yield tiles[first : first + plan.batch]
