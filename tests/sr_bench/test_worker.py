"""The worker process: warm-up and measurements."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_bench import timers, worker
from sr_bench.records import Configuration
from sr_bench.worker import BenchWorker


class Slow:
    """A runner that repeats pixels, records its input, and is the clock of its calls."""

    resolved: Configuration | None = None

    def __init__(self, *seconds: float) -> None:
        self.frames: list[bytes] = []
        self.settled = 0
        self._seconds = seconds
        """Of the first frames; the last value applies to all others."""
        self._now = 0.0

    def upscale(self, frames: NDArray[Any]) -> NDArray[Any]:
        self._now += self._seconds[min(len(self.frames), len(self._seconds) - 1)]
        self.frames.append(frames.tobytes())
        return frames.repeat(2, 1).repeat(2, 2)

    def network(self, batches: NDArray[Any]) -> Callable[[int], object] | None:
        return lambda index: self.upscale(batches[index])

    def stream(self, frames: Iterator[Any]) -> Iterator[Any] | None:
        return None

    def stages(self, frames: NDArray[Any]) -> dict[str, float]:
        self.upscale(frames)
        return {"network": 1.0, "rest": 0.5}

    def settle(self, frames: NDArray[Any]) -> NDArray[Any]:
        self.settled = len(self.frames)
        return self.upscale(frames)

    def clock(self) -> Callable[[Callable[[], object]], float]:
        return timers.wall_clock

    def device_memory(self) -> int | None:
        return 7

    def close(self) -> None: ...

    def monotonic(self) -> float:
        return self._now

    perf_counter = monotonic


class Meter:
    """100 joules between two readings."""

    def joules(self) -> float | None:
        return 100.0


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.npy"


def _prepared(slow: Slow, output: Path, monkeypatch: pytest.MonkeyPatch) -> BenchWorker:
    for module in (worker, timers):
        monkeypatch.setattr(module, "time", slow)
    found = BenchWorker(slow, 3, Meter())
    found.prepare(width=24, height=16, batch=1, output=str(output))
    return found


def test_preparing_times_first_calls_and_saves_the_output(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(0.25, 0.125)
    monkeypatch.setattr(timers, "time", slow)
    found_times = BenchWorker(slow, 3, Meter()).prepare(24, 16, 1, str(output))
    assert found_times == {"first_ms": 250.0, "call_ms": 125.0}
    found = np.load(output)
    assert found.shape == (1, 32, 48, 3)
    assert found[:, ::2, ::2].tobytes() == slow.frames[0]
    assert slow.settled == 1  # after the first call, whose time must not include it


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        # The first call of the warm-up is the reference.
        ((1 / 64,), 64),  # steady at once, but there is a minimum time
        ((0.5,), 1 + 5),  # so many must be no faster than the fastest before
        ((9.0, 9.0, 9.0, 0.5, 0.25, 0.125), 3 + 5),  # the third is the fastest
        (
            (9.0, 9.0, 9.0, *(0.9**i for i in range(99))),
            7,
        ),  # never steady: ends after five times that
    ],
)
def test_the_warm_up_ends_when_calls_get_no_faster(
    seconds: tuple[float, ...], count: int, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(*seconds)
    found = _prepared(slow, output, monkeypatch)
    prepared = len(slow.frames)
    assert prepared == 3  # first, settled, timed
    memory = found.warm_up(seconds=1.0)
    assert memory["device_memory"] == 7
    assert len(slow.frames) - prepared == count


def test_successive_calls_have_different_frames(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(0.25)
    found = _prepared(slow, output, monkeypatch)
    slow.frames.clear()
    found.measure("upscale", 2.0)
    assert len(set(slow.frames)) == 9


def test_energy_is_per_call(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four timed calls, and an untimed one before, which uses energy as well."""
    found = _prepared(Slow(0.25), output, monkeypatch)
    told = found.measure("upscale", 1.0)
    assert told == {"samples": [250.0] * 4, "joules": 20.0}


def test_modes_are_added_if_the_runner_supports_them(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _prepared(Slow(0.25), output, monkeypatch)
    assert found.add("network", 0.5)
    assert found.measure(mode="network", seconds=0.5) == {
        "samples": [250.0] * 2,
        "joules": pytest.approx(100 / 3),
    }
    assert not found.add("stream", 0.5)


def test_stages_are_measured_for_each_call(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _prepared(Slow(0.25), output, monkeypatch)
    assert found.stages("upscale", 0.5) == {"network": [1.0, 1.0], "rest": [0.5, 0.5]}
    assert found.stages("upscale", 0.0) == {"network": [1.0], "rest": [0.5]}


def test_images_are_upscaled_from_file_to_file(
    output: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = _prepared(Slow(0.25), output, monkeypatch)
    frames = tmp_path / "frames.npy"
    np.save(frames, np.full((1, 2, 3, 3), 7, np.uint8))
    found.upscale(frames=str(frames), output=str(output))
    assert np.load(output).shape == (1, 4, 6, 3)
