from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from typing import Any

import pytest

from sr_deploy.runtime.overlap import Overlap

PATIENCE = 20
"""Timeout in seconds for events that should happen immediately."""


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    gc.collect()
    left = [each.name for each in threading.enumerate() if each.name.startswith("sr-stream")]
    assert left == []


def overlap(
    source: Any, compute: Callable[[Any], Any], lanes: int = 1, in_flight: int = 3, **how: Any
) -> Overlap[Any, Any]:
    return Overlap(source, compute, lanes=lanes, in_flight=lambda _: in_flight, **how)


def overlapped(
    source: Any, compute: Callable[[Any], Any], lanes: int = 1, in_flight: int = 3, **how: Any
) -> Generator[Any, None, None]:
    return overlap(source, compute, lanes, in_flight, **how).results()


def doubled(item: int) -> int:
    return 2 * item


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


class Counting:
    """A source that counts the items read, and records when it was closed."""

    def __init__(self, length: int | None = None) -> None:
        self.taken = 0
        self.closed = False
        self._numbers = itertools.count() if length is None else range(length)

    def __call__(self) -> Iterator[int]:
        try:
            for number in self._numbers:
                self.taken += 1
                yield number
        finally:
            self.closed = True


@pytest.mark.parametrize("lanes", [1, 2, 5])
@pytest.mark.parametrize("in_flight", [1, 2, 7])
def test_results_come_in_order_although_they_are_not_computed_in_order(
    lanes: int, in_flight: int
) -> None:
    def slower_when_even(frame: int) -> int:
        time.sleep(0.002 * (frame % 2 == 0))
        return frame

    found = overlapped(range(40), slower_when_even, lanes, in_flight)
    assert list(found) == list(range(40))


def test_an_empty_source_has_no_results() -> None:
    assert list(overlapped([], doubled)) == []


def test_lanes_compute_at_once() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE)

    def meet(frame: int) -> int:
        meeting.wait()  # breaks unless three threads wait at once
        return frame

    assert list(overlapped(range(9), meet, 3, 3)) == list(range(9))


def test_reading_and_taking_overlap_with_computing() -> None:
    """The source, the network and the consumer must all run at the same time."""
    meeting = threading.Barrier(3, timeout=PATIENCE)

    def source() -> Iterator[int]:
        for number in range(6):
            if number >= 2:
                meeting.wait()
            yield number

    def network(frame: int) -> int:
        if 1 <= frame <= 4:
            meeting.wait()
        return frame

    got = []
    for frame in overlapped(source(), network, 1, 3):
        if frame <= 3:
            meeting.wait()
        got.append(frame)
    assert got == list(range(6))


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_slow_consumer_stops_the_source(in_flight: int) -> None:
    source = Counting()
    stream = overlapped(source(), doubled, 1, in_flight)
    for _ in range(5):
        before = source.taken
        next(stream)
    until(lambda: source.taken == 5 + in_flight + 1)
    time.sleep(0.05)
    # Results taken, items in flight, and one item that waits in the reader.
    assert source.taken == 5 + in_flight + 1
    assert before <= source.taken
    stream.close()
    assert source.closed


def test_the_source_is_not_read_before_the_first_request() -> None:
    source = Counting()
    stream = overlapped(source(), doubled)
    time.sleep(0.02)
    assert source.taken == 0
    stream.close()


def test_errors_of_the_source_follow_the_results_before_them() -> None:
    def source() -> Iterator[int]:
        yield from range(4)
        raise ValueError("the camera was unplugged")

    got: list[int] = []
    with pytest.raises(ValueError, match="unplugged"):
        got.extend(overlapped(source(), doubled))
    assert got == [0, 2, 4, 6]


def test_none_is_no_source() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        next(overlapped(None, doubled))


@pytest.mark.parametrize("lanes", [1, 3])
def test_errors_of_the_network_are_raised_at_their_frame(lanes: int) -> None:
    def fragile(frame: int) -> int:
        if frame == 5:
            raise RuntimeError("frame 5")
        return frame

    source, got = Counting(), []
    with pytest.raises(RuntimeError, match="frame 5"):
        for each in overlapped(source(), fragile, lanes):
            got.append(each)
    assert got == [0, 1, 2, 3, 4]
    assert source.closed


def test_an_error_of_the_consumer_ends_the_stream() -> None:
    source = Counting()

    def consume() -> None:
        for each in overlapped(source(), doubled):
            if each == 6:
                raise KeyError("the disk is full")

    with pytest.raises(KeyError):
        consume()
    assert source.closed


def test_leaving_the_loop_ends_the_stream() -> None:
    source = Counting()
    for each in overlapped(source(), doubled, 2):
        if each == 6:
            break
    gc.collect()
    assert source.closed


def test_closing_before_the_first_result_ends_the_stream() -> None:
    source = Counting()
    stream = overlapped(source(), doubled)
    stream.close()
    assert list(stream) == []


def test_a_live_source_never_waits_and_only_the_newest_is_kept() -> None:
    source = Counting(200)
    busy = threading.Event()

    def network(frame: int) -> int:
        busy.wait(PATIENCE)
        return frame

    stream = overlapped(source(), network, 1, 2, latest=True)

    def free() -> None:
        until(lambda: source.closed)
        busy.set()

    threading.Thread(target=free).start()
    got = list(stream)
    assert source.taken == 200
    assert got[-1] == 199, "the newest was lost"
    assert len(got) <= 3, "frames that were out of date were computed"
    assert got == sorted(got)


def test_results_of_a_live_source_do_not_accumulate() -> None:
    done: list[int] = []
    taken, over = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        taken.wait(PATIENCE)
        yield from range(1, 500)
        over.set()

    def network(frame: int) -> int:
        done.append(frame)
        return frame

    stream = overlapped(source(), network, 1, 2, latest=True)
    assert next(stream) == 0
    taken.set()
    over.wait(PATIENCE)
    time.sleep(0.02)
    assert len(done) <= 4, "computed although nobody took them"
    assert list(stream)[-1] == 499


def test_an_asynchronous_source_that_waits_forever_does_not_block_the_end() -> None:
    cancelled = threading.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    async def program() -> None:
        stream = overlap(source(), doubled).aresults()
        async with contextlib.aclosing(stream):
            async for each in stream:
                assert each == 2
                break

    asyncio.run(asyncio.wait_for(program(), PATIENCE))
    assert cancelled.is_set()


def test_cancelling_a_task_ends_its_stream() -> None:
    source = Counting()
    begun = threading.Event()
    busy = threading.Event()

    def network(frame: int) -> int:
        begun.set()
        busy.wait(0.2)
        return frame

    async def program() -> None:
        stream = overlap(source(), network).aresults()
        async with contextlib.aclosing(stream):
            async for _ in stream:
                pass

    async def cancel() -> None:
        task = asyncio.create_task(program())
        await asyncio.to_thread(begun.wait, PATIENCE)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert source.closed


def test_errors_of_an_asynchronous_source_are_raised_at_their_turn() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise ValueError("no more")

    async def program() -> list[int]:
        got: list[int] = []
        stream = overlap(source(), doubled).aresults()
        with pytest.raises(ValueError, match="no more"):
            async for each in stream:
                got.append(each)
        return got

    assert asyncio.run(program()) == [2]
