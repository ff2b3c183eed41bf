"""An export in a child process always has a result."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from architectures import process
from architectures.cells import Cell
from architectures.exporting import ExportResult
from tests.conftest import ROOT
from tests.sr_deploy.test_worker import gone_within

CELL = Cell("Compact", 3, 2)


def raising(_: Cell) -> ExportResult:
    raise LookupError("no such layer")


def killed(_: Cell) -> ExportResult:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def left(_: Cell) -> ExportResult:
    os._exit(3)


def asleep(_: Cell) -> ExportResult:
    time.sleep(600)
    return {}


def asleep_with_a_note(_: Cell) -> ExportResult:
    Path(os.environ["NOTE"]).write_text(str(os.getpid()))
    return asleep(_)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_export_never_outlives_its_program(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    code = (
        "from architectures import process\n"
        "from tests.sr_bench.architectures import test_process as tests\n"
        "process.export(tests.CELL, 300, tests.asleep_with_a_note)\n"
    )
    path = os.pathsep.join([str(ROOT), *sys.path])
    variables = os.environ | {"PYTHONPATH": path, "NOTE": str(note)}
    program = subprocess.Popen([sys.executable, "-c", code], env=variables)
    while not (note.exists() and note.read_text()):
        assert program.poll() is None
        time.sleep(0.05)
    child = int(note.read_text())
    program.kill()
    program.wait()
    assert gone_within(child, seconds=2)


@pytest.mark.parametrize(
    ("does", "error"),
    [
        (killed, r"crashes \(SIGKILL\)"),
        (left, r"crashes \(exit code 3\)"),
        (raising, "fails: LookupError: no such layer"),
    ],
)
def test_a_failure_is_an_error(does: Callable[[Cell], ExportResult], error: str) -> None:
    assert re.fullmatch(error, process.export(CELL, 300, does)["error"])


def test_an_export_is_ended_at_its_time_limit() -> None:
    assert process.export(CELL, 1, asleep) == {"error": "not finished within 1 s"}


@pytest.mark.slow
def test_a_network_is_built_exported_and_run() -> None:
    found = process.export(CELL, 300)
    assert "error" not in found, found["error"]
    assert (found["architecture"], found["scale"], found["channels"]) == ("Compact", 2, 3)
    assert found["runs"] == {"openvino": "yes", "onnxruntime": "yes"}
    assert found["tiles"] == "equal"
    assert found["worst_error"] < 1e-5
    assert found["share"] == 1
    for precision, budget in (("fp16", 58), ("int8", 45)):
        decibels = found["precisions"][precision]
        assert isinstance(decibels, float)
        assert decibels >= budget
