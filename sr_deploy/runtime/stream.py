"""The frames of `Engine.stream`: how many are in flight, their tags, and reused result arrays."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.backends.cuda import device_array
from sr_deploy.errors import InvalidInputError
from sr_deploy.runtime.overlap import Overlap
from sr_deploy.runtime.yuv import YuvFrame

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Callable, Iterable

_AHEAD = 2
"""Frames in flight beside those being computed: one that was read and one that is ready."""
_MEMORY_SHARE = 4
"""Frames in flight may take one part in so many of the memory budget."""
_MOST_SPARES = 4
"""Result arrays kept for reuse. More are useful only where frames of several sizes alternate."""


class FrameStream:
    """Overlapped upscaling of frames, or of pairs of a frame and a tag.

    Args:
        upscale: Called by several threads at once, as `upscale(frame, out, reserve=...)`.
        scale: Scale of the network.
        lanes: Number of frames computed at once.
        memory: The engine's memory budget in bytes.
        in_flight: Number of frames in flight; None for what memory allows.
        reuse: Reuse the array of a result once the caller has taken the next one.

    Raises:
        InvalidInputError: `in_flight` is below 1.
    """

    def __init__(
        self,
        upscale: Callable[..., Any],
        *,
        scale: int,
        lanes: int,
        memory: int,
        in_flight: int | None = None,
        reuse: bool = False,
    ) -> None:
        if in_flight is not None and in_flight < 1:
            raise InvalidInputError(f"in_flight must be at least 1, found {in_flight}")
        self._upscale = upscale
        self._scale = scale
        self._lanes = lanes
        self._memory = memory
        self._requested = in_flight
        self._reuse = reuse
        self._spares: list[Any] = []
        self._lock = threading.Lock()

    def overlap(
        self, frames: Iterable[Any] | AsyncIterable[Any], *, latest: bool = False
    ) -> Overlap[Any, Any]:
        """Return the overlapped upscaling of a source.

        Raises:
            InvalidInputError: the source is a single image.
        """
        if _is_image(frames):
            raise InvalidInputError(
                "stream takes an iterable of images, found a single image; pass [image], "
                "or use upscale"
            )
        return Overlap(
            frames,
            self._compute,
            lanes=self._lanes,
            in_flight=self.in_flight,
            latest=latest,
            retire=self._retire if self._reuse else None,
        )

    def in_flight(self, item: Any) -> int:
        """Return how many frames like this one may be in flight."""
        if self._requested is not None:
            return self._requested
        affordable = self._memory // _MEMORY_SHARE // max(self._bytes(_split(item)[0]), 1)
        return max(1, min(self._lanes + _AHEAD, affordable))

    def _bytes(self, frame: Any) -> int:
        """Return the bytes of a frame and its result; an invalid frame is reported later."""
        return int(getattr(frame, "nbytes", 0)) * (1 + self._scale**2)

    def _compute(self, item: Any) -> Any:
        frame, tag = _split(item)
        reserve = self.in_flight(item) * self._bytes(frame)
        result = self._upscale(frame, self._spare(frame), reserve=reserve)
        return (result, *tag) if tag else result

    def _retire(self, item: Any) -> None:
        with self._lock:
            self._spares = [*self._spares[1 - _MOST_SPARES :], _split(item)[0]]

    def _spare(self, frame: Any) -> Any:
        """Return an earlier result of the same kind as this frame's, if there is one."""
        with self._lock:
            for i, result in enumerate(self._spares):
                if _fits(result, frame, self._scale):
                    return self._spares.pop(i)
        return None


def _split(item: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return an item's frame, and its tag in a tuple, which is empty without a tag."""
    if isinstance(item, tuple) and len(item) == 2:
        return item[0], item[1:]
    return item, ()


def _is_image(frames: object) -> bool:
    if isinstance(frames, np.ndarray):
        return frames.ndim == 2 or (frames.ndim == 3 and frames.shape[2] <= 4)
    if isinstance(frames, YuvFrame):
        return True
    return device_array.on_device(frames) and getattr(frames, "ndim", 3) <= 3


def _fits(result: Any, frame: Any, scale: int) -> bool:
    """Return whether an earlier result has the kind and size of this frame's result."""
    if isinstance(frame, YuvFrame):
        same_kind = isinstance(result, YuvFrame) and result.kind == frame.kind
        return same_kind and result.samples.shape == _enlarged(frame.samples.shape, scale)
    if not isinstance(frame, np.ndarray) or not isinstance(result, np.ndarray):
        return False
    same_dtype = result.dtype == frame.dtype.newbyteorder("=")
    return same_dtype and result.shape == _enlarged(frame.shape, scale)


def _enlarged(shape: tuple[int, ...], scale: int) -> tuple[int, ...]:
    return (*(scale * side for side in shape[:2]), *shape[2:])
