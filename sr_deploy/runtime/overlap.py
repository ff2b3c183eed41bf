"""Overlapped reading, computing and writing of a sequence of items.

    source -> reader -> | waiting, computing, done: at most `in_flight`, in order | -> caller

One thread reads the source, others compute, and the caller's own thread writes the results.
Images, video and `Engine.stream` all run on this. Every wait uses the same condition, so stopping
ends all of them.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator
    from concurrent.futures import Future

T = TypeVar("T")
R = TypeVar("R")


@dataclass(eq=False)
class _Slot(Generic[T, R]):
    """An item in flight; `item` is dropped once the result exists."""

    item: T | None
    started: bool = False
    done: bool = False
    result: R | None = None
    error: BaseException | None = None


class Overlap(Generic[T, R]):
    """Computes the items of a source while the source and the caller work on others.

    Args:
        source: Read by one thread, which starts when the first result is requested. An
            asynchronous source is for `aresults` only.
        compute: Called by `lanes` threads at once.
        lanes: Number of items computed at once.
        in_flight: Returns how many items like the given one may be in flight, at least 1: those
            read but not yet taken by the caller. One more waits in the reader. A full queue blocks
            the source.
        latest: Never block the source: a waiting item is replaced by a newer one.
        retire: Called with a result when the caller requests the next one.
        on_stop: Called once the results end, for whatever reason; it releases a source that waits.
    """

    def __init__(
        self,
        source: Iterable[T] | AsyncIterable[T],
        compute: Callable[[T], R],
        *,
        lanes: int = 1,
        in_flight: Callable[[T], int],
        latest: bool = False,
        retire: Callable[[R], None] | None = None,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._source: Iterable[T] | AsyncIterable[T] = source
        self._on_stop = on_stop
        self._compute = compute
        self._in_flight = in_flight
        self._latest = latest
        self._retire = retire
        self._taken: list[R] = []  # the result that the caller has, until it is retired
        self._changed = threading.Condition()
        self._slots: deque[_Slot[T, R]] = deque()
        self._ended = self._stopped = False
        targets = [self._read_all] + [self._compute_all] * lanes
        # Daemon threads: a source that never returns must not keep the process alive.
        self._threads = [
            threading.Thread(target=target, name=f"sr-stream-{i}", daemon=True)
            for i, target in enumerate(targets)
        ]

    def results(self) -> Generator[R, None, None]:
        """Yield the results in the order of the source; closing the generator stops the threads.

        An error of the source or of `compute` is raised at its item's turn.
        """
        self._start()
        try:
            while (slot := self._take()) is not None:
                yield _result(slot)
                del slot  # frees the result while the next is awaited
        finally:
            self._stop()
            self._join()

    async def aresults(self) -> AsyncGenerator[R, None]:
        """Yield the results as `results` does, without blocking the event loop."""
        bridge = _LoopBridge(self._source) if isinstance(self._source, AsyncIterable) else None
        if bridge is not None:
            self._source = bridge
        self._start()
        try:
            while (slot := await asyncio.to_thread(self._take)) is not None:
                yield _result(slot)
                del slot
        finally:
            self._stop()
            if bridge is not None:
                bridge.stop()
            await asyncio.to_thread(self._join)

    def _start(self) -> None:
        for thread in self._threads:
            thread.start()

    def _stop(self) -> None:
        """Stop all threads; items that are being read or computed are finished and dropped."""
        with self._changed:
            self._stopped = True
            self._slots.clear()
            self._changed.notify_all()
        self._on_stop()

    def _join(self) -> None:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def _take(self) -> _Slot[T, R] | None:
        """Return the first item once it is done; None after the last, or when stopped."""
        with self._changed:
            while self._taken:
                result = self._taken.pop()
                if self._retire is not None:
                    self._retire(result)
            self._changed.wait_for(
                lambda: self._stopped or (self._slots[0].done if self._slots else self._ended)
            )
            if self._stopped or not self._slots:
                return None
            slot = self._slots.popleft()
            if self._retire is not None and slot.error is None:
                self._taken.append(cast("R", slot.result))
            self._changed.notify_all()
            return slot

    def _read_all(self) -> None:
        # A generator is closed when its last reference goes, so this thread keeps the only one.
        source, self._source = cast("Iterable[T]", self._source), ()
        try:
            for item in source:
                slot: _Slot[T, R] = _Slot(item)
                del item
                if not self._put(slot):
                    return
        except BaseException as error:  # noqa: BLE001 - raised to the caller at its turn
            with self._changed:
                self._slots.append(_Slot(None, started=True, done=True, error=error))
        finally:
            del source
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _put(self, slot: _Slot[T, R]) -> bool:
        """Queue an item once there is room; return False if the stream was stopped meanwhile."""
        most = self._in_flight(cast("T", slot.item))
        with self._changed:
            if not self._latest:
                self._changed.wait_for(lambda: self._stopped or len(self._slots) < most)
            elif self._slots and not self._slots[-1].started:
                self._slots.pop()
            if not self._stopped:
                self._slots.append(slot)
                self._changed.notify_all()
            return not self._stopped

    def _compute_all(self) -> None:
        while (slot := self._next_waiting()) is not None:
            try:
                slot.result = self._compute(cast("T", slot.item))
            except BaseException as error:  # noqa: BLE001 - raised to the caller at its turn
                slot.error = error
            slot.item = None
            with self._changed:
                slot.done = True
                self._changed.notify_all()

    def _next_waiting(self) -> _Slot[T, R] | None:
        """Return the next item to compute; None when no more will come."""
        with self._changed:
            while not self._stopped:
                slot = next((each for each in self._slots if not each.started), None)
                if slot is None and self._ended:
                    break
                # With `latest`, the queue can be longer than allowed: results nobody took yet.
                if slot is not None and self._slots.index(slot) < self._in_flight(
                    cast("T", slot.item)
                ):
                    slot.started = True
                    return slot
                self._changed.wait()
            return None


def _result(slot: _Slot[Any, R]) -> R:
    if slot.error is not None:
        raise slot.error
    return cast("R", slot.result)


_END = object()


class _LoopBridge:
    """The items of an asynchronous iterable, for a thread outside its event loop."""

    def __init__(self, source: AsyncIterable[Any]) -> None:
        self._source = source.__aiter__()
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._stopped = False
        self._pending: Future[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        while True:
            with self._lock:
                if self._stopped:
                    return
                self._pending = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
            try:
                item = self._pending.result()
            except CancelledError:
                return
            if item is _END:
                return
            yield item
            del item

    def stop(self) -> None:
        """Cancel the pending read, which releases the thread that waits for it."""
        with self._lock:
            self._stopped = True
            if self._pending is not None:
                self._pending.cancel()

    async def _next(self) -> Any:
        try:
            return await self._source.__anext__()
        except StopAsyncIteration:
            return _END
