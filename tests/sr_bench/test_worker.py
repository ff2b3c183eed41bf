"""The worker: warms up, and measures when told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_bench import clocks, forms, worker
from sr_bench.records import Configuration
from sr_bench.worker import Worker


class Slow:
    """Upscales by repeating, remembers what came, and is the clock that says how long it took."""

    ran: Configuration | None = None

    def __init__(self, *seconds: float) -> None:
        self.frames: list[bytes] = []
        self.settled = 0
        self._seconds = seconds
        """Of the first frames; the last one's goes for all that follow."""
        self._now = 0.0

    def upscale(self, frames: NDArray[Any]) -> NDArray[Any]:
        self._now += self._seconds[min(len(self.frames), len(self._seconds) - 1)]
        self.frames.append(frames.tobytes())
        return frames.repeat(2, 1).repeat(2, 2)

    def network(self, batches: NDArray[Any]) -> Callable[[int], object] | None:
        return lambda index: self.upscale(batches[index])

    def through(self, frames: Iterator[Any]) -> Iterator[Any] | None:
        return None

    def staged(self, frames: NDArray[Any]) -> dict[str, float]:
        self.upscale(frames)
        return {"network": 1.0, "rest": 0.5}

    def settle(self, frames: NDArray[Any]) -> NDArray[Any]:
        self.settled = len(self.frames)
        return self.upscale(frames)

    def clock(self) -> Callable[[Callable[[], object]], float]:
        return clocks.wall

    def device_memory(self) -> int | None:
        return 7

    def close(self) -> None: ...

    def monotonic(self) -> float:
        return self._now

    perf_counter = monotonic


class Meter:
    """Each call has taken 100 joules."""

    def joules(self) -> float | None:
        return 100.0


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "output.npy"


def _prepared(slow: Slow, output: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    for module in (worker, clocks, forms):
        monkeypatch.setattr(module, "time", slow)
    found = Worker(slow, 3, Meter())
    found.do(what="prepare", width=24, height=16, batch=1, seconds=1.0, output=str(output))
    return found


def test_preparing_tells_of_the_first_call_and_writes_its_output(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(0.25, 0.125)
    monkeypatch.setattr(clocks, "time", slow)
    monkeypatch.setattr(worker, "time", slow)
    told = Worker(slow, 3, Meter()).prepare(24, 16, 1, 1.0, str(output))
    assert told["first_ms"] == 250.0
    assert told["device_memory"] == 7
    found = np.load(output)
    assert found.shape == (1, 32, 48, 3)
    assert found[:, ::2, ::2].tobytes() == slow.frames[0]
    assert slow.settled == 1  # after the first call, which is not to be made slower by it


@pytest.mark.parametrize(
    ("seconds", "count"),
    [
        # The first, and one to be compared.
        ((1 / 64,), 2 + 64),  # steady at once, but there is a least time
        ((0.5,), 2 + 1 + 5),  # so many must be no faster than the fastest before
        ((9.0, 9.0, 0.5, 0.25, 0.125), 2 + 3 + 5),  # the third is the fastest
        ((9.0, 9.0, *(0.9**i for i in range(99))), 2 + 7),  # never steady: until five times that
    ],
)
def test_the_warm_up_ends_when_calls_get_no_faster(
    seconds: tuple[float, ...], count: int, output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(*seconds)
    _prepared(slow, output, monkeypatch)
    assert len(slow.frames) == count


def test_different_frames_take_turns(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(0.25)
    found = _prepared(slow, output, monkeypatch)
    slow.frames.clear()
    found.measure("upscale", 2.0)
    assert len(set(slow.frames)) == 9


def test_energy_is_that_of_one_call(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a turn of four calls, and the one before that does not count, but takes energy."""
    found = _prepared(Slow(0.25), output, monkeypatch)
    told = found.measure("upscale", 1.0)
    assert told == {"samples": [250.0] * 4, "joules": 20.0}


def test_other_forms_are_added_where_the_contender_has_them(
    output: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = _prepared(Slow(0.25), output, monkeypatch)
    assert found.add("network", 0.5)
    assert found.do(what="measure", form="network", seconds=0.5) == {
        "samples": [250.0] * 2,
        "joules": pytest.approx(100 / 3),
    }
    assert not found.add("stream", 0.5)


def test_stages_are_told_for_each_call(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = _prepared(Slow(0.25), output, monkeypatch)
    assert found.stages("upscale", 0.5) == {"network": [1.0, 1.0], "rest": [0.5, 0.5]}
    assert found.stages("upscale", 0.0) == {"network": [1.0], "rest": [0.5]}


def test_images_are_upscaled_from_file_to_file(
    output: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = _prepared(Slow(0.25), output, monkeypatch)
    frames = tmp_path / "frames.npy"
    np.save(frames, np.full((1, 2, 3, 3), 7, np.uint8))
    found.do(what="upscale", frames=str(frames), output=str(output))
    assert np.load(output).shape == (1, 4, 6, 3)
