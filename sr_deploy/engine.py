"""The engine: opens a bundle on the best backend and upscales images of any size and kind."""

from __future__ import annotations

import logging
import operator
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy import backends, channels, machine, selection, tiling
from sr_deploy.backends.base import Job
from sr_deploy.bundle import Bundle
from sr_deploy.errors import InvalidInputError
from sr_deploy.memory import Budget, resident
from sr_deploy.pool import Pool, closed

if TYPE_CHECKING:
    import os

    from numpy.typing import NDArray

    from sr_deploy.channels import Pass
    from sr_deploy.manifest import PixelFormat, Precision
    from sr_deploy.tiling import Plan

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Spec:
    """What an engine runs.

    Attributes:
        architecture: Of the network.
        scale: How many times as high and as wide the result is.
        channels: Of the network, 1 or 3; images of others go through in several passes.
        backend: Its name.
        precision: In which the network computes 8-bit frames.
        device: The backend's name for it.
        threads: Of computation, on a CPU.
        memory: Bytes that the process may hold while a frame is upscaled.
    """

    architecture: str
    scale: int
    channels: int
    backend: str
    precision: Precision
    device: str
    threads: int
    memory: int


class Engine:
    """Upscales images with a bundle. Threads may share an engine.

    Args:
        path: The bundle's folder, `NAME.srd`.
        backend: "auto" for the best that is installed, or "openvino" or "onnxruntime".
        precision: "auto", "fp32", "bf16", "fp16" or "int8".
        device: The backend's name for a device; None for its default.
        threads: Of computation on a CPU; None for as many as this process has real cores.
        memory: The most that this process may hold while a frame is upscaled, in bytes or as text
            ("2GiB"); None for what it holds when the engine opens and a quarter of what is free.
        tile: Side, or height and width, of the tiles; None for the largest that memory allows.

    Raises:
        NotFoundError, BundleError: the bundle is not there, or damaged.
        InvalidInputError: an argument does not fit.
        BackendMissingError, BackendError: the backend is not installed, or cannot run the network.
        OutOfMemoryError: there is not even memory to load the network.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        backend: str = "auto",
        precision: str = "auto",
        device: str | None = None,
        threads: int | None = None,
        memory: str | int | None = None,
        tile: int | tuple[int, int] | None = None,
    ) -> None:
        self._closed = False
        self._pools: dict[PixelFormat, Pool] = {}
        self._loading = threading.Lock()
        self._most_pixels: int | None = None
        self._tile = _checked_tile(tile)
        self._threads = _checked_threads(threads)
        self._budget = Budget.given(memory)
        self._bundle = Bundle.open(path)
        self._model = self._bundle.manifest.model
        self._backend = backends.create(backend, device)
        self._device = device
        self._precision = precision
        first = selection.pixel_format(self._model.channels, itemsize=1)
        running = self._pool(first).network
        # Now the backend's own libraries are there, too.
        self._budget = replace(self._budget, held=resident())
        self._spec = Spec(
            architecture=self._model.architecture,
            scale=self._model.scale,
            channels=self._model.channels,
            backend=self._backend.name,
            precision=self._choice(first).precision,
            device=running.device,
            threads=self._threads,
            memory=self._budget.total,
        )

    @property
    def spec(self) -> Spec:
        """What this engine runs."""
        return self._spec

    def upscale(
        self, image: NDArray[Any], out: NDArray[Any] | None = None, *, reserve: int = 0
    ) -> NDArray[Any]:
        """Return an image `scale` times as high and as wide, of the same kind.

        Args:
            image: uint8 or uint16, (H, W) or (H, W, C) with C = 1 (gray), 2 (gray, alpha), 3 (RGB)
                or 4 (RGB, alpha), of any size from 1x1; contiguous or not. It is only read.
            out: Where to put the result, (scale*H, scale*W[, C]) of the image's dtype; None for a
                new array. The fastest is one that is contiguous, used again and again.
            reserve: Bytes that the caller takes of the memory budget, beside image and result,
                while or right after this runs (for encoding the result, for example).

        Returns:
            `out`, or the new array. On an error, `out` holds anything.

        Raises:
            InvalidInputError: the image or `out` does not fit, or the engine is closed.
            OutOfMemoryError: the frame does not fit into the memory budget.
            BackendError: the backend failed.
        """
        if self._closed:
            raise closed()
        frame = channels.checked(image)
        result = channels.checked_out(out, image, self._model.scale)
        if np.may_share_memory(frame, result):
            frame = frame.copy()
        whole = result if result.ndim == 3 else result[..., None]
        for each in channels.passes(frame.shape[2], self._model.channels):
            value = each.constant(frame)
            if value is None:
                self._run_pass(each, frame, whole, reserve)
            else:
                whole[..., each.first : each.last] = value
        return result

    def close(self) -> None:
        """Wait for the frames in flight, then give everything back; again does nothing."""
        with self._loading:
            self._closed = True
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{'closed ' if self._closed else ''}Engine {self._spec}>"

    def _run_pass(self, each: Pass, frame: NDArray[Any], out: NDArray[Any], reserve: int) -> None:
        """Run some channels of a frame (H, W, C) into the same channels of `out`."""
        taken = each.take(frame)
        height, width, depth = taken.shape
        scale = self._model.scale
        shape = (scale * height, scale * width, depth)
        direct = out.shape == shape and out.flags.c_contiguous and out.dtype == taken.dtype
        held = reserve + frame.nbytes + out.nbytes
        held += 0 if np.may_share_memory(taken, frame) else taken.nbytes
        held += 0 if direct else scale**2 * taken.nbytes
        pool = self._pool(selection.pixel_format(self._model.channels, taken.itemsize))
        plan = self._plan(pool, height, width, held, taken.itemsize * depth)
        result = out if direct else np.empty(shape, taken.dtype)
        self._run_plan(pool, taken.view(np.uint8), plan, result.view(np.uint8))
        if not direct:
            each.give(result, out)

    def _plan(self, pool: Pool, height: int, width: int, held: int, pixel_bytes: int) -> Plan:
        """Return the largest tiles that the memory budget allows, or the user's.

        Raises:
            OutOfMemoryError: not even the smallest fit.
        """
        footprint = pool.network.footprint
        tile_bytes = pixel_bytes * (1 + self._model.scale**2)
        allowed = max(self._budget.pixels(footprint, held, tile_bytes), 1)
        if self._most_pixels is not None:
            allowed = min(allowed, self._most_pixels)
        plan = tiling.plan(height, width, self._model, allowed, self._tile)
        if self._tile is None:
            frame = f"a frame of {width}x{height} pixels"
            self._budget.require(plan.tile_pixels, footprint, held, tile_bytes, frame)
        return plan

    def _run_plan(
        self, pool: Pool, frame: NDArray[np.uint8], plan: Plan, out: NDArray[np.uint8]
    ) -> None:
        """Run a plan, with smaller and smaller tiles where the backend lacks memory."""
        with pool.lane() as lane:
            while True:
                try:
                    return lane.run(frame, plan, out)
                except MemoryError:
                    smaller = tiling.smaller(plan, self._model)
                    if smaller is None:
                        raise
                    if self._most_pixels is None:
                        _log.warning(
                            "out of memory with tiles of %dx%d pixels; going on with smaller ones",
                            *reversed(plan.tile),
                        )
                    plan = smaller
                    # For the frames to come, and even if the user had asked for larger tiles.
                    self._most_pixels = plan.tile_pixels
                    self._tile = None

    def _choice(self, frames: PixelFormat) -> selection.Choice:
        """Return which file runs frames of a pixel format."""
        computed = self._backend.precisions(self._device)
        return selection.choose(self._bundle, frames, self._precision, computed)

    def _pool(self, frames: PixelFormat) -> Pool:
        """Return the network for a pixel format, loading it when it is first needed."""
        with self._loading:
            if self._closed:
                raise closed()
            if frames not in self._pools:
                choice = self._choice(frames)
                job = Job(
                    self._bundle.verified(choice.variant),
                    self._model,
                    frames,
                    choice.precision,
                    self._device,
                    self._threads,
                )
                before = resident()
                self._pools[frames] = Pool(self._backend.load(job))
                taken = max(0, resident() - before)
                self._budget = replace(self._budget, held=self._budget.held + taken)
            return self._pools[frames]


def _checked_tile(tile: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the user's tile as height and width.

    Raises:
        InvalidInputError: it is no side or pair of sides of at least 1.
    """
    if tile is None:
        return None
    try:
        height, width = tile if isinstance(tile, tuple) else (tile, tile)
        sides = operator.index(height), operator.index(width)
    except (TypeError, ValueError):
        sides = (0, 0)
    if min(sides) < 1:
        raise InvalidInputError(
            f"tile must be a side of at least 1 pixel, or a pair (height, width), found {tile!r}"
        )
    return sides


def _checked_threads(threads: int | None) -> int:
    """Return how many threads compute.

    Raises:
        InvalidInputError: the user's number is below 1.
    """
    if threads is not None and threads < 1:
        raise InvalidInputError(f"threads must be at least 1, found {threads}")
    return threads or machine.cores()
