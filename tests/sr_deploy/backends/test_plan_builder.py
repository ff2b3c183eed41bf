from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from sr_deploy.backends.tensorrt import plan_builder
from sr_deploy.bundle.plan_store import Shapes
from sr_deploy.errors import BackendError


class Ran:
    """Stands for `subprocess.run`."""

    def __init__(self, code: int, stderr: str) -> None:
        self.command: list[str] = []
        self._code, self._stderr = code, stderr

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        self.command = command
        return subprocess.CompletedProcess(command, self._code, "", self._stderr)


def test_the_exporters_command_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Ran(0, "")
    monkeypatch.setattr(subprocess, "run", ran)
    shapes = Shapes((1, 64, 64), (1, 720, 1280), (2, 1080, 1920))

    plan_builder.build(Path("net.srd"), "int8", "rgb24", 1, shapes)

    assert ran.command == [
        *(sys.executable, "-m", "sr_export", "net.srd", "--engine", "int8"),
        *("--format", "rgb24", "--device", "1", "--no-fallback"),
        *("--range", "1x64x64", "1x720x1280", "2x1080x1920"),
    ]


def test_without_shapes_the_command_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    ran = Ran(0, "")
    monkeypatch.setattr(subprocess, "run", ran)
    plan_builder.build(Path("net.srd"), "fp16", "gray8", 0)
    assert "--range" not in ran.command


def test_what_failed_is_the_last_thing_that_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", Ran(1, "noise\nsr-export: no plan of fp16: black\n"))
    with pytest.raises(BackendError, match=r"could be built: sr-export: no plan of fp16: black$"):
        plan_builder.build(Path("net.srd"), "fp16", "rgb24", 0)


def test_the_command_understands_what_it_is_told(tmp_path: Path) -> None:
    # The real one: there is no such bundle, and that is all that it complains about.
    shapes = Shapes((1, 64, 64), (1, 64, 64), (1, 64, 64))
    with pytest.raises(BackendError, match="no such bundle"):
        plan_builder.build(tmp_path / "gone.srd", "fp16", "rgb24", 0, shapes)
