from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_deploy import Engine
from sr_deploy.errors import InvalidInputError
from sr_deploy.runtime.stream import FrameStream
from sr_deploy.runtime.yuv import YuvFrame, checked_result
from tests.sr_deploy import networks


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.bundle(tmp_path_factory.mktemp("bundles") / "nearest.srd", networks.nearest)


def doubled(frame: Any, out: Any, *, reserve: int) -> Any:
    return 2 * frame


def streamed(
    frames: Any, upscale: Callable[..., Any] = doubled, *, lanes: int = 1, **how: Any
) -> Iterator[Any]:
    """The results of a stream with three frames in flight."""
    stream = FrameStream(upscale, scale=2, lanes=lanes, memory=1 << 30, in_flight=3, **how)
    return stream.overlap(frames).results()


def picture(number: int, height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    return np.full((height, width, 3), number, np.uint8)


def test_a_tag_comes_back_with_its_frame() -> None:
    frames: list[Any] = [(1, "one"), 2, (3, None)]
    assert list(streamed(frames)) == [(2, "one"), 4, (6, None)]


def test_reuse_reuses_the_memory_of_results() -> None:
    where: set[int] = set()

    def network(frame: NDArray[Any], out: Any, *, reserve: int) -> Any:
        result = np.empty((8, 12, 3), np.uint8) if out is None else out
        result[...] = frame[0, 0]
        return result

    frames = (picture(number) for number in range(50))
    for number, result in enumerate(streamed(frames, network, reuse=True)):
        assert (result == number).all()
        where.add(result.ctypes.data)
        del result
    assert len(where) <= 5, "the results of three in flight, one taken and one spare"


def test_reuse_keeps_yuv_results_of_different_colors_apart() -> None:
    new: list[int] = []

    def network(frame: YuvFrame, out: YuvFrame | None, *, reserve: int) -> YuvFrame:
        if out is None:
            new.append(int(frame.samples[0, 0]))
        result = checked_result(out, frame, 2)
        result.samples[...] = frame.samples[0, 0]
        return result

    frames = (
        YuvFrame(np.full((6, 6), number, np.uint16), "p010", ("bt709", "bt2020")[number % 2])
        for number in range(50)
    )
    for number, result in enumerate(streamed(frames, network, reuse=True)):
        assert (result.samples == number).all()
    assert len(new) <= 4, "three in flight and one taken, two of each kind"


def test_without_reuse_each_result_has_its_own_memory() -> None:
    def network(frame: NDArray[Any], out: Any, *, reserve: int) -> Any:
        assert out is None
        return frame.repeat(2, axis=0)

    frames = (picture(number) for number in range(20))
    kept = list(streamed(frames, network, lanes=2))
    assert [int(each[0, 0, 0]) for each in kept] == list(range(20))


@pytest.mark.parametrize("reuse", [False, True])
@pytest.mark.parametrize("lanes", [1, 2])
def test_an_engine_streams_frames_of_changing_size(
    repeating: Path, lanes: int, reuse: bool
) -> None:
    # Some results have the size of other frames.
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


def test_few_frames_are_in_flight_where_memory_is_small() -> None:
    """Frames that take more than their share of memory are in flight one at a time."""
    memory = 1 << 30

    def stream(in_flight: int | None = None) -> FrameStream:
        return FrameStream(doubled, scale=2, lanes=1, memory=memory, in_flight=in_flight)

    side = int((memory / 4 / 2 / 15) ** 0.5)  # two with their results fill the share
    large = np.lib.stride_tricks.as_strided(picture(0), (side, side, 3), (0, 0, 0))
    assert stream().in_flight(picture(0)) == 3
    assert stream().in_flight(large) == 2
    assert stream().in_flight((large, "tag")) == 2
    assert stream(9).in_flight(picture(0)) == 9


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_wrong_number_in_flight_is_rejected_immediately(repeating: Path, wrong: int) -> None:
    with Engine(repeating) as engine:
        with pytest.raises(InvalidInputError, match=r"in_flight.*\b1\b"):
            engine.stream([], in_flight=wrong)
        with pytest.raises(InvalidInputError, match=r"in_flight.*\b1\b"):
            engine.astream([], in_flight=wrong)


@pytest.mark.parametrize("wrong", [None, np.zeros(()), np.zeros((0, 4, 3), np.uint8), "frame"])
def test_an_invalid_image_is_rejected_at_its_turn(repeating: Path, wrong: Any) -> None:
    with Engine(repeating) as engine:
        stream = engine.stream([picture(1), wrong], reuse=True)
        assert next(stream)[0, 0, 0] == 1
        with pytest.raises(InvalidInputError, match="image"):
            next(stream)


def test_an_engine_that_is_closed_meanwhile_ends_its_streams(repeating: Path) -> None:
    engine = Engine(repeating)
    stream = engine.stream(picture(0) for _ in itertools.count())
    next(stream)
    engine.close()
    with pytest.raises(InvalidInputError, match="closed"):
        for _ in stream:
            pass


def test_the_event_loop_is_free_while_frames_are_computed(repeating: Path) -> None:
    """Results are in order, from asynchronous and other sources."""

    async def source() -> AsyncIterator[Any]:
        for number in range(5):
            await asyncio.sleep(0)
            yield picture(number), number

    async def program(frames: Any) -> list[int]:
        return [tag async for big, tag in engine.astream(frames) if (big == tag).all()]

    with Engine(repeating) as engine:
        assert asyncio.run(program(source())) == list(range(5))
        assert asyncio.run(program([(picture(3), 3), (picture(1), 1)])) == [3, 1]


@pytest.mark.parametrize("single", [np.zeros((4, 6), np.uint8), picture(1)])
def test_a_single_image_is_rejected(repeating: Path, single: NDArray[np.uint8]) -> None:
    with Engine(repeating) as engine:
        for stream in (engine.stream, engine.astream):
            with pytest.raises(InvalidInputError, match=r"\[image\].*upscale"):
                stream(single)
        with pytest.raises(InvalidInputError, match=r"\[image\]"):
            engine.stream(YuvFrame.empty("nv12", 4, 6))  # type: ignore[call-overload]


def test_a_stack_of_images_is_a_source(repeating: Path) -> None:
    with Engine(repeating) as engine:
        stack = np.stack([picture(1), picture(2)])
        assert [int(each[0, 0, 0]) for each in engine.stream(stack)] == [1, 2]


def test_results_have_the_type_of_their_frames(repeating: Path) -> None:
    """Mypy checks the annotations."""
    with Engine(repeating) as engine:
        arrays: list[NDArray[np.uint8]] = list(engine.stream([picture(1)]))
        pairs: list[tuple[NDArray[np.uint8], str]] = list(engine.stream([(picture(1), "a")]))
    assert (arrays[0] == pairs[0][0]).all()


def _typed(engine: Engine, frames: list[YuvFrame], gray: list[NDArray[np.uint16]]) -> None:
    """Only for mypy: the types of results must follow those of the frames."""
    _1: Iterator[YuvFrame] = engine.stream(frames)
    _2: AsyncIterator[YuvFrame] = engine.astream(frames)
    _3: Iterator[tuple[YuvFrame, int]] = engine.stream((each, 1) for each in frames)
    _4: AsyncIterator[NDArray[np.uint16]] = engine.astream(gray)
    _5: NDArray[np.uint16] = engine.upscale(gray[0])
    _6: YuvFrame = engine.upscale(frames[0])
