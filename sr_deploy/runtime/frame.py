"""The upscaling of one frame: an image in host memory, an image on a GPU, or a YUV frame."""

from __future__ import annotations

import logging
import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.errors import BackendError, InvalidInputError, OutOfMemoryError, TilingNeededError
from sr_deploy.runtime import channels
from sr_deploy.runtime.selection import pixel_format
from sr_deploy.runtime.yuv import YuvFrame, checked_result
from sr_deploy.tiling.planner import TilePlanner

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sr_deploy.backends.base import Lane
    from sr_deploy.bundle.manifest import Model, YuvFormat
    from sr_deploy.runtime.channels import Pass
    from sr_deploy.runtime.memory import Budget
    from sr_deploy.runtime.session import LanePool, Session
    from sr_deploy.tiling.planner import TilePlan

_log = logging.getLogger(__name__)


class FrameRunner:
    """Upscales frames with the networks of a session; threads may share it.

    The methods implement those of `Engine`, which document arguments and errors.

    Args:
        session: The loaded networks.
        model: The network's description in the manifest.
        budget: Memory that a frame may take.
        tile: Height and width of the user's tile; None for the largest that memory allows.
    """

    def __init__(
        self, session: Session, model: Model, budget: Budget, tile: tuple[int, int] | None
    ) -> None:
        self._session = session
        self._model = model
        self._budget = budget
        self._tile = tile
        self._formats = {size: pixel_format(model.channels, size) for size in (1, 2)}
        self._most_pixels: int | None = None
        """Largest number of pixels at once that did not exhaust memory, once one did."""

    def image(self, image: Any, out: Any, reserve: int) -> NDArray[Any]:
        """Upscale an image in host memory."""
        frame = channels.checked_image(image)
        result = channels.checked_result(out, image, self._model.scale)
        if np.may_share_memory(frame, result):
            frame = frame.copy()
        whole = result if result.ndim == 3 else result[..., None]
        for each in channels.passes(frame.shape[2], self._model.channels):
            if each.alpha and (value := each.constant(frame)) is not None:
                whole[..., each.first : each.last] = value
            else:
                self._run_pass(each, frame, whole, reserve)
        return result

    def _run_pass(self, each: Pass, frame: NDArray[Any], out: NDArray[Any], reserve: int) -> None:
        """Upscale some channels of a frame (H, W, C) into the same channels of `out`."""
        taken = each.take(frame)
        height, width, depth = taken.shape
        scale = self._model.scale
        shape = (scale * height, scale * width, depth)
        direct = out.shape == shape and out.flags.c_contiguous and out.dtype == taken.dtype
        held = reserve + frame.nbytes + out.nbytes
        held += 0 if np.may_share_memory(taken, frame) else taken.nbytes
        held += 0 if direct else scale**2 * taken.nbytes
        pool = self._session.activate(self._formats[taken.itemsize], frame.nbytes)
        plan = self._plan(pool, height, width, held, taken.itemsize * depth)
        result = out if direct else np.empty(shape, taken.dtype)
        source, target = taken.view(np.uint8), result.view(np.uint8)
        self._run_plan(pool, plan, lambda lane, plan: lane.run(source, plan, target))
        if not direct:
            each.give(result, out)

    def device_image(self, image: Any, out: Any, stream: object) -> Any:
        """Enqueue the upscaling of an image on the GPU; returns before it is done."""
        network = self._session.pool(self._formats[1]).network
        if network.device_frames is None:
            raise InvalidInputError(
                f"the image is in GPU memory, but this engine runs on {network.device}; copy the "
                "image to the host, or open the engine with backend='tensorrt'"
            )
        frame = network.device_frames.open(image, out, stream)
        height, width, pixel_bytes = frame.size
        pool = self._session.activate(self._formats[frame.itemsize], 0)
        plan = self._plan(pool, height, width, 0, pixel_bytes)
        self._run_plan(pool, plan, frame.run)
        return frame.result

    def yuv(self, frame: YuvFrame, out: YuvFrame | None, reserve: int) -> YuvFrame:
        """Upscale a YUV frame, which cannot be tiled."""
        result = checked_result(out, frame, self._model.scale)
        if np.may_share_memory(frame.samples, result.samples):
            frame = replace(frame, samples=frame.samples.copy())
        pool = self._session.activate(frame.pixel_format, frame.nbytes)
        plan = self._whole(pool, frame, reserve + frame.nbytes + result.nbytes)
        if plan is not None:
            try:
                with pool.lane() as lane:
                    lane.run(frame.pixels, plan, result.pixels, frame.coefficients)
            except MemoryError:
                self._most_pixels = plan.tile_pixels // 2
            else:
                return result
        raise TilingNeededError(
            f"a {frame.pixel_format} frame of {frame.width}x{frame.height} pixels exceeds the "
            "memory budget or the tile, and YUV frames cannot be tiled; check with `takes`, and "
            "upscale it as RGB"
        )

    def takes_yuv(self, pixel_format: YuvFormat, height: int, width: int) -> bool:
        """Return whether YUV frames of this size can be upscaled without conversion to RGB."""
        if height % 2 or width % 2 or not self._session.offers(pixel_format):
            return False
        frame = YuvFrame.empty(pixel_format, height, width)
        try:
            pool = self._session.activate(pixel_format, frame.nbytes)
            plan = self._whole(pool, frame, (1 + self._model.scale**2) * frame.nbytes)
        except BackendError as error:
            _log.debug("frames of %s are converted to RGB: %s", pixel_format, error)
            return False
        return plan is not None

    def _whole(self, pool: LanePool, frame: YuvFrame, held: int) -> TilePlan | None:
        """Return the plan of a YUV frame; None if it would have to be tiled."""
        try:
            plan = self._plan(pool, frame.height, frame.width, held, 2 * frame.samples.itemsize)
        except OutOfMemoryError:
            return None
        return plan if plan.whole else None

    def _plan(
        self, pool: LanePool, height: int, width: int, held: int, pixel_bytes: int
    ) -> TilePlan:
        """Return the plan with the largest tiles within the memory budget, or the user's tile.

        Args:
            pool: The network.
            height: Height of the frame.
            width: Width of the frame.
            held: Bytes taken by the frame, its result and copies of them.
            pixel_bytes: Bytes of one pixel of a tile.

        Raises:
            OutOfMemoryError: not even the smallest tile fits.
        """
        budget = replace(self._budget, held=self._session.held)
        tile_bytes = pool.network.lanes * pixel_bytes * (1 + self._model.scale**2)
        fitting = budget.pixels(pool.footprint, held, tile_bytes)
        allowed = max(fitting, 1)
        if self._most_pixels is not None:
            allowed = min(allowed, self._most_pixels)
        planner = self._planner(pool, height, width)
        plan = planner.plan(height, width, allowed, self._tile, pool.tuning)
        if self._tile is None and plan.tile_pixels > fitting:
            frame = f"a frame of {width}x{height} pixels"
            budget.require(plan.tile_pixels, pool.footprint, held, tile_bytes, frame)
        return plan

    def _planner(self, pool: LanePool, height: int, width: int) -> TilePlanner:
        return pool.network.tile_planner(height, width) or TilePlanner(self._model)

    def _run_plan(
        self, pool: LanePool, plan: TilePlan, run: Callable[[Lane, TilePlan], None]
    ) -> None:
        """Run a plan; after each out-of-memory error of the backend, retry with smaller tiles."""
        size = plan.rows.length, plan.columns.length
        with pool.lane() as lane:
            while True:
                try:
                    return run(lane, plan)
                except MemoryError:
                    smaller = self._planner(pool, *size).smaller(plan)
                    if smaller is None:
                        raise
                    if self._most_pixels is None:
                        _log.warning(
                            "out of memory with tiles of %dx%d pixels; retrying with smaller ones",
                            *reversed(plan.tile),
                        )
                    plan = smaller
                    # Also for later frames, and even if the user requested larger tiles.
                    self._most_pixels = plan.tile_pixels
                    self._tile = None


def checked_tile(tile: int | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return the user's tile as height and width.

    Raises:
        InvalidInputError: a side is not an integer of at least 1.
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
