"""The handle of a worker process."""

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

from sr_bench import meters
from sr_bench.configurations import interpreter_environment
from sr_bench.records import Configuration
from sr_deploy import errors
from sr_deploy.bundle import schema
from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_bench.configurations import WorkerSpec
    from sr_bench.records import Mode, Size


class WorkerProcess:
    """A configuration in its own process, which measures on request and otherwise sleeps.

    Args:
        spec: The configuration.
        python: The interpreter; None: this one.

    Raises:
        SrDeployError: The process or its runner cannot start.

    Attributes:
        start_seconds: Seconds until the runner was ready.
        resolved: What the default resolved to.
        versions: Package versions of its interpreter.
        first_ms: Milliseconds of the first call; from `prepare` on.
        call_ms: Milliseconds of a later call; from `prepare` on.
    """

    def __init__(self, spec: WorkerSpec, python: str | None = None) -> None:
        self.spec = spec
        self.first_ms = self.call_ms = 0.0
        self._stack = contextlib.ExitStack()
        self._log = self._stack.enter_context(
            tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115
        )
        variables = self._stack.enter_context(interpreter_environment(python))
        start = time.perf_counter()
        try:
            self._process = subprocess.Popen(
                [python or sys.executable, "-m", "sr_bench.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
                encoding="utf-8",
                env=variables | spec.environment(),
            )
        except OSError as error:
            self._stack.close()
            raise BackendError(f"{python}: cannot start: {error}") from error
        try:
            answer = self._request(**dataclasses.asdict(spec))
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start
        self.versions: dict[str, str] = answer["versions"]
        resolved = answer["resolved"]
        self.resolved = resolved and schema.decode(Configuration, resolved, "resolved")

    def prepare(self, size: Size, batch: int) -> NDArray[np.uint8]:
        """Make the first calls at a size; return the output for the first batch."""
        width, height = size
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "output.npy")
            arguments = {"width": width, "height": height, "batch": batch, "output": path}
            result = self._request(action="prepare", **arguments)["result"]
            output: NDArray[np.uint8] = np.load(path)
        self.first_ms, self.call_ms = result["first_ms"], result["call_ms"]
        return output

    def warm_up(self, seconds: float) -> tuple[int | None, int | None]:
        """Warm up; return the peak memory of the process and its GPU memory, in bytes."""
        result = self._request(action="warm_up", seconds=seconds)["result"]
        device_memory = result["device_memory"]
        if device_memory is None and self.spec.device != "cpu":
            device_memory = meters.gpu_memory(self._process.pid)
        return result["peak_memory"], device_memory

    def add(self, mode: Mode, seconds: float) -> bool:
        """Add a mode; return whether the configuration supports it."""
        return bool(self._request(action="add", mode=mode, seconds=seconds)["result"])

    def measure(self, mode: Mode, seconds: float) -> tuple[tuple[float, ...], float | None]:
        """Return the milliseconds of calls for a time, and the energy per call if known."""
        result = self._request(action="measure", mode=mode, seconds=seconds)["result"]
        return tuple(result["samples"]), result["joules"]

    def stages(self, mode: Mode, seconds: float) -> dict[str, tuple[float, ...]]:
        """Return the milliseconds of the stages of calls for a time; empty: no stages."""
        result = self._request(action="stages", mode=mode, seconds=seconds)["result"]
        return {name: tuple(values) for name, values in result.items()}

    def upscale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image (H, W, C) upscaled."""
        with tempfile.TemporaryDirectory() as folder:
            frames, output = (str(Path(folder) / f"{name}.npy") for name in ("in", "out"))
            np.save(frames, image[None])
            self._request(action="upscale", frames=frames, output=output)
            found: NDArray[np.uint8] = np.load(output)[0]
        return found

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._stack.close()

    def _request(self, **request: object) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):  # the missing answer is reported below
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise self._died()
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            kind = getattr(errors, answer["error"], BackendError)
            name = self.spec.configuration
            raise kind(f"{name}: {answer['text']}") from RuntimeError(self._output())
        return answer

    def _died(self) -> BackendError:
        code = self._process.wait()
        cause = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        output = self._output()
        last = output.strip().splitlines()[-1:] or ["no message"]
        error = BackendError(f"{self.spec.configuration}: worker died ({cause}): {last[0]}")
        error.__cause__ = RuntimeError(output)  # for --debug
        return error

    def _output(self) -> str:
        self._log.seek(0)
        return self._log.read()
