from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_deploy import Engine
from sr_deploy.errors import InvalidInputError
from sr_deploy.runtime.stream import FlowOptions, FrameStream, async_results, results
from sr_deploy.runtime.yuv import YuvFrame, checked_out
from tests.sr_deploy import networks

PATIENCE = 20
"""Seconds after which what should happen at once is taken not to happen at all."""


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.bundle(tmp_path_factory.mktemp("bundles") / "nearest.srd", networks.nearest)


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    gc.collect()
    left = [each.name for each in threading.enumerate() if each.name.startswith("sr-stream")]
    assert left == []


def flow(lanes: int = 1, in_flight: int = 3, **how: bool) -> FlowOptions:
    return FlowOptions(lanes, lambda _: in_flight, **how)


def doubled(frame: Any, out: Any, in_flight: int) -> Any:
    return 2 * frame


def picture(number: int, height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    return np.full((height, width, 3), number, np.uint8)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


class Counting:
    """A source that counts what was taken of it, and says when it was let go of."""

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
    def slower_when_even(frame: int, out: Any, in_flight: int) -> int:
        time.sleep(0.002 * (frame % 2 == 0))
        return frame

    stream = FrameStream(range(40), slower_when_even, flow(lanes, in_flight))
    assert list(results(stream)) == list(range(40))


def test_nothing_comes_of_nothing() -> None:
    assert list(results(FrameStream([], doubled, flow()))) == []


def test_a_tag_comes_back_with_its_frame() -> None:
    frames: list[Any] = [(1, "one"), 2, (3, None)]
    assert list(results(FrameStream(frames, doubled, flow()))) == [(2, "one"), 4, (6, None)]


def test_lanes_compute_at_once() -> None:
    meeting = threading.Barrier(3, timeout=PATIENCE)

    def meet(frame: int, out: Any, in_flight: int) -> int:
        meeting.wait()  # breaks unless three are here at once
        return frame

    assert list(results(FrameStream(range(9), meet, flow(3, 3)))) == list(range(9))


def test_reading_and_taking_overlap_with_computing() -> None:
    """One meets three: the source, the network and the consumer must all be at work at once."""
    meeting = threading.Barrier(3, timeout=PATIENCE)

    def source() -> Iterator[int]:
        for number in range(6):
            if number >= 2:
                meeting.wait()
            yield number

    def network(frame: int, out: Any, in_flight: int) -> int:
        if 1 <= frame <= 4:
            meeting.wait()
        return frame

    got = []
    for frame in results(FrameStream(source(), network, flow(1, 3))):
        if frame <= 3:
            meeting.wait()
        got.append(frame)
    assert got == list(range(6))


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_slow_consumer_stops_the_source(in_flight: int) -> None:
    source = Counting()
    stream = results(FrameStream(source(), doubled, flow(1, in_flight)))
    for _ in range(5):
        before = source.taken
        next(stream)
    until(lambda: source.taken == 5 + in_flight + 1)
    time.sleep(0.05)
    # Those given, those in flight, and one that waits at the door.
    assert source.taken == 5 + in_flight + 1
    assert before <= source.taken
    stream.close()
    assert source.closed


def test_nothing_begins_before_the_first_is_asked_for() -> None:
    source = Counting()
    stream = results(FrameStream(source(), doubled, flow()))
    time.sleep(0.02)
    assert source.taken == 0
    stream.close()


def test_what_the_source_raises_comes_after_the_frames_before_it() -> None:
    def source() -> Iterator[int]:
        yield from range(4)
        raise ValueError("the camera was unplugged")

    got: list[int] = []
    with pytest.raises(ValueError, match="unplugged"):
        got.extend(results(FrameStream(source(), doubled, flow())))
    assert got == [0, 2, 4, 6]


def test_a_source_that_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match="not iterable"):
        next(results(FrameStream(None, doubled, flow())))


@pytest.mark.parametrize("lanes", [1, 3])
def test_what_the_network_raises_comes_at_its_frame(lanes: int) -> None:
    def fragile(frame: int, out: Any, in_flight: int) -> int:
        if frame == 5:
            raise RuntimeError("frame 5")
        return frame

    source, got = Counting(), []
    with pytest.raises(RuntimeError, match="frame 5"):
        for each in results(FrameStream(source(), fragile, flow(lanes))):
            got.append(each)
    assert got == [0, 1, 2, 3, 4]
    assert source.closed


def test_what_the_consumer_raises_ends_it() -> None:
    source = Counting()

    def consume() -> None:
        for each in results(FrameStream(source(), doubled, flow())):
            if each == 6:
                raise KeyError("the disk is full")

    with pytest.raises(KeyError):
        consume()
    assert source.closed


def test_leaving_the_loop_ends_it() -> None:
    source = Counting()
    for each in results(FrameStream(source(), doubled, flow(2))):
        if each == 6:
            break
    gc.collect()
    assert source.closed


def test_closing_before_the_first_ends_it() -> None:
    source = Counting()
    stream = results(FrameStream(source(), doubled, flow()))
    stream.close()
    assert list(stream) == []


def test_a_live_source_never_waits_and_only_the_newest_is_kept() -> None:
    source = Counting(200)
    busy = threading.Event()

    def network(frame: int, out: Any, in_flight: int) -> int:
        busy.wait(PATIENCE)
        return frame

    stream = results(FrameStream(source(), network, flow(1, 2, latest=True)))

    def free() -> None:
        until(lambda: source.closed)
        busy.set()

    threading.Thread(target=free).start()
    got = list(stream)
    assert source.taken == 200
    assert got[-1] == 199, "the newest was lost"
    assert len(got) <= 3, "frames that were out of date were computed"
    assert got == sorted(got)


def test_results_of_a_live_source_do_not_pile_up() -> None:
    done: list[int] = []
    taken, over = threading.Event(), threading.Event()

    def source() -> Iterator[int]:
        yield 0
        taken.wait(PATIENCE)
        yield from range(1, 500)
        over.set()

    def network(frame: int, out: Any, in_flight: int) -> int:
        done.append(frame)
        return frame

    stream = results(FrameStream(source(), network, flow(1, 2, latest=True)))
    assert next(stream) == 0
    taken.set()
    over.wait(PATIENCE)
    time.sleep(0.02)
    assert len(done) <= 4, "computed although nobody took them"
    assert list(stream)[-1] == 499


def test_memory_is_used_again_when_the_caller_allows_it() -> None:
    where: set[int] = set()

    def network(frame: NDArray[Any], out: Any, in_flight: int) -> Any:
        result = np.empty((8, 12, 3), np.uint8) if out is None else out
        result[...] = frame[0, 0]
        return result

    frames = (picture(number) for number in range(50))
    for number, result in enumerate(results(FrameStream(frames, network, flow(1, 3, reuse=True)))):
        assert (result == number).all()
        where.add(result.ctypes.data)
        del result
    assert len(where) <= 5, "the results of three in flight, one taken and one spare"


def test_memory_of_yuv_frames_is_used_again_by_those_of_the_same_colours() -> None:
    new: list[int] = []

    def network(frame: YuvFrame, out: YuvFrame | None, in_flight: int) -> YuvFrame:
        if out is None:
            new.append(int(frame.samples[0, 0]))
        result = checked_out(out, frame, 2)
        result.samples[...] = frame.samples[0, 0]
        return result

    frames = (
        YuvFrame(np.full((6, 6), number, np.uint16), "p010", ("bt709", "bt2020")[number % 2])
        for number in range(50)
    )
    for number, result in enumerate(results(FrameStream(frames, network, flow(1, 3, reuse=True)))):
        assert (result.samples == number).all()
    assert len(new) <= 4, "three in flight and one taken, two of each kind"


def test_memory_is_not_used_again_unasked() -> None:
    def network(frame: NDArray[Any], out: Any, in_flight: int) -> Any:
        assert out is None
        return frame.repeat(2, axis=0)

    frames = (picture(number) for number in range(20))
    kept = list(results(FrameStream(frames, network, flow(2, 3))))
    assert [int(each[0, 0, 0]) for each in kept] == list(range(20))


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("lanes", [1, 2])
def test_an_engine_streams_frames_of_changing_size(
    repeating: Path, lanes: int, reuse: bool
) -> None:
    # Results of some are as large as those of a larger scale of others would be.
    sizes = [(4, 6), (4, 6), (8, 12), (9, 5), (2, 2), (1, 1), (4, 6)] * 4
    with Engine(repeating, lanes=lanes) as engine:
        assert engine.spec.lanes == lanes
        frames = ((picture(i, *size), i) for i, size in enumerate(sizes))
        count = 0
        for result, number in engine.stream(frames, reuse=reuse):
            height, width = sizes[number]
            assert result.shape == (2 * height, 2 * width, 3)
            assert (result == number).all()
            count += 1
        assert count == len(sizes)


def test_an_engine_streams_deep_frames_among_others(repeating: Path) -> None:
    frames = [picture(7), picture(9).astype(np.uint16) * 257, picture(3)]
    with Engine(repeating) as engine:
        kinds = [(int(each[0, 0, 0]), each.dtype.itemsize) for each in engine.stream(frames)]
    assert kinds == [(7, 1), (9 * 257, 2), (3, 1)]


def test_few_are_in_flight_where_memory_is_small(repeating: Path) -> None:
    """Of frames that take more than their share, one at a time is on its way."""
    with Engine(repeating) as plenty:
        most = plenty.spec.memory
    side = int((most / 4 / 2 / 15) ** 0.5)  # two of them, each with its result, fill the share
    with Engine(repeating, memory=most) as engine:
        many = engine._flow(None, latest=False, reuse=False).in_flight(picture(0))
        few = engine._flow(None, latest=False, reuse=False).in_flight(
            np.lib.stride_tricks.as_strided(picture(0), (side, side, 3), (0, 0, 0))
        )
        asked = engine._flow(9, latest=False, reuse=False).in_flight(picture(0))
    assert (few, many, asked) == (2, 3, 9)


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_wrong_number_in_flight_is_said_at_once(repeating: Path, wrong: int) -> None:
    with Engine(repeating) as engine:
        with pytest.raises(InvalidInputError, match="in_flight must be at least 1"):
            engine.stream([], in_flight=wrong)
        with pytest.raises(InvalidInputError, match="in_flight must be at least 1"):
            engine.astream([], in_flight=wrong)


@pytest.mark.parametrize("wrong", [None, np.zeros(()), np.zeros((0, 4, 3), np.uint8), "frame"])
def test_what_is_no_image_is_said_at_its_turn(repeating: Path, wrong: Any) -> None:
    with Engine(repeating) as engine:
        stream = engine.stream([picture(1), wrong], reuse=True)
        assert next(stream)[0, 0, 0] == 1
        with pytest.raises(InvalidInputError, match="an image"):
            next(stream)


def test_an_engine_that_is_closed_meanwhile_ends_its_streams(repeating: Path) -> None:
    engine = Engine(repeating)
    stream = engine.stream(picture(0) for _ in itertools.count())
    next(stream)
    engine.close()
    with pytest.raises(InvalidInputError, match="closed"):
        for _ in stream:
            pass


def test_a_loop_is_free_while_frames_are_computed(repeating: Path) -> None:
    """A task that ticks goes on; what comes in and out is in order, from any kind of source."""

    async def source() -> AsyncIterator[Any]:
        for number in range(5):
            await asyncio.sleep(0)
            yield picture(number), number

    async def program(frames: Any) -> list[int]:
        return [tag async for big, tag in engine.astream(frames) if (big == tag).all()]

    with Engine(repeating) as engine:
        assert asyncio.run(program(source())) == list(range(5))
        assert asyncio.run(program([(picture(3), 3), (picture(1), 1)])) == [3, 1]


def test_an_asynchronous_source_that_waits_forever_does_not_hold_up_the_end() -> None:
    cancelled = threading.Event()

    async def source() -> AsyncIterator[int]:
        yield 1
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    async def program() -> None:
        stream = async_results(source(), lambda each: FrameStream(each, doubled, flow()))
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

    def network(frame: int, out: Any, in_flight: int) -> int:
        begun.set()
        busy.wait(0.2)
        return frame

    async def program() -> None:
        stream = async_results(source(), lambda each: FrameStream(each, network, flow()))
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


def test_what_an_asynchronous_source_raises_comes_at_its_turn() -> None:
    async def source() -> AsyncIterator[int]:
        yield 1
        raise ValueError("no more")

    async def program() -> list[int]:
        got: list[int] = []
        stream = async_results(source(), lambda each: FrameStream(each, doubled, flow()))
        with pytest.raises(ValueError, match="no more"):
            async for each in stream:
                got.append(each)
        return got

    assert asyncio.run(program()) == [2]
