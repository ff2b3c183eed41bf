"""Exporting in a child process, so that a crash of the exporter is an ordinary error.

PyTorch's exporters can crash with a segmentation fault. The parent then starts a new child that
skips the strategies that have crashed. `python -m sr_export.subprocess_export` is the child.

Checkpoints come from strangers, so the child has limits that follow from the file's size. They are
narrow while the file is read and recognized, when memory should be a small multiple of the file,
so that a file that is refused took less than 1 GiB; an export gets more.
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

_FILE_SIZE, _FILE_TIMES = 1 << 30, 20


@dataclasses.dataclass(frozen=True)
class _Allowance:
    """What a stage may use beyond what the child has used before.

    Attributes:
        memory: Bytes for a file of any size.
        times: Bytes for each byte of the file.
        seconds: Processor time for a file of any size.
        seconds_per_mb: Processor time for each megabyte of the file.
    """

    memory: int
    times: int
    seconds: int
    seconds_per_mb: int


# The file, its weights in float32, and a module with them are up to 5 times an FP16 file.
_ALLOWED = {
    "reading the checkpoint": _Allowance(448 << 20, 6, 60, 1),
    "recognizing the network": _Allowance(512 << 20, 12, 1800, 60),
    "testing the network": _Allowance(560 << 20, 150, 1800, 60),
    # Keras itself, and images of the model's own size.
    "running the Keras model": _Allowance(2 << 30, 150, 1800, 60),
}
# Measured: 0.3 GiB for 2.4 MB of weights, all precisions. Wide images need most of it.
_EXPORTING = _Allowance(4 << 30, 200, 6 * 3600, 600)


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
        self.attempts += stage.startswith(_ATTEMPT)
        if stage in _ALLOWED or self.last in ("", *_ALLOWED):
            self._worker.limits = self._limits(_ALLOWED.get(stage, _EXPORTING))
        self.last = stage
        self._report(stage)

    def error(self, path: Path, limit: WorkerLimitError) -> CheckpointError | ExportError:
        """Return the error that reports a limit."""
        text = (
            f"{path}: {self.last} took more than {limit}, the limit on this machine for a file of "
            f"{machine.format_bytes(self._size)}"
        )
        if self.last in _ALLOWED:
            return CheckpointError(f"{text}; the file is damaged, forged, or unusual")
        return ExportError(f"{text}; close other programs, or export on a larger machine")

    def _limits(self, allowed: _Allowance) -> Limits:
        memory, seconds = self._worker.usage()
        most = allowed.memory + allowed.times * self._size
        return Limits(
            memory + min(machine.free_memory(), most),
            seconds + allowed.seconds + allowed.seconds_per_mb * self._size / 1e6,
            _FILE_SIZE + _FILE_TIMES * self._size,
        )


def _export(progress: Report, options: dict[str, Any], folder: str, skip: int) -> None:
    """Export in this process: what the child does."""
    progress("starting")  # importing torch takes seconds
    from sr_export.options import Options
    from sr_export.pipeline import build

    build(schema.decode(Options, options, "options"), Path(folder), progress, skip=skip)


if __name__ == "__main__":
    serve({"export": _export})
