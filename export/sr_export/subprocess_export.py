"""Exporting in a child process, so that a crash of the exporter is an ordinary error.

PyTorch's exporters can crash with a segmentation fault. The parent then starts a new child that
skips the strategies that have crashed. `python -m sr_export.subprocess_export` is the child.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_deploy._worker import Worker, WorkerCrashError, serve
from sr_deploy.bundle import schema
from sr_deploy.errors import ExportError
from sr_deploy.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_export.options import Options

    Report = Callable[[str], None]

_MODULE = "sr_export.subprocess_export"
# The stage that `pipeline` reports before each strategy that it tries.
_ATTEMPT = "exporting"
_MOST_CRASHES = 4


def export(options: Options, target: Path, report: Report, *, module: str = _MODULE) -> None:
    """Write the bundle `target`; it appears when it is complete and verified, or not at all.

    Args:
        options: What to export.
        target: The bundle's folder; an existing bundle is replaced.
        report: Called with each stage as it begins.
        module: The child's module; tests have one of their own.

    Raises:
        SrDeployError: As `pipeline.build` does, and when the exporter crashes every time.
    """
    stages = _Stages(report)
    with atomic_folder(target) as folder, Worker(module, ExportError) as worker:
        for _ in range(_MOST_CRASHES):
            tried = stages.attempts
            try:
                worker.call(
                    "export",
                    progress=stages,
                    options=dataclasses.asdict(options),
                    folder=str(folder),
                    skip=tried,
                )
            except WorkerCrashError as crash:
                if not crash.by_signal or stages.attempts == tried:
                    raise ExportError(
                        f"the exporter failed ({crash.cause}) while {stages.last}: "
                        f"{crash.last_line}"
                    ) from crash
                for path in folder.iterdir():
                    path.unlink()
                failure = f"the exporter crashed ({crash.cause}) while {stages.last}"
            else:
                return
        raise ExportError(failure)


class _Stages:
    """Counts the strategies that were tried, over all children."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self.attempts = 0
        self.last = "starting"

    def __call__(self, stage: str) -> None:
        self.last = stage
        self.attempts += stage.startswith(_ATTEMPT)
        self._report(stage)


def _export(progress: Report, options: dict[str, Any], folder: str, skip: int) -> None:
    """Export in this process: what the child does."""
    progress("starting")  # importing torch takes seconds
    from sr_export.options import Options
    from sr_export.pipeline import build

    build(schema.decode(Options, options, "options"), Path(folder), progress, skip=skip)


if __name__ == "__main__":
    serve({"export": _export})
