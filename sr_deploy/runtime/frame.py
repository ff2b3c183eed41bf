"""One frame through a network: cut as memory allows, run, and put together, of any kind.

The methods of `Engine` of the same names say what comes in, what comes out and what is raised.
"""

from __future__ import annotations

import logging
import operator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.backends.cuda import device_array, driver
from sr_deploy.backends.cuda.lane import DeviceLane
from sr_deploy.errors import BackendError, InvalidInputError, OutOfMemoryError, TilingNeededError
from sr_deploy.runtime import channels
from sr_deploy.runtime.selection import pixel_format
from sr_deploy.runtime.yuv import YuvFrame, checked_out
from sr_deploy.tiling.planner import TilePlanner

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sr_deploy.backends.base import Lane
    from sr_deploy.bundle.manifest import Model, YuvFormat
    from sr_deploy.runtime.channels import Pass
    from sr_deploy.runtime.lanes import LanePool
    from sr_deploy.runtime.memory import Budget
    from sr_deploy.runtime.session import Session
    from sr_deploy.tiling.planner import TilePlan

_log = logging.getLogger(__name__)


class FrameRunner:
    """Takes frames through the networks of an engine; threads may share it.

    Args:
        networks: What runs them.
        model: What the manifest says of it.
        budget: The memory that may be taken.
        tile: Height and width of the tiles that the user wants; None: as large as memory allows.
    """

    def __init__(
        self, networks: Session, model: Model, budget: Budget, tile: tuple[int, int] | None
    ) -> None:
        self._networks = networks
        self._model = model
        self._budget = budget
        self._tile = tile
        self._most_pixels: int | None = None

    def image(self, image: Any, out: Any, reserve: int) -> NDArray[Any]:
        """Upscale an image in the host's memory."""
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

    def on_device(self, image: Any, out: Any, stream: object) -> Any:
        """Put a frame of the GPU into its stream; returns before it is done."""
        handle = device_array.handle(stream)
        frame = device_array.view(image, handle)
        pool = self._networks.pool(pixel_format(self._model.channels, frame.itemsize))
        self._networks.activate(pool, 0)
        result = device_array.result(out, frame, self._model, pool.network.device)
        height, width, pixel_bytes = frame.size
        plan = self._plan(pool, height, width, 0, pixel_bytes)
        caller = driver.CudaStream(handle or frame.stream)

        def run(lane: Lane, plan: TilePlan) -> None:
            assert isinstance(lane, DeviceLane)  # since the frame is on the network's device
            lane.run_on_device(frame, plan, result, caller)

        self._run_plan(pool, plan, run)
        return result if out is None else out

    def yuv(self, frame: YuvFrame, out: YuvFrame | None, reserve: int) -> YuvFrame:
        """Run a frame of YUV in one piece."""
        result = checked_out(out, frame, self._model.scale)
        if np.may_share_memory(frame.samples, result.samples):
            frame = replace(frame, samples=frame.samples.copy())
        plan = self._whole(frame, reserve + frame.nbytes + result.nbytes)
        if plan is not None:
            pool = self._networks.pool(frame.pixel_format)
            try:
                with pool.lane() as lane:
                    lane.run(frame.pixels, plan, result.pixels, frame.colour)
            except MemoryError:
                self._most_pixels = plan.tile_pixels // 2
            else:
                return result
        raise TilingNeededError(
            f"a frame of {frame.width}x{frame.height} pixels in {frame.pixel_format} goes through "
            "in one piece only, which memory or the tile that was asked for does not allow "
            "(`takes` tells before); as RGB it is cut into tiles"
        )

    def takes(self, pixel_format: YuvFormat, height: int, width: int) -> bool:
        """Return whether frames of YUV of this size can go through."""
        if height % 2 or width % 2 or not self._networks.offers(pixel_format):
            return False
        frame = YuvFrame.empty(pixel_format, height, width)
        try:
            return self._whole(frame, (1 + self._model.scale**2) * frame.nbytes) is not None
        except BackendError as error:
            _log.debug("frames of %s go through RGB: %s", pixel_format, error)
            return False

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
        self._networks.activate(pool, frame.nbytes)
        plan = self._plan(pool, height, width, held, taken.itemsize * depth)
        result = out if direct else np.empty(shape, taken.dtype)
        source, target = taken.view(np.uint8), result.view(np.uint8)
        self._run_plan(pool, plan, lambda lane, plan: lane.run(source, plan, target))
        if not direct:
            each.give(result, out)

    def _whole(self, frame: YuvFrame, held: int) -> TilePlan | None:
        """Return the plan of a frame of YUV in one piece; None where that is too large."""
        pool = self._networks.pool(frame.pixel_format)
        self._networks.activate(pool, frame.samples.nbytes)
        try:
            plan = self._plan(pool, frame.height, frame.width, held, 2 * frame.samples.itemsize)
        except OutOfMemoryError:
            return None
        return plan if plan.whole else None

    def _plan(
        self, pool: LanePool, height: int, width: int, held: int, pixel_bytes: int
    ) -> TilePlan:
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
        planner = self._planner(pool, height, width)
        plan = planner.plan(height, width, allowed, self._tile, pool.tuning)
        if self._tile is None:
            frame = f"a frame of {width}x{height} pixels"
            budget.require(plan.tile_pixels, footprint, held, tile_bytes, frame)
        return plan

    def _planner(self, pool: LanePool, height: int, width: int) -> TilePlanner:
        return pool.network.tile_planner(height, width) or TilePlanner(self._model)

    def _run_plan(
        self, pool: LanePool, plan: TilePlan, run: Callable[[Lane, TilePlan], None]
    ) -> None:
        """Run a plan, with smaller and smaller tiles where the backend lacks memory."""
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
                            "out of memory with tiles of %dx%d pixels; going on with smaller ones",
                            *reversed(plan.tile),
                        )
                    plan = smaller
                    # For the frames to come, and even if the user had asked for larger tiles.
                    self._most_pixels = plan.tile_pixels
                    self._tile = None


def checked_tile(tile: int | tuple[int, int] | None) -> tuple[int, int] | None:
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
