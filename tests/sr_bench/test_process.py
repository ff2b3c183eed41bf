"""Worker processes: requests, answers and failures."""

from __future__ import annotations

import dataclasses
import os
import platform
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from sr_bench import configurations
from sr_bench.configurations import DEFAULT, WorkerSpec
from sr_bench.process import WorkerProcess
from sr_bench.records import Configuration
from sr_deploy.errors import BackendError, InvalidInputError, NotFoundError
from tests.sr_bench.conftest import Tiny

ENGINE = Configuration("sr-deploy", "onnxruntime", "fp32")


def _job(contender: Configuration, tiny: Tiny) -> WorkerSpec:
    return WorkerSpec(contender, str(tiny.bundle), str(tiny.checkpoint), threads=1)


def test_every_request_is_answered(tiny: Tiny) -> None:
    process = WorkerProcess(_job(DEFAULT, tiny))
    try:
        assert process.resolved is not None
        assert process.resolved.runtime == "sr-deploy"
        assert process.versions["Python"] == platform.python_version()
        assert process.start_seconds > 0
        output = process.prepare((24, 16), 2)
        assert output.shape == (2, 32, 48, 3)
        assert process.first_ms > 0
        assert process.call_ms > 0
        memory, _ = process.warm_up(0.01)
        assert memory is None or memory > 0
        assert process.add("network", 0.01)
        assert process.add("stream", 0.01)
        for form in ("upscale", "network", "stream"):
            samples, _ = process.measure(form, 0.01)
            assert min(samples) > 0
        assert list(process.stages("upscale", 0.0)) == ["engine", "tiles", "network"]
        assert process.stages("network", 0.0) == {}
        assert process.upscale(np.zeros((8, 6, 3), np.uint8)).shape == (16, 12, 3)
    finally:
        process.close()


def test_an_error_of_a_worker_has_its_type_and_names_the_configuration(tiny: Tiny) -> None:
    job = dataclasses.replace(_job(ENGINE, tiny), bundle=str(tiny.bundle.with_name("gone.srd")))
    with pytest.raises(NotFoundError, match=r"sr-deploy ONNX Runtime FP32: .*gone\.srd"):
        WorkerProcess(job)


def test_an_unsupported_precision_is_an_error(tiny: Tiny) -> None:
    job = _job(dataclasses.replace(ENGINE, precision="int8"), tiny)
    with pytest.raises(InvalidInputError, match=r"INT8: .*int8"):
        WorkerProcess(job)


def test_a_worker_that_dies_is_an_error(tiny: Tiny) -> None:
    process = WorkerProcess(_job(ENGINE, tiny))
    try:
        assert process._worker.pid is not None
        os.kill(process._worker.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match="SIGKILL"):
            process.measure("upscale", 0.0)
    finally:
        process.close()


def test_an_unexpected_failure_shows_its_last_line(tiny: Tiny) -> None:
    process = WorkerProcess(_job(ENGINE, tiny))
    try:
        with pytest.raises(BackendError, match=r"exit code 1.*KeyError: 'nonsense'"):
            process._call("nonsense")
    finally:
        process.close()


def test_another_interpreter_runs_our_code(tiny: Tiny, tmp_path: Path) -> None:
    """One that has what is installed here, but under another name and from another folder."""
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    process = WorkerProcess(_job(ENGINE, tiny), str(python))
    try:
        assert process.versions["Python"] == platform.python_version()
    finally:
        process.close()


def test_a_missing_interpreter_is_named(tiny: Tiny) -> None:
    with pytest.raises(BackendError, match="nowhere/python"):
        WorkerProcess(_job(ENGINE, tiny), "nowhere/python")


def test_strong_torch_keeps_its_pages_and_stock_torch_does_not() -> None:
    kept = {
        str(each): WorkerSpec(each, "", None, 1).environment()
        for each in configurations.torch_configurations("cpu")
    }
    assert kept.pop("PyTorch eager FP32") == {}
    assert len(kept) == 4
    assert all(each == {"GLIBC_TUNABLES": configurations.KEEP_PAGES} for each in kept.values())
