"""The steps of the GPU check, with fake commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpu_check import pythons, steps
from gpu_check.pythons import Python
from gpu_check.steps import CheckPlan, GpuCheck

ALL = dict.fromkeys(("tensorrt", "cuda.bindings", "numpy", "PIL", "torch", "pytest"), "1")


class Ran:
    """A fake of `subprocess.run`, where a chosen command fails."""

    def __init__(self, failing: str = "") -> None:
        self.commands: list[list[str]] = []
        self._failing = failing

    def __call__(self, command: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        self.commands.append(command)
        more["stdout"].write("working\nthe reason\n")
        bad = self._failing and self._failing in " ".join(command)
        return subprocess.CompletedProcess(command, 1 if bad else 0)


def checked(tmp_path: Path, found: dict[str, str], *, seconds: float = 60) -> GpuCheck:
    bundle = tmp_path / "net.srd"
    bundle.mkdir(exist_ok=True)
    plan = CheckPlan([bundle], ["fp16", "int8"], ["720x1280"], 5.0, time.monotonic() + seconds)
    (tmp_path / "out").mkdir(exist_ok=True)
    return GpuCheck(plan, [Python("py", found)], {}, tmp_path / "out")


def record(tmp_path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tmp_path / "out" / "gpu_check.json").read_text())
    return found["steps"]


def test_every_step_reports_what_is_missing(tmp_path: Path) -> None:
    check = checked(tmp_path, {})
    for name in GpuCheck.steps:
        if name not in ("kernels", "sanitizer"):
            check.run(name)

    found = record(tmp_path)
    assert all(each["not_done"] for each in found.values())
    assert all("not run:" in line for line in check.summary())


def test_plans_are_built_for_frames_for_any_size_and_for_tiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Ran()
    monkeypatch.setattr(subprocess, "run", ran)

    checked(tmp_path, ALL).run("plans")

    frame, any_size, tiles = ran.commands
    assert frame[1:] == [
        *("-m", "sr_export", str(tmp_path / "net.srd"), "--engine", "fp16", "int8"),
        *("--frame", "720x1280"),
    ]
    assert any_size[-4:] == ["--range", *steps._RANGE]
    assert tiles[3] == str(tmp_path / "out" / "tiled-net.srd")


def test_a_failed_step_reports_the_last_line_and_the_others_continue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", Ran("--range"))
    check = checked(tmp_path, ALL)

    check.run("plans")
    check.run("tests")

    found = record(tmp_path)
    assert found["plans"]["ok"] is False
    assert found["plans"]["net any size"]["last_line"] == "the reason"
    assert found["plans"]["net tiles"]["exit"] == 0
    assert found["tests"]["ok"] is True
    assert "plans      FAILED" in check.summary()


def test_speed_is_measured_against_torch_if_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = Ran()
    monkeypatch.setattr(subprocess, "run", ran)

    checked(tmp_path, ALL).run("speed")

    (command,) = ran.commands
    assert command[1:4] == ["-m", "sr_bench", "speed"]
    assert command[7:10] == ["--backends", "tensorrt", "torch"]
    assert "1280x720" in command
    assert command[-1] == "tensorrt=py"


def test_sr_bench_accepts_the_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sr_bench import cli

    ran = Ran()
    monkeypatch.setattr(subprocess, "run", ran)
    checked(tmp_path, ALL).run("speed")
    (command,) = ran.commands
    words = [sys.executable if each == "tensorrt=py" else each for each in command[3:]]
    words[-1] = f"tensorrt={sys.executable}"

    arguments = cli._parser().parse_args(words)

    assert arguments.device == "cuda"


def test_no_step_starts_after_the_end(tmp_path: Path) -> None:
    check = checked(tmp_path, ALL, seconds=-1)
    check.run("soak")
    assert "time" in check.results["soak"]["not_done"][0]


@pytest.mark.slow
def test_interpreters_that_drop_the_path_are_searched_as_well(tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    hidden.write_text(f'#!/bin/sh\nunset PYTHONPATH\nexec {sys.executable} "$@"\n')
    hidden.chmod(0o755)
    variables = pythons.environment(None)

    found = pythons.search([str(hidden)], variables, tmp_path)

    python = next(each for each in found if each.command == str(tmp_path / "python-0"))
    assert python.has("numpy", "PIL")
    code = "import gpu_check.shim, sr_export, sys; print(sys.argv)"
    done = subprocess.run(
        [python.command, "-c", code, "a"], env=variables, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['-c', 'a']\n"
    done = subprocess.run(
        [python.command, "-m", "sr_export", "--help"],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert "--engine" in done.stdout


@pytest.mark.skipif(os.path.exists("/dev/nvidiactl"), reason="there is a GPU")  # noqa: PTH110
def test_without_a_gpu_the_exit_code_is_2(tmp_path: Path) -> None:
    command = [sys.executable, str(pythons.ROOT / "benchmarks/gpu_check"), "net.srd"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no NVIDIA GPU" in done.stderr
