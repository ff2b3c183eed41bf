"""Contenders take turns, in processes of their own, and what happens there is told here."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from sr_bench import speed
from sr_bench.contenders import TORCH, Job
from sr_bench.records import Contender, SpeedOptions
from sr_deploy.console import Progress
from sr_deploy.errors import BackendError, InvalidInputError, NotFoundError
from tests.bench.conftest import Tiny

OPTIONS = SpeedOptions(
    threads=1, warm_up_seconds=0.05, rounds=2, turn_seconds=0.01, rest_seconds=0.0
)
ENGINE = Contender("sr-deploy", "onnxruntime", "fp32")


def _job(contender: Contender, tiny: Tiny) -> Job:
    return Job(contender, str(tiny.bundle), str(tiny.checkpoint), threads=1)


class FakeWorker:
    """Notes the order of what it is asked; contender number n is off by n levels."""

    calls: list[tuple[Any, ...]] = []  # noqa: RUF012

    def __init__(self, job: Job) -> None:
        self.job = job
        self.number = TORCH.index(job.contender)
        self.calls.append(("start", self.number))

    def prepare(self, size: tuple[int, int], seconds: float) -> np.ndarray:
        self.calls.append(("prepare", self.number, size, seconds))
        return np.array([[self.number, 0]], np.uint8)

    def measure(self, seconds: float) -> tuple[float, ...]:
        self.calls.append(("measure", self.number))
        return (1.0 + self.number,)

    def close(self) -> None:
        self.calls.append(("close", self.number))


def test_contenders_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "Worker", FakeWorker)
    monkeypatch.setattr(FakeWorker, "calls", [])
    jobs = [Job(each, "", None, 1) for each in TORCH[:2]]
    with Progress(4) as progress:
        timings = speed.measure(jobs, [(8, 6)], OPTIONS, progress)
    turns = [("measure", 0), ("measure", 1)] * 2
    prepared = [("prepare", number, (8, 6), 0.05) for number in (0, 1)]
    ends = [("close", 1), ("close", 0)]
    assert FakeWorker.calls == [("start", 0), ("start", 1), *prepared, *turns, *ends]
    assert [each.rounds for each in timings] == [((1.0,), (1.0,)), ((2.0,), (2.0,))]
    assert [each.difference for each in timings] == [0, 1]


def test_torch_and_the_engine_are_measured_in_processes(tiny: Tiny) -> None:
    jobs = [_job(TORCH[0], tiny), _job(ENGINE, tiny)]
    with Progress(8) as progress:
        timings = speed.measure(jobs, [(24, 16), (16, 24)], OPTIONS, progress)
    shown = [(each.contender, each.size) for each in timings]
    assert shown == [
        (TORCH[0], (24, 16)),
        (ENGINE, (24, 16)),
        (TORCH[0], (16, 24)),
        (ENGINE, (16, 24)),
    ]
    assert all(len(each.rounds) == 2 for each in timings)
    assert max(each.difference for each in timings) <= 1  # a level, where rounding differs


def test_an_error_of_a_worker_has_its_class_and_says_whose_it_is(tiny: Tiny) -> None:
    job = dataclasses.replace(_job(ENGINE, tiny), bundle=str(tiny.bundle.with_name("gone.srd")))
    with pytest.raises(NotFoundError, match=r"sr-deploy ONNX Runtime FP32: .*no such bundle"):
        speed.Worker(job)


def test_an_engine_that_cannot_is_told(tiny: Tiny) -> None:
    job = _job(dataclasses.replace(ENGINE, precision="int8"), tiny)
    with pytest.raises(InvalidInputError, match=r"INT8: .*int8 cannot be had"):
        speed.Worker(job)


def test_a_worker_that_dies_is_an_error(tiny: Tiny) -> None:
    worker = speed.Worker(_job(ENGINE, tiny))
    try:
        worker._process.kill()
        with pytest.raises(BackendError, match=r"its process died \(SIGKILL\)"):
            worker.measure(0.0)
    finally:
        worker.close()


def test_what_no_one_foresaw_shows_its_last_line(tiny: Tiny) -> None:
    worker = speed.Worker(_job(ENGINE, tiny))
    try:
        with pytest.raises(BackendError, match=r"\(exit code 1\): KeyError: 'nonsense'"):
            worker._ask(what="nonsense")
    finally:
        worker.close()
