"""What is timed: different inputs every time, and only what counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from sr_bench import forms
from sr_bench.forms import CallTimer, Stream


def test_inputs_are_more_than_a_cache_holds_and_all_different() -> None:
    batches = forms.inputs(480, 270, 3, 2)
    assert batches.shape[1:] == (2, 270, 480, 3)
    assert batches.nbytes >= 64 << 20
    frames = batches.reshape(-1, 270 * 480 * 3)
    assert len({frame.tobytes() for frame in frames}) == len(frames)


def test_large_frames_are_few_and_small_ones_not_too_many() -> None:
    assert len(forms.inputs(4096, 2160, 3, 1)) == 4
    assert len(forms.inputs(16, 16, 1, 1)) == 512


def test_calls_take_the_batches_in_turn() -> None:
    indices: list[int] = []
    calls = CallTimer(indices.append, 3, lambda call: (call(), 1.0)[1])
    for _ in range(5):
        calls.one()
    assert indices == [0, 1, 2, 0, 1]


def test_a_turn_lasts_as_long_as_told_after_a_call_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def clock(call: Any) -> float:
        call()
        now[0] += 0.25
        return 250.0

    indices: list[int] = []
    assert CallTimer(indices.append, 9, clock).turn(1.0) == [250.0] * 4
    assert len(indices) == 5


def test_a_turn_has_one_sample_at_least() -> None:
    assert len(CallTimer(lambda index: index, 1, lambda call: 2.0).turn(0.0)) == 1


class Overlapping:
    """Takes frames as a stream does, and gives them back."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []

    def through(self, frames: Iterator[Any]) -> Iterator[Any]:
        for frame in frames:
            self.taken.append(frame.tobytes())
            yield frame


def test_of_a_stream_the_first_frame_does_not_count() -> None:
    opened = Overlapping()
    batches = np.arange(4 * 12, dtype=np.uint8).reshape(4, 1, 2, 2, 3)
    stream = Stream(opened, batches)
    assert len(stream.turn(0.0)) == 2
    assert len(set(opened.taken)) == 3
    stream.turn(0.0)
    assert opened.taken[3] == batches[3].tobytes()  # it goes on where it was
