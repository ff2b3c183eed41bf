"""The worker's loop: warm up, then measure when told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_bench import worker
from sr_bench.worker import Runner


class Slow:
    """Upscales by repeating, remembers what came, and is the clock that says how long it took."""

    def __init__(self, *seconds: float) -> None:
        self.frames: list[bytes] = []
        self._seconds = seconds
        """Of the first frames; the last one's goes for all that follow."""
        self._now = 0.0

    def __call__(self, frame: NDArray[Any]) -> NDArray[Any]:
        self._now += self._seconds[min(len(self.frames), len(self._seconds) - 1)]
        self.frames.append(frame.tobytes())
        return frame.repeat(2, 0).repeat(2, 1)

    def monotonic(self) -> float:
        return self._now

    perf_counter = monotonic


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.npy"


def _prepared(slow: Slow, output: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.setattr(worker, "time", slow)
    runner = Runner(slow, 3)
    runner.do(what="prepare", width=24, height=16, seconds=1.0, output=str(output))
    return runner


def test_preparing_writes_the_output_of_the_first_frame(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(0.25)
    _prepared(slow, output, monkeypatch)
    found = np.load(output)
    assert found.shape == (32, 48, 3)
    assert found[::2, ::2].tobytes() == slow.frames[0]


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        ((1 / 64,), 1 + 64),  # steady at once, but there is a least time
        ((0.5,), 1 + 1 + 5),  # so many must be no faster than the fastest before
        ((9.0, 0.5, 0.25, 0.125), 1 + 3 + 5),  # the third is the fastest
        ((9.0, *(0.9**i for i in range(99))), 1 + 7),  # never steady: until five times the least
    ],
)
def test_the_warm_up_ends_when_frames_get_no_faster(
    seconds: tuple[float, ...], count: int, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(*seconds)
    _prepared(slow, output, monkeypatch)
    assert len(slow.frames) == count


def test_different_frames_take_turns(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(0.25)
    runner = _prepared(slow, output, monkeypatch)
    slow.frames.clear()
    runner.measure(2.0)
    assert len(set(slow.frames[:4])) == 4
    assert slow.frames[:4] == slow.frames[4:8]


def test_a_turn_lasts_as_long_as_told_after_one_frame_that_does_not_count(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(0.25)
    runner = _prepared(slow, output, monkeypatch)
    slow.frames.clear()
    assert runner.do(what="measure", seconds=1.0) == [250.0] * 4
    assert len(slow.frames) == 5


def test_a_turn_has_one_sample_at_least(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runner = _prepared(Slow(0.25), output, monkeypatch)
    assert runner.measure(0.0) == [250.0]
