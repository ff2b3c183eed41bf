"""How fast contenders are, side by side: interleaved, warmed up, each in a process of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_bench.records import Timing
from sr_deploy import errors
from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from sr_bench.contenders import Job
    from sr_bench.records import SpeedOptions
    from sr_deploy.console import Progress


def measure(
    jobs: Sequence[Job],
    sizes: Sequence[tuple[int, int]],
    options: SpeedOptions,
    progress: Progress,
) -> tuple[Timing, ...]:
    """Measure contenders at sizes (width, height); the first one is the baseline.

    `progress` is stepped once for each contender, round and size.

    Raises:
        SrDeployError: a contender failed; the text says which one and why.
    """
    timings: list[Timing] = []
    with contextlib.ExitStack() as stack:
        workers = []
        for job in jobs:
            progress.stage(f"starting {job.contender}")
            workers.append(stack.enter_context(contextlib.closing(Worker(job))))
        for size in sizes:
            timings += _at(size, workers, options, progress)
    return tuple(timings)


def _at(
    size: tuple[int, int], workers: list[Worker], options: SpeedOptions, progress: Progress
) -> Iterator[Timing]:
    shown = "{}x{}".format(*size)
    outputs = []
    for worker in workers:
        progress.stage(f"{shown}: warming up {worker.job.contender}")
        outputs.append(worker.prepare(size, options.warm_up_seconds))
    rounds: list[list[tuple[float, ...]]] = [[] for _ in workers]
    for _ in range(options.rounds):
        for worker, found in zip(workers, rounds, strict=True):
            time.sleep(options.rest_seconds)
            found.append(worker.measure(options.turn_seconds))
            progress.step(f"{shown} {worker.job.contender}")
    for worker, output, found in zip(workers, outputs, rounds, strict=True):
        difference = np.abs(output.astype(int) - outputs[0]).max()
        yield Timing(worker.job.contender, size, tuple(found), int(difference))


class Worker:
    """A contender in its process, which measures when told and else sleeps."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            [sys.executable, "-m", "sr_bench.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            encoding="utf-8",
            env=os.environ | job.environment(),
        )
        try:
            self._ask(**dataclasses.asdict(job))
        except BaseException:
            self.close()
            raise

    def prepare(self, size: tuple[int, int], seconds: float) -> NDArray[np.uint8]:
        """Warm up at a size (width, height); return what the first frame became."""
        width, height = size
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "output.npy")
            self._ask(what="prepare", width=width, height=height, seconds=seconds, output=path)
            output: NDArray[np.uint8] = np.load(path)
        return output

    def measure(self, seconds: float) -> tuple[float, ...]:
        """Return the milliseconds of frames, for so long."""
        found: Any = self._ask(what="measure", seconds=seconds)["result"]
        return tuple(found)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def _ask(self, **question: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # then there is no answer, either
            self._process.stdin.write(json.dumps(question) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = getattr(errors, answer["error"], BackendError)
            raise kind(f"{self.job.contender}: {answer['text']}") from RuntimeError(self._printed())
        return answer

    def _died(self) -> BackendError:
        code = self._process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        printed = self._printed()
        last = printed.strip().splitlines()[-1:] or ["no message"]
        error = BackendError(f"{self.job.contender}: its process died ({cause}): {last[0]}")
        error.__cause__ = RuntimeError(printed)  # shown by --debug
        return error

    def _printed(self) -> str:
        self._log.seek(0)
        return self._log.read()
