"""The lane of a backend that computes in host memory."""

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


class HostInference(Protocol):
    """A network that is ready to run; the part that a backend implements."""

    def infer(
        self,
        pixels: NDArray[Any],
        into: NDArray[np.uint8],
        color: NDArray[np.float32] | None = None,
    ) -> None:
        """Run a batch (N, h, w, bytes) into (N, scale*h, scale*w, bytes), both contiguous.

        A generator gets noise, float32 (N, size), and writes (N, height, width, bytes).

        Args:
            pixels: The batch.
            into: The result.
            color: Coefficients of a YUV frame, see `Lane.run`.

        Raises:
            OutOfMemoryError: out of memory.
            BackendError: the backend failed otherwise.
        """

    def release(self) -> None:
        """Free buffers that only save time for the next batch."""

    def close(self) -> None:
        """Free all resources."""


class HostLane:
    """Copies tiles into reused buffers, runs them in batches, and blends the results into `out`.

    A frame that is not tiled is not copied: the network reads it and writes `out` in place.
    """

    def __init__(self, inference: HostInference, model: Model, pixel_format: PixelFormat) -> None:
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
            height, width = plan.tile
            raise OutOfMemoryError(f"out of memory with tiles of {height}x{width}") from error

    def generate(self, noise: NDArray[np.float32], into: NDArray[np.uint8]) -> None:
        """Generate images; see `Lane.generate`."""
        self._inference.infer(noise, into)

    def release(self) -> None:
        """Free buffers that only save time for the next frame."""
        self.release_tiles()
        self._inference.release()

    def release_tiles(self) -> None:
        """Free the buffers of tiles."""
        self._tiles = self._results = np.empty((0, 0, 0, 0), np.uint8)

    def close(self) -> None:
        """Free all resources."""
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
            # A network with a fixed batch gets a full one; results of unused slots are ignored.
            count = self._model.fixed_batch or len(batch)
            self._inference.infer(self._tiles[:count], self._results[:count])
            for result, (row, column) in zip(self._results, batch, strict=False):
                blender.put(row, column, result)

    def _reserve(self, plan: TilePlan, bytes_in: int, bytes_out: int) -> None:
        """Allocate buffers for a batch of tiles, unless those of the last frame fit."""
        scale = self._model.scale
        height, width = plan.tile
        shape = (plan.batch, height, width, bytes_in)
        results = (plan.batch, scale * height, scale * width, bytes_out)
        if (self._tiles.shape, self._results.shape) != (shape, results):
            self._tiles = self._results = self._tiles[:0]  # frees the old ones first
            self._tiles, self._results = np.zeros(shape, np.uint8), np.empty(results, np.uint8)


def _batches(plan: TilePlan) -> Iterator[list[tuple[int, int]]]:
    """Yield the plan's tiles, `plan.batch` at a time."""
    tiles = list(plan)
    for first in range(0, len(tiles), plan.batch):
        yield tiles[first : first + plan.batch]
