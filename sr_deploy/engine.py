"""The engine: opens a bundle on the best backend and upscales images of any size and kind."""

from __future__ import annotations

import logging
import operator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy import channels, machine, tiling
from sr_deploy.bundle import Bundle
from sr_deploy.errors import InvalidInputError
from sr_deploy.memory import Budget
from sr_deploy.networks import Networks, Wish
from sr_deploy.pool import closed
from sr_deploy.selection import pixel_format
from sr_deploy.stream import Flow, Stream, async_results, results

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator, AsyncIterable, Generator, Iterable

    from numpy.typing import NDArray

    from sr_deploy.channels import Pass
    from sr_deploy.manifest import Precision
    from sr_deploy.pool import Pool
    from sr_deploy.tiling import Plan

_log = logging.getLogger(__name__)

# Frames of a stream beside those that are computed: one that was read, one that is ready.
_AHEAD = 2
# They may take this part of the memory.
_WAITING_SHARE = 4


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
        lanes: Frames that it computes at once.
        memory: Bytes that the process may hold while a frame is upscaled.
    """

    architecture: str
    scale: int
    channels: int
    backend: str
    precision: Precision
    device: str
    threads: int
    lanes: int
    memory: int


class Engine:
    """Upscales images with a bundle. Threads may share an engine.

    Args:
        path: The bundle's folder, `NAME.srd`.
        backend: "auto" for the best that is installed and takes the network, or "openvino" or
            "onnxruntime".
        precision: "auto" for the fastest on the backend; every precision of a bundle was measured
            and holds its budget. Or "fp32", "bf16", "fp16" or "int8", which is for 8-bit frames:
            those of 16 bits are computed in it where the bundle has it for them, else in FP32.
        device: The backend's name for a device; None for its default.
        threads: Of computation on a CPU; None for as many as this process has real cores.
        lanes: How many frames to compute at once, sharing the threads, where several threads call
            `upscale`, and in `stream`; more take more memory, and seldom pay on a CPU.
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
        lanes: int = 1,
        memory: str | int | None = None,
        tile: int | tuple[int, int] | None = None,
    ) -> None:
        self._most_pixels: int | None = None
        self._tile = _checked_tile(tile)
        threads = machine.cores() if threads is None else _at_least_1("threads", threads)
        wish = Wish(backend, precision, device, threads, _at_least_1("lanes", lanes))
        self._budget = Budget.given(memory)
        bundle = Bundle.open(path)
        self._model = bundle.manifest.model
        first = pixel_format(self._model.channels, itemsize=1)
        self._networks = Networks(bundle, first, wish)
        self._spec = Spec(
            architecture=self._model.architecture,
            scale=self._model.scale,
            channels=self._model.channels,
            backend=self._networks.backend.name,
            precision=self._networks.precision(first),
            device=self._networks.pool(first).network.device,
            threads=wish.threads,
            lanes=wish.lanes,
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
        if self._networks.closed:
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

    def stream(
        self,
        frames: Iterable[Any],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> Generator[Any, None, None]:
        """Yield the result of each frame, in order, while the next are read and computed.

        The frames are read in a thread of their own, computed in others, and what the caller does
        with a result overlaps with both. Memory is bounded: when the caller is slow, the source
        waits. What the source, the network or the caller raises ends all of it, at its frame; so
        does leaving the loop. Then no thread is left, once the source has given what it was asked
        for last.

        Args:
            frames: Images as `upscale` takes them, of any sizes; or pairs of an image and anything
                that is to come back with its result. An image must stay as it is until its result
                has come.
            in_flight: How many frames may be on their way at once; None for as many as keep
                everything busy within the memory budget.
            latest: For live sources: never make the source wait. Of the frames that come while
                others are computed, only the newest is kept.
            reuse: A result is only valid until the next is taken: its memory is used again, which
                is faster.

        Yields:
            A result for each image, or for each pair a result and what came with the image.

        Raises:
            InvalidInputError: `in_flight` is below 1; later, an image does not fit.
        """
        flow = self._flow(in_flight, latest=latest, reuse=reuse)
        return results(Stream(frames, self._upscale_in_flight, flow))

    def astream(
        self,
        frames: Iterable[Any] | AsyncIterable[Any],
        in_flight: int | None = None,
        *,
        latest: bool = False,
        reuse: bool = False,
    ) -> AsyncGenerator[Any, None]:
        """Do as `stream` does, for programs on an event loop, which stays free meanwhile.

        Args:
            frames: As of `stream`, from an asynchronous iterable or another.
            in_flight: See `stream`; so for the others.
            latest: See `stream`.
            reuse: See `stream`.

        Returns:
            An asynchronous generator; `contextlib.aclosing` ends it early.

        Raises:
            InvalidInputError: as of `stream`.
        """
        flow = self._flow(in_flight, latest=latest, reuse=reuse)
        return async_results(frames, lambda each: Stream(each, self._upscale_in_flight, flow))

    def close(self) -> None:
        """Wait for the frames in flight, then give everything back; again does nothing."""
        self._networks.close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<{'closed ' if self._networks.closed else ''}Engine {self._spec}>"

    def _flow(self, in_flight: int | None, *, latest: bool, reuse: bool) -> Flow:
        """Return how frames flow; of how many the user leaves to us, memory decides."""
        if in_flight is not None:
            _at_least_1("in_flight", in_flight)

        def most(frame: Any) -> int:
            if in_flight is not None:
                return in_flight
            allowed = self._budget.total // _WAITING_SHARE // max(self._bytes_in_flight(frame), 1)
            return max(1, min(self._spec.lanes + _AHEAD, allowed))

        return Flow(self._spec.lanes, most, latest, reuse)

    def _bytes_in_flight(self, frame: Any) -> int:
        """Return what a frame and its result take; whether it is a frame is seen later."""
        return int(getattr(frame, "nbytes", 0)) * (1 + self._model.scale**2)

    def _upscale_in_flight(self, frame: Any, out: Any, in_flight: int) -> Any:
        return self.upscale(frame, out, reserve=in_flight * self._bytes_in_flight(frame))

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
        pool = self._networks.pool(pixel_format(self._model.channels, taken.itemsize))
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
        footprint = pool.network.footprint.times(pool.network.lanes)
        budget = replace(self._budget, held=self._networks.held)
        tile_bytes = pool.network.lanes * pixel_bytes * (1 + self._model.scale**2)
        allowed = max(budget.pixels(footprint, held, tile_bytes), 1)
        if self._most_pixels is not None:
            allowed = min(allowed, self._most_pixels)
        plan = tiling.plan(height, width, self._model, allowed, self._tile)
        if self._tile is None:
            frame = f"a frame of {width}x{height} pixels"
            budget.require(plan.tile_pixels, footprint, held, tile_bytes, frame)
        return plan

    def _run_plan(
        self, pool: Pool, frame: NDArray[np.uint8], plan: Plan, out: NDArray[np.uint8]
    ) -> None:
        """Run a plan, with smaller and smaller tiles where the backend lacks memory."""
        self._networks.release_all_but(pool)  # the budget is for one network at a time
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


def _at_least_1(name: str, value: int) -> int:
    """Return a number that the user gives.

    Raises:
        InvalidInputError: it is below 1.
    """
    if value < 1:
        raise InvalidInputError(f"{name} must be at least 1, found {value}")
    return value
