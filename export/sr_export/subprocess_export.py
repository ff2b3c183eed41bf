"""Exporting in a child process, so that a crash of the exporter is an ordinary error.

PyTorch's exporters can crash with a segmentation fault. The parent then starts a new child that
skips the strategies that have crashed. `python -m sr_export.subprocess_export` is the child.

Checkpoints come from strangers, so the child has limits that follow from the file's size. They are
narrow while the file is read and recognized, when memory should be a small multiple of the file;
an export computes, and gets more of both memory and time.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_deploy import machine
from sr_deploy._worker import Limits, Worker, WorkerCrashError, WorkerLimitError, serve
from sr_deploy.bundle import schema
from sr_deploy.errors import CheckpointError, ExportError
from sr_deploy.files import atomic_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_export.options import Options

    Report = Callable[[str], None]

_MODULE = "sr_export.subprocess_export"
# The stage that `pipeline` reports before each strategy that it tries.
_ATTEMPT = "exporting"
_MOST_CRASHES = 4

_READING = "reading the checkpoint"
# Beyond what the child's libraries take: the file, its weights in float32, and the module with them
# are up to 5 times an FP16 file. Processor time of a file of 1 MB on the slowest boards: seconds.
_READING_MEMORY, _READING_TIMES = 448 << 20, 6
_READING_SECONDS, _READING_SECONDS_PER_MB = 60, 1
# Measured: 0.6 GiB for 2.4 MB of weights. Small files of wide images need most, beside their size.
_EXPORT_MEMORY, _EXPORT_TIMES = 4 << 30, 200
_EXPORT_SECONDS, _EXPORT_SECONDS_PER_MB = 6 * 3600, 600
_FILE_SIZE, _FILE_TIMES = 1 << 30, 20


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
    path = Path(options.checkpoint)
    size = path.stat().st_size if path.is_file() else 0
    with atomic_folder(target) as folder, Worker(module, ExportError) as worker:
        stages = _Stages(report, worker, size)
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
            except WorkerLimitError as limit:
                raise stages.error(path, limit) from limit
            except WorkerCrashError as crash:
                if not crash.by_signal or stages.attempts == tried:
                    raise ExportError(
                        f"the exporter failed ({crash.cause}) while {stages.last}: "
                        f"{crash.last_line}"
                    ) from crash
                for each in folder.iterdir():
                    each.unlink()
                failure = f"the exporter crashed ({crash.cause}) while {stages.last}"
            else:
                return
        raise ExportError(failure)


class _Stages:
    """Counts the strategies that were tried, over all children, and sets each stage's limits."""

    def __init__(self, report: Report, worker: Worker, size: int) -> None:
        self._report = report
        self._worker = worker
        self._size = size
        self.attempts = 0
        self.last = ""
        self("starting")

    def __call__(self, stage: str) -> None:
        before, self.last = self.last, stage
        self.attempts += stage.startswith(_ATTEMPT)
        if stage == _READING or before in ("", _READING):
            self._worker.limits = self._limits()
        self._report(stage)

    def error(self, path: Path, limit: WorkerLimitError) -> CheckpointError | ExportError:
        """Return the error that reports a limit."""
        file = f"a file of {machine.format_bytes(self._size)}"
        if self.last == _READING:
            return CheckpointError(
                f"{path}: reading it took more than {limit}, the limit for {file}; it is damaged "
                "or forged"
            )
        return ExportError(
            f"{path}: {self.last} took more than {limit}, the limit on this machine for {file}; "
            "close other programs, or export on a larger machine"
        )

    def _limits(self) -> Limits:
        """Return the limits of the current stage, beyond what the child has used before."""
        memory, seconds = self._worker.usage()
        free, megabytes = machine.free_memory(), self._size / 1e6
        files = _FILE_SIZE + _FILE_TIMES * self._size
        if self.last == _READING:
            return Limits(
                memory + min(free, _READING_MEMORY + _READING_TIMES * self._size),
                seconds + _READING_SECONDS + _READING_SECONDS_PER_MB * megabytes,
                files,
            )
        return Limits(
            memory + min(free, _EXPORT_MEMORY + _EXPORT_TIMES * self._size),
            seconds + _EXPORT_SECONDS + _EXPORT_SECONDS_PER_MB * megabytes,
            files,
        )


def _export(progress: Report, options: dict[str, Any], folder: str, skip: int) -> None:
    """Export in this process: what the child does."""
    progress("starting")  # importing torch takes seconds
    from sr_export.options import Options
    from sr_export.pipeline import build

    build(schema.decode(Options, options, "options"), Path(folder), progress, skip=skip)


if __name__ == "__main__":
    serve({"export": _export})
