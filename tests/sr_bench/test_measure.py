"""Configurations are interleaved, in runs that fit into memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_bench import configurations, measure, quality
from sr_bench.configurations import SizePlan, WorkerSpec
from sr_bench.estimate import Schedule
from sr_bench.records import BenchRun, Configuration, SpeedOptions
from sr_deploy import machine
from sr_deploy.cli.console import Progress
from sr_deploy.errors import BackendError, OutOfMemoryError
from tests.sr_bench.conftest import Tiny
from tests.sr_deploy.manifests import MODEL

OPTIONS = SpeedOptions(
    threads=1, warm_up_seconds=0.05, rounds=2, turn_seconds=0.01, rest_seconds=0.0
)
TORCH = configurations.torch_configurations("cpu")
SPECS = tuple(WorkerSpec(each, "", None, 1) for each in TORCH)
ENGINE = Configuration("sr-deploy", "onnxruntime", "fp32")


class FakeProcess:
    """Records the requests in order; the output of configuration n is off by n levels."""

    calls: list[tuple[Any, ...]] = []  # noqa: RUF012
    broken: tuple[int, ...] = ()
    failing: tuple[int, ...] = ()
    resolved = None
    first_ms, call_ms = 9.0, 1.0
    start_seconds = 0.5
    versions = {"torch": "9.9"}  # noqa: RUF012

    def __init__(self, spec: WorkerSpec, python: str | None = None) -> None:
        self.spec = spec
        self.number = TORCH.index(spec.configuration)
        self.calls.append(("start", self.number, python))
        if self.number in self.broken:
            raise BackendError(f"number {self.number} is broken")

    def prepare(self, size: Any, batch: int) -> Any:
        self.calls.append(("prepare", self.number, size, batch))
        return np.full((1, 16, 16, 3), self.number, np.uint8)

    def warm_up(self, seconds: float) -> tuple[int | None, int | None]:
        self.calls.append(("warm-up", self.number, seconds))
        if self.number in self.failing:
            raise BackendError(f"number {self.number} failed")
        return 100, None

    def add(self, mode: str, seconds: float) -> bool:
        self.calls.append(("add", self.number, mode))
        return mode == "network"

    def measure(self, mode: str, seconds: float) -> tuple[tuple[float, ...], float | None]:
        self.calls.append(("measure", self.number, mode))
        return (1.0 + self.number,), 0.25 if mode == "upscale" else None

    def stages(self, mode: str, seconds: float) -> dict[str, tuple[float, ...]]:
        return {"network": (1.0,)} if mode == "upscale" else {}

    def upscale(self, frame: Any) -> Any:
        return frame.repeat(2, 0).repeat(2, 1)

    def close(self) -> None:
        self.calls.append(("close", self.number))


@pytest.fixture(autouse=True)
def _fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tiny" not in request.fixturenames:
        monkeypatch.setattr(measure, "WorkerProcess", FakeProcess)
        monkeypatch.setattr(FakeProcess, "calls", [])


def _measure(plan: SizePlan) -> list[BenchRun]:
    with Progress() as progress:
        return measure.measure(plan, OPTIONS, Schedule([plan], OPTIONS, progress))


def _kinds(*kinds: str) -> list[tuple[Any, ...]]:
    return [each for each in FakeProcess.calls if each[0] in kinds]


def test_configurations_are_interleaved() -> None:
    plan = SizePlan(SPECS[:2], (8, 6), modes=("network", "stream"), pythons={"torch": "python9"})
    (bout,) = _measure(plan)
    turns = [("measure", n, mode) for n in (0, 1) for mode in ("upscale", "network")] * 2
    assert _kinds("measure") == turns
    assert _kinds("prepare", "warm-up") == [
        *(("prepare", n, (8, 6), 1) for n in (0, 1)),
        *(("warm-up", n, 0.05) for n in (0, 1)),
    ]
    assert _kinds("start") == [("start", 0, "python9"), ("start", 1, "python9")]
    assert _kinds("close") == [("close", 1), ("close", 0)]
    assert [row.upscale.rounds for row in bout.rows] == [((1.0,), (1.0,)), ((2.0,), (2.0,))]
    assert [row.fidelity.largest for row in bout.rows] == [0, 1]
    first = bout.rows[0]
    assert [each.form for each in first.timings] == ["upscale", "network"]
    assert first.upscale.joules == (0.25, 0.25)
    assert first.timings[1].joules is None
    assert first.versions == {"torch": "9.9"}
    assert (first.start_seconds, first.first_ms, first.peak_memory) == (0.5, 9.0, 100)
    assert [each.stages for each in first.timings] == [{"network": (1.0,)}, {}]
    assert first.truth is None


def test_the_deviation_is_from_the_first_row() -> None:
    (bout,) = _measure(SizePlan(SPECS[:2], (8, 8)))
    assert bout.rows[0].fidelity.psnr is None
    assert bout.rows[1].fidelity.psnr == pytest.approx(20 * np.log10(255))  # off by one level
    assert bout.rows[1].fidelity.ssim == pytest.approx(1.0, abs=0.02)


def test_a_configuration_that_cannot_start_is_missing_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeProcess, "broken", (0,))
    (bout,) = _measure(SizePlan(SPECS[:3], (8, 6)))
    assert bout.missing == {"PyTorch eager FP32": "number 0 is broken"}
    assert [row.fidelity.largest for row in bout.rows] == [0, 1]  # against the first that can


def test_a_configuration_that_fails_in_the_warm_up_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FakeProcess, "failing", (1,))
    (run,) = _measure(SizePlan(SPECS[:3], (8, 6)))
    assert list(run.missing) == [str(TORCH[1])]
    assert [row.contender for row in run.rows] == [TORCH[0], TORCH[2]]


def test_the_time_is_announced_once_before_the_warm_up(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "free_memory", FakeMemory(1000, 150))
    with Progress() as progress:
        plan = SizePlan(SPECS, (64, 48), needs=400)
        schedule = Schedule([plan], OPTIONS, progress)
        monkeypatch.setattr(schedule, "announce", _noting(schedule.announce))
        measure.measure(plan, OPTIONS, schedule)
    order = [each[0] for each in FakeProcess.calls]
    assert order.index("announce") < order.index("warm-up")
    assert len(capsys.readouterr().err.splitlines()) == 1  # though there are two runs


def _noting(announce: Any) -> Any:
    def noted(*arguments: Any) -> Any:
        FakeProcess.calls.append(("announce",))
        return announce(*arguments)

    return noted


def test_no_configuration_that_can_start_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "broken", (0, 1))
    with pytest.raises(BackendError, match=r"number 0 .*; number 1"):
        _measure(SizePlan(SPECS[:2], (8, 6)))
    with pytest.raises(BackendError, match=r"^number 0 is broken$"):
        _measure(SizePlan(SPECS[:1], (8, 6)))


def test_outputs_are_compared_with_ground_truth(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    pairs = quality.pairs(tmp_path, None, 2)
    (bout,) = _measure(SizePlan(SPECS[:1], (8, 6), pairs=pairs, scale=2))
    low, truth = quality.load(pairs[0], 2)
    assert bout.rows[0].truth == quality.score(truth, low.repeat(2, 0).repeat(2, 1), 2)


class FakeMemory:
    """A machine with a number of free bytes, of which each open process takes a part."""

    def __init__(self, free: int, each: int) -> None:
        self.free, self.each = free, each

    def __call__(self) -> int:
        calls = FakeProcess.calls
        opened, closed = (sum(call[0] == kind for call in calls) for kind in ("start", "close"))
        return self.free - self.each * (opened - closed)


@pytest.mark.parametrize(
    ("free", "taken", "groups"),
    [
        (1000, 100, [[0, 1, 2, 3, 4]]),  # 4 are open: 600 are left for 400 and a reserve of 200
        (1000, 150, [[0, 1, 2], [0, 3, 4]]),  # 2 are open: 700 are left; with 3, only 550
        (700, 160, [[0, 1], [0, 2], [0, 3], [0, 4]]),
    ],
)
def test_runs_fit_into_memory_and_each_has_the_baseline(
    free: int, taken: int, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", FakeMemory(free, taken))
    runs = _measure(SizePlan(SPECS, (64, 48), needs=400))
    found = [[TORCH.index(row.contender) for row in run.rows] for run in runs]
    assert found == groups


def test_the_needed_memory_grows_with_the_frames() -> None:
    small, large = (measure.needed_memory(MODEL, (side, 50), 1) for side in (100, 300))
    assert large - small == pytest.approx(2.2 * 200 * 50 * MODEL.bytes_per_pixel, abs=1)
    assert measure.needed_memory(MODEL, (100, 50), 3) == pytest.approx(large, abs=1)


def test_too_little_memory_for_two_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", FakeMemory(800 << 20, 250 << 20))
    plan = SizePlan(SPECS, (64, 48), needs=400 << 20)
    with pytest.raises(OutOfMemoryError, match=r"64x48.* 800 MiB.* 800 MiB"):
        _measure(plan)
    assert _kinds("close") == [("close", 0)]
    (alone,) = _measure(dataclasses.replace(plan, specs=SPECS[:1]))
    assert len(alone.rows) == 1


def test_a_configuration_that_cannot_start_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "broken", (0,))
    monkeypatch.setattr(machine, "free_memory", FakeMemory(500, 0))
    (bout,) = _measure(SizePlan(SPECS[:2], (64, 48), needs=450))
    assert [row.contender for row in bout.rows] == [TORCH[1]]
    assert list(bout.missing) == [str(TORCH[0])]


@pytest.mark.slow
def test_torch_and_the_engine_are_measured_in_processes(tiny: Tiny) -> None:
    specs = [
        WorkerSpec(each, str(tiny.bundle), str(tiny.checkpoint), 1) for each in (TORCH[0], ENGINE)
    ]
    (bout,) = _measure(SizePlan(specs, (24, 16), modes=("network",)))
    assert [row.contender for row in bout.rows] == [TORCH[0], ENGINE]
    assert all(len(each.rounds) == 2 for row in bout.rows for each in row.timings)
    assert all(len(row.timings) == 2 for row in bout.rows)
    assert bout.rows[1].fidelity.largest <= 1  # a level, where rounding differs
    assert list(bout.rows[0].upscale.stages) == ["frame to tensor", "network", "tensor to frame"]
    assert dataclasses.asdict(bout)["size"] == (24, 16)
