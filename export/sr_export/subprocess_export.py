"""Exporting in a process of its own, so that a crash of the exporter is an error like others."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
from typing import IO, TYPE_CHECKING

from sr_deploy import errors
from sr_deploy.errors import ExportError
from sr_deploy.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_export.options import Options

# The stage that `pipeline` reports before each way of exporting that it tries.
_ATTEMPT = "exporting"
_MOST_CRASHES = 4


def export(options: Options, target: Path, report: Callable[[str], None]) -> None:
    """Write the bundle `target`; it appears when it is complete and verified, or not at all.

    Args:
        options: what to export.
        target: the bundle's folder; a bundle that is there is replaced.
        report: called with what is being done, as it begins.

    Raises:
        SrDeployError: as `pipeline.build` does, and when the exporter crashed every time.
    """
    skip = 0
    with atomic_folder(target) as folder:
        for _ in range(_MOST_CRASHES):
            crash = _attempt(options, folder, skip, report)
            if crash is None:
                return
            # It crashed in the last way that it tried: go on with the next.
            skip += crash.attempts
            for path in folder.iterdir():
                path.unlink()
        raise ExportError(f"the exporter crashed {crash}")


@dataclasses.dataclass(frozen=True)
class _Crash:
    """How the process died."""

    attempts: int
    stage: str
    code: int

    def __str__(self) -> str:
        cause = signal.Signals(-self.code).name if self.code < 0 else f"exit code {self.code}"
        return f"({cause}) while {self.stage}"


def _attempt(
    options: Options, folder: Path, skip: int, report: Callable[[str], None]
) -> _Crash | None:
    """Run the export once; return how it crashed, or None when it succeeded."""
    job = {"options": dataclasses.asdict(options), "folder": str(folder), "skip": skip}
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile("w+") as log:
        json.dump(job, stdin)
        stdin.seek(0)
        process = subprocess.Popen(
            [sys.executable, "-m", "sr_export.worker"],
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
        with process:
            try:
                attempts, stage = _follow(process, report, log)
            except BaseException:
                process.kill()
                raise
        crash = _Crash(attempts, stage, process.returncode)
        if crash.code > 0 or (crash.code < 0 and attempts == 0):
            raise _unexpected(crash, log)
        return crash if crash.code else None


def _follow(
    process: subprocess.Popen[str], report: Callable[[str], None], log: IO[str]
) -> tuple[int, str]:
    """Pass on what the process tells; return how many ways it tried, and its last stage."""
    attempts, stage = 0, "starting"
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if "error" in event:
            raise _error(event["error"], event["text"], log)
        stage = event["stage"]
        attempts += stage.startswith(_ATTEMPT)
        report(stage)
    return attempts, stage


def _error(kind: str, text: str, log: IO[str]) -> Exception:
    """Return the error that the process had, of the class that it had there."""
    found = getattr(errors, kind, ExportError)
    error: Exception = found(text)
    error.__cause__ = RuntimeError(_read(log))  # shown by --debug
    return error


def _unexpected(crash: _Crash, log: IO[str]) -> ExportError:
    """Return the error for a defect of ours: the last line of its traceback says most."""
    text = _read(log)
    last = text.strip().splitlines()[-1] if text.strip() else "no message"
    error = ExportError(f"the exporter failed {crash}: {last}")
    error.__cause__ = RuntimeError(text)
    return error


def _read(log: IO[str]) -> str:
    log.seek(0)
    return log.read()
