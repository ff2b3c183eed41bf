"""The processes in which contenders run, seen from the one that measures."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_bench import interpreters, meters
from sr_bench.records import Configuration
from sr_deploy import errors
from sr_deploy.bundle import schema
from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_bench.jobs import WorkerSpec
    from sr_bench.records import Mode, Size


class WorkerProcess:
    """A contender in its process, which measures when told and else sleeps.

    Args:
        job: what runs there.
        python: the interpreter; None: the one that runs this.

    Raises:
        SrDeployError: it cannot be started; the text says why.

    Attributes:
        start_seconds: From nothing to ready.
        ran: What the default turned out to be.
        versions: Of its interpreter's packages.
    """

    def __init__(self, job: WorkerSpec, python: str | None = None) -> None:
        self.job = job
        self._stack = contextlib.ExitStack()
        self._log = self._stack.enter_context(
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        )
        variables = self._stack.enter_context(interpreters.environment(python))
        start = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                [python or sys.executable, "-m", "sr_bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                encoding="utf-8",
                env=variables | job.environment(),
            )
        except OSError as error:
            self._stack.close()
            raise BackendError(f"{python}: cannot be started: {error}") from error
        try:
            answer = self._ask(**dataclasses.asdict(job))
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start
        self.versions: dict[str, str] = answer["versions"]
        ran = answer["ran"]
        self.ran = None if ran is None else schema.decode(Configuration, ran, "ran")

    def prepare(
        self, size: Size, batch: int, seconds: float
    ) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        """Warm up at a size; return what the first batch became, and what the worker says."""
        width, height = size
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "output.npy")
            told = self._ask(
                what="prepare",
                width=width,
                height=height,
                batch=batch,
                seconds=seconds,
                output=path,
            )["result"]
            output: NDArray[np.uint8] = np.load(path)
        if told["device_memory"] is None and self.job.device != "cpu":
            told["device_memory"] = meters.gpu_memory(self._process.pid)
        return output, told

    def add(self, form: Mode, seconds: float) -> bool:
        """Prepare another form; return whether the contender has it."""
        return bool(self._ask(what="add", form=form, seconds=seconds)["result"])

    def measure(self, form: Mode, seconds: float) -> tuple[tuple[float, ...], float | None]:
        """Return the milliseconds of calls, for so long, and the energy of one, if it is told."""
        told = self._ask(what="measure", form=form, seconds=seconds)["result"]
        return tuple(told["samples"]), told["joules"]

    def stages(self, form: Mode, seconds: float) -> dict[str, tuple[float, ...]]:
        """Return the milliseconds of the stages of calls, for so long; empty: it has none."""
        answer = self._ask(what="stages", form=form, seconds=seconds)
        found: dict[str, list[float]] = answer["result"]
        return {name: tuple(values) for name, values in found.items()}

    def upscale(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image (H, W, C) upscaled."""
        with tempfile.TemporaryDirectory() as folder:
            frames, output = (str(Path(folder) / f"{name}.npy") for name in ("in", "out"))
            np.save(frames, frame[None])
            self._ask(what="upscale", frames=frames, output=output)
            found: NDArray[np.uint8] = np.load(output)[0]
        return found

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._stack.close()

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
