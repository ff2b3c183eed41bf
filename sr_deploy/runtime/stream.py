"""Many frames one after the other: one thread reads them, others upscale, the caller takes.

    source -> reader -> | waiting, computed, ready: at most `in_flight`, in order | -> caller

Everything that waits does so on one condition, and all of it ends when the stream is stopped.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sr_deploy.runtime.yuv import YuvFrame

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

_NOTHING = object()
_SPARES = 4
"""Results kept for use again; more are only needed where frames of several sizes alternate."""


class Upscaler(Protocol):
    """What a stream needs of an engine."""

    def __call__(self, frame: Any, out: Any, in_flight: int, /) -> Any:
        """Return the result of a frame: `out`, or a new one where that is None."""


@dataclass(frozen=True)
class FlowOptions:
    """How the frames of a stream flow.

    Attributes:
        lanes: Frames that are computed at once.
        in_flight: How many frames of the size of this one may be on their way, at least 1.
        latest: Never make the source wait: a frame that waits gives way to a newer one.
        reuse: A result is the caller's only until it takes the next; its memory is used again.
    """

    lanes: int
    in_flight: Callable[[Any], int]
    latest: bool = False
    reuse: bool = False


@dataclass(eq=False)
class Item:
    """One frame on its way, with the caller's tag if it came with one."""

    frame: Any
    tag: Any = _NOTHING
    started: bool = False
    done: bool = False
    kind: object = None
    result: Any = None
    error: BaseException | None = None

    def given(self) -> Any:
        """Return what the caller gets.

        Raises:
            BaseException: what the source or the network raised for this frame.
        """
        if self.error is not None:
            raise self.error
        return self.result if self.tag is _NOTHING else (self.result, self.tag)


class FrameStream:
    """The threads of one stream and the frames between them.

    Args:
        frames: Frames, or pairs of a frame and a tag; read by one thread of this stream.
        upscale: Called from several threads at once.
        flow: How many, and what becomes of those that wait.
    """

    def __init__(self, frames: Iterable[Any], upscale: Upscaler, flow: FlowOptions) -> None:
        self._frames: Iterable[Any] = frames
        self._upscale = upscale
        self._flow = flow
        self._changed = threading.Condition()
        self._items: deque[Item] = deque()
        self._ended = self._stopped = False
        self._lent: tuple[object, Any] | None = None
        self._spares: list[tuple[object, Any]] = []
        targets = [self._read] + [self._compute] * flow.lanes
        # Daemons, so that a source that never returns cannot keep the process from ending.
        self._threads = [
            threading.Thread(target=target, name=f"sr-stream-{i}", daemon=True)
            for i, target in enumerate(targets)
        ]

    def start(self) -> None:
        """Begin to read."""
        for thread in self._threads:
            thread.start()

    def take(self) -> Item | None:
        """Return the next frame once it is done; None after the last, or when stopped."""
        with self._changed:
            if self._lent is not None:
                self._spares = [*self._spares[1 - _SPARES :], self._lent]
                self._lent = None
            self._changed.wait_for(lambda: self._stopped or self._head_done or self._drained)
            if self._stopped or not self._items:
                return None
            item = self._items.popleft()
            if self._flow.reuse and item.error is None and item.kind is not None:
                self._lent = item.kind, item.result
            self._changed.notify_all()
            return item

    def stop(self) -> None:
        """End everything; what is being read or computed is still finished, then dropped."""
        with self._changed:
            self._stopped = True
            self._items.clear()
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until no thread is left."""
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    @property
    def _head_done(self) -> bool:
        return bool(self._items) and self._items[0].done

    @property
    def _drained(self) -> bool:
        return self._ended and not self._items

    def _read(self) -> None:
        frames, self._frames = self._frames, ()  # a generator ends when the last lets go of it
        try:
            for each in frames:
                tagged = isinstance(each, tuple) and len(each) == 2
                item = Item(*each) if tagged else Item(each)
                del each
                if not self._put(item):
                    return
        except BaseException as error:  # noqa: BLE001 - the caller gets it, in its turn
            with self._changed:
                self._items.append(Item(None, started=True, done=True, error=error))
        finally:
            del frames
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, item: Item) -> bool:
        """Line up a frame when there is room; False when the stream was stopped meanwhile."""
        most = self._flow.in_flight(item.frame)
        with self._changed:
            if self._flow.latest:
                if self._items and not self._items[-1].started:
                    self._items.pop()
            else:
                self._changed.wait_for(lambda: self._stopped or len(self._items) < most)
            if not self._stopped:
                self._items.append(item)
                self._changed.notify_all()
            return not self._stopped

    def _compute(self) -> None:
        while (item := self._next_waiting()) is not None:
            try:
                most = self._flow.in_flight(item.frame)
                item.kind = _kind(item.frame)
                item.result = self._upscale(item.frame, self._spare(item.kind), most)
            except BaseException as error:  # noqa: BLE001 - the caller gets it, in its turn
                item.error = error
            item.frame = None
            with self._changed:
                item.done = True
                self._changed.notify_all()

    def _next_waiting(self) -> Item | None:
        """Return the next frame to compute; None when there will be no more."""
        with self._changed:
            while not self._stopped:
                item = next((each for each in self._items if not each.started), None)
                if item is None and self._ended:
                    break
                # Of a live source more than that can be there: results that nobody has taken yet.
                if item is not None and self._items.index(item) < self._flow.in_flight(item.frame):
                    item.started = True
                    return item
                self._changed.wait()
            return None

    def _spare(self, kind: object) -> Any:
        """Return an earlier result, of a frame of the same kind, if there is one."""
        with self._changed:
            for i, (of, result) in enumerate(self._spares):
                if of == kind:
                    del self._spares[i]
                    return result
        return None


def _kind(frame: Any) -> object:
    """Return what the results of frames that share memory must have in common; None: none do."""
    if isinstance(frame, YuvFrame):
        return frame.kind, frame.samples.shape
    return (frame.dtype, frame.shape) if isinstance(frame, np.ndarray) else None


def results(stream: FrameStream) -> Generator[Any, None, None]:
    """Yield what a stream gives; leaving early ends it."""
    stream.start()
    try:
        while (item := stream.take()) is not None:
            yield item.given()
            del item  # not held while the next is waited for
    finally:
        stream.stop()
        stream.join()


async def async_results(
    frames: Iterable[Any] | AsyncIterable[Any], open_stream: Callable[[Iterable[Any]], FrameStream]
) -> AsyncGenerator[Any, None]:
    """Yield what a stream gives, leaving the event loop free meanwhile."""
    source = _FromLoop(frames) if isinstance(frames, AsyncIterable) else None
    stream = open_stream(frames if source is None else source)  # type: ignore[arg-type]
    stream.start()
    try:
        while (item := await asyncio.to_thread(stream.take)) is not None:
            yield item.given()
            del item
    finally:
        stream.stop()
        if source is not None:
            source.stop()
        await asyncio.to_thread(stream.join)


class _FromLoop:
    """The items of an asynchronous iterable, for another thread than that of its event loop."""

    def __init__(self, frames: AsyncIterable[Any]) -> None:
        self._frames = frames.__aiter__()
        self._loop = asyncio.get_running_loop()
        self._changing = threading.Lock()
        self._stopped = False
        self._pending: Future[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._changing:
                if self._stopped:
                    return
                self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            try:
                item = self._pending.result()
            except CancelledError:
                return
            if item is _NOTHING:
                return
            yield item
            del item

    def stop(self) -> None:
        """Let go of the source, and of the thread that waits for it."""
        with self._changing:
            self._stopped = True
            if self._pending is not None:
                self._pending.cancel()

    async def _next(self) -> Any:
        try:
            return await self._frames.__anext__()
        except StopAsyncIteration:
            return _NOTHING
