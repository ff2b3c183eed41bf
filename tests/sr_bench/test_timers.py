"""Timers: different inputs for every call, and only the timed part counts."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_bench import timers
from sr_bench.timers import CallTimer, StreamTimer


def test_inputs_exceed_the_cache_and_are_all_different() -> None:
    batches = timers.input_batches(480, 270, 3, 2)
    assert batches.shape[1:] == (2, 270, 480, 3)
    assert batches.nbytes >= 64 << 20
    frames = batches.reshape(-1, 270 * 480 * 3)
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def test_large_frames_give_few_batches_and_small_ones_not_too_many() -> None:
    assert len(timers.input_batches(4096, 2160, 3, 1)) == 4
    assert len(timers.input_batches(16, 16, 1, 1)) == 512


def test_calls_use_the_batches_in_turn() -> None:
    indices: list[int] = []
    calls = CallTimer(indices.append, 3, lambda call: (call(), 1.0)[1])
    for _ in range(5):
        calls.one()
    assert indices == [0, 1, 2, 0, 1]


def test_a_measurement_has_the_requested_length_after_an_untimed_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def clock(call: Any) -> float:
        call()
        now[0] += 0.25
        return 250.0

    indices: list[int] = []
    assert CallTimer(indices.append, 9, clock).measure(1.0) == [250.0] * 4
    assert len(indices) == 5


def test_a_measurement_has_at_least_one_sample() -> None:
    assert len(CallTimer(lambda index: index, 1, lambda call: 2.0).measure(0.0)) == 1


class Overlapping:
    """A runner whose stream returns its input."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def stream(self, frames: Iterator[Any]) -> Iterator[Any]:
        for frame in frames:
            self.taken.append(frame.tobytes())
            yield frame


def test_the_first_frame_of_a_stream_is_left_out() -> None:
    runner = Overlapping()
    batches = np.arange(4 * 12, dtype=np.uint8).reshape(4, 1, 2, 2, 3)
    stream = StreamTimer(runner, batches)
    assert len(stream.measure(0.0)) == 2
    assert len(set(runner.taken)) == 3
    stream.measure(0.0)
    assert runner.taken[3] == batches[3].tobytes()  # it continues where it stopped


needs_av = pytest.mark.skipif(importlib.util.find_spec("av") is None, reason="needs PyAV")


class Doubling:
    """A runner that repeats pixels, and counts its calls."""

    def __init__(self, *, overlaps: bool) -> None:
        self.overlaps = overlaps
        self.calls = self.streams = 0

    def upscale(self, frames: NDArray[Any]) -> NDArray[Any]:
        self.calls += 1
        return frames.repeat(2, 1).repeat(2, 2)

    def stream(self, frames: Iterator[Any]) -> Iterator[Any] | None:
        return self._stream(frames) if self.overlaps else None

    def _stream(self, frames: Iterator[Any]) -> Iterator[Any]:
        for frame in frames:
            self.streams += 1
            yield frame.repeat(2, 0).repeat(2, 1)


@needs_av
@pytest.mark.parametrize("overlaps", [True, False])
def test_frames_are_decoded_upscaled_and_encoded(overlaps: bool) -> None:
    runner = Doubling(overlaps=overlaps)
    timer = timers.video_timer(runner, timers.input_batches(64, 48, 3, 1))
    assert timer is not None
    samples = timer.measure(0.0)
    assert len(samples) == 2  # three frames, from one end to the next
    assert min(samples) > 0
    assert (runner.calls, runner.streams) == ((0, 3) if overlaps else (3, 0))


@needs_av
def test_a_clip_is_repeated() -> None:
    runner = Doubling(overlaps=False)
    timer = timers.video_timer(runner, timers.input_batches(32, 32, 3, 1)[:2])
    assert timer is not None
    assert len(timer.measure(0.0)) == 2  # three frames: the first of the two came twice


@needs_av
def test_stages_are_those_of_a_video() -> None:
    runner = Doubling(overlaps=True)
    timer = timers.video_timer(runner, timers.input_batches(64, 48, 3, 1))
    assert timer is not None
    stages = timer.stages()
    assert list(stages) == ["decode", "upscale", "encode"]
    assert all(each > 0 for each in stages.values())
    assert (runner.calls, runner.streams) == (24, 0)  # the whole clip, without overlap


@pytest.mark.parametrize(("width", "height", "channels"), [(63, 48, 3), (64, 47, 3), (64, 48, 1)])
def test_frames_that_do_not_fit_a_video_are_left_out(
    width: int, height: int, channels: int
) -> None:
    batches = np.zeros((4, 1, height, width, channels), np.uint8)
    assert timers.video_timer(Doubling(overlaps=False), batches) is None
