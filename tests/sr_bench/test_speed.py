"""Contenders take turns, in groups that fit into memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_bench import contenders, quality, speed
from sr_bench.jobs import WorkerSpec
from sr_bench.records import Configuration, SpeedOptions
from sr_bench.speed import SizePlan
from sr_deploy import machine
from sr_deploy.cli.console import Progress
from sr_deploy.errors import BackendError, OutOfMemoryError
from tests.sr_bench.conftest import Tiny
from tests.sr_deploy.manifests import MODEL

OPTIONS = SpeedOptions(
    threads=1, warm_up_seconds=0.05, rounds=2, turn_seconds=0.01, rest_seconds=0.0
)
TORCH = contenders.torch("cpu")
JOBS = tuple(WorkerSpec(each, "", None, 1) for each in TORCH)
ENGINE = Configuration("sr-deploy", "onnxruntime", "fp32")


class FakeProcess:
    """Notes the order of what it is asked; contender number n is off by n levels."""

    calls: list[tuple[Any, ...]] = []  # noqa: RUF012
    broken: tuple[int, ...] = ()
    ran = None
    start_seconds = 0.5
    versions = {"torch": "9.9"}  # noqa: RUF012

    def __init__(self, job: WorkerSpec, python: str | None = None) -> None:
        self.job = job
        self.number = TORCH.index(job.contender)
        self.calls.append(("start", self.number, python))
        if self.number in self.broken:
            raise BackendError(f"number {self.number} is broken")

    def prepare(self, size: Any, batch: int, seconds: float) -> tuple[Any, dict[str, Any]]:
        self.calls.append(("prepare", self.number, size, batch, seconds))
        told = {"first_ms": 9.0, "peak_memory": 100, "device_memory": None}
        return np.full((1, 16, 16, 3), self.number, np.uint8), told

    def add(self, form: str, seconds: float) -> bool:
        self.calls.append(("add", self.number, form))
        return form == "network"

    def measure(self, form: str, seconds: float) -> tuple[tuple[float, ...], float | None]:
        self.calls.append(("measure", self.number, form))
        return (1.0 + self.number,), 0.25 if form == "upscale" else None

    def stages(self, form: str, seconds: float) -> dict[str, tuple[float, ...]]:
        return {"network": (1.0,)} if form == "upscale" else {}

    def upscale(self, frame: Any) -> Any:
        return frame.repeat(2, 0).repeat(2, 1)

    def close(self) -> None:
        self.calls.append(("close", self.number))


@pytest.fixture(autouse=True)
def _fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "tiny" not in request.fixturenames:
        monkeypatch.setattr(speed, "WorkerProcess", FakeProcess)
        monkeypatch.setattr(FakeProcess, "calls", [])


def _kinds(*kinds: str) -> list[tuple[Any, ...]]:
    return [each for each in FakeProcess.calls if each[0] in kinds]


def test_contenders_take_turns() -> None:
    plan = SizePlan(JOBS[:2], (8, 6), forms=("network", "stream"), pythons={"torch": "python9"})
    with Progress(4) as progress:
        (bout,) = speed.measure(plan, OPTIONS, progress)
    turns = [("measure", n, form) for n in (0, 1) for form in ("upscale", "network")] * 2
    assert _kinds("measure") == turns
    assert _kinds("prepare") == [("prepare", n, (8, 6), 1, 0.05) for n in (0, 1)]
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


def test_fidelity_is_measured_beside_the_first_row() -> None:
    with Progress(4) as progress:
        (bout,) = speed.measure(SizePlan(JOBS[:2], (8, 8)), OPTIONS, progress)
    assert bout.rows[0].fidelity.psnr is None
    assert bout.rows[1].fidelity.psnr == pytest.approx(20 * np.log10(255))  # off by one level
    assert bout.rows[1].fidelity.ssim == pytest.approx(1.0, abs=0.02)


def test_one_that_cannot_is_missing_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "broken", (0,))
    with Progress(4) as progress:
        (bout,) = speed.measure(SizePlan(JOBS[:3], (8, 6)), OPTIONS, progress)
    assert bout.missing == {"PyTorch eager FP32": "number 0 is broken"}
    assert [row.fidelity.largest for row in bout.rows] == [0, 1]  # beside the first that can


def test_nobody_that_can_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "broken", (0, 1))
    with Progress(4) as progress, pytest.raises(BackendError, match=r"number 0 .*; number 1 is"):
        speed.measure(SizePlan(JOBS[:2], (8, 6)), OPTIONS, progress)
    with Progress(4) as progress, pytest.raises(BackendError, match=r"^number 0 is broken$"):
        speed.measure(SizePlan(JOBS[:1], (8, 6)), OPTIONS, progress)


def test_ground_truth_is_compared_with_what_the_contender_makes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    pairs = quality.pairs(tmp_path, None, 2)
    with Progress(4) as progress:
        (bout,) = speed.measure(SizePlan(JOBS[:1], (8, 6), pairs=pairs, scale=2), OPTIONS, progress)
    low, truth = quality.load(pairs[0], 2)
    assert bout.rows[0].truth == quality.score(truth, low.repeat(2, 0).repeat(2, 1), 2)


class FakeMemory:
    """A machine with so many bytes free, of which each open process takes its part."""

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
def test_groups_fit_into_memory_and_each_has_the_baseline(
    free: int, taken: int, groups: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "free_memory", FakeMemory(free, taken))
    steps: list[str] = []
    with Progress() as progress:
        monkeypatch.setattr(progress, "step", steps.append)
        bouts = speed.measure(SizePlan(JOBS, (64, 48), needs=400), OPTIONS, progress)
    found = [[TORCH.index(row.contender) for row in bout.rows] for bout in bouts]
    assert found == groups
    assert len(steps) == len(JOBS) * OPTIONS.rounds  # the baseline's further turns do not count


def test_what_contenders_may_need_grows_with_the_frames() -> None:
    small, large = (speed.needed(MODEL, (side, 50), 1) for side in (100, 300))
    assert large - small == pytest.approx(2.2 * 200 * 50 * MODEL.bytes_per_pixel, abs=1)
    assert speed.needed(MODEL, (100, 50), 3) == pytest.approx(large, abs=1)


def test_too_little_memory_for_two_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "free_memory", FakeMemory(800 << 20, 250 << 20))
    plan = SizePlan(JOBS, (64, 48), needs=400 << 20)
    told = "two contenders side by side at 64x48 need up to 800 MiB of memory; 800 MiB are free"
    with Progress() as progress:
        with pytest.raises(OutOfMemoryError, match=told):
            speed.measure(plan, OPTIONS, progress)
        assert _kinds("close") == [("close", 0)]
        (alone,) = speed.measure(dataclasses.replace(plan, jobs=JOBS[:1]), OPTIONS, progress)
    assert len(alone.rows) == 1


def test_one_that_cannot_be_opened_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeProcess, "broken", (0,))
    monkeypatch.setattr(machine, "free_memory", FakeMemory(500, 0))
    with Progress() as progress:
        (bout,) = speed.measure(SizePlan(JOBS[:2], (64, 48), needs=450), OPTIONS, progress)
    assert [row.contender for row in bout.rows] == [TORCH[1]]
    assert list(bout.missing) == [str(TORCH[0])]


def test_torch_and_the_engine_are_measured_in_processes(tiny: Tiny) -> None:
    jobs = [
        WorkerSpec(each, str(tiny.bundle), str(tiny.checkpoint), 1) for each in (TORCH[0], ENGINE)
    ]
    with Progress(4) as progress:
        (bout,) = speed.measure(SizePlan(jobs, (24, 16), forms=("network",)), OPTIONS, progress)
    assert [row.contender for row in bout.rows] == [TORCH[0], ENGINE]
    assert all(len(each.rounds) == 2 for row in bout.rows for each in row.timings)
    assert all(len(row.timings) == 2 for row in bout.rows)
    assert bout.rows[1].fidelity.largest <= 1  # a level, where rounding differs
    assert list(bout.rows[0].upscale.stages) == ["frame to tensor", "network", "tensor to frame"]
    assert dataclasses.asdict(bout)["size"] == (24, 16)
