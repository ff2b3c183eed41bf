"""The handle of a worker process."""

from __future__ import annotations

import contextlib
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_bench import meters
from sr_bench.configurations import interpreter_environment
from sr_bench.records import Configuration
from sr_deploy._worker import Worker, WorkerCrashError, WorkerLimitError
from sr_deploy.bundle import schema
from sr_deploy.errors import BackendError, OutOfMemoryError, SrDeployError

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
        variables = self._stack.enter_context(interpreter_environment(python))
        self._worker = self._stack.enter_context(
            Worker(
                "sr_bench.worker",
                BackendError,
                python=python,
                environment=variables | spec.environment(),
            )
        )
        start = time.perf_counter()
        try:
            started = self._call("start", **dataclasses.asdict(spec))
        except BaseException:
            self.close()
            raise
        self.start_seconds = time.perf_counter() - start
        self.versions: dict[str, str] = started["versions"]
        resolved = started["resolved"]
        self.resolved = resolved and schema.decode(Configuration, resolved, "resolved")

    def prepare(self, size: Size, batch: int) -> NDArray[np.uint8]:
        """Make the first calls at a size; return the output for the first batch."""
        width, height = size
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "output.npy")
            arguments = {"width": width, "height": height, "batch": batch, "output": path}
            result = self._call("prepare", **arguments)
            output: NDArray[np.uint8] = np.load(path)
        self.first_ms, self.call_ms = result["first_ms"], result["call_ms"]
        return output

    def warm_up(self, seconds: float) -> tuple[int | None, int | None]:
        """Warm up; return the peak memory of the process and its GPU memory, in bytes."""
        result = self._call("warm_up", seconds=seconds)
        device_memory = result["device_memory"]
        if device_memory is None and self.spec.device != "cpu" and self._worker.pid is not None:
            device_memory = meters.gpu_memory(self._worker.pid)
        return result["peak_memory"], device_memory

    def add(self, mode: Mode, seconds: float) -> bool:
        """Add a mode; return whether the configuration supports it."""
        return bool(self._call("add", mode=mode, seconds=seconds))

    def measure(self, mode: Mode, seconds: float) -> tuple[tuple[float, ...], float | None]:
        """Return the milliseconds of calls for a time, and the energy per call if known."""
        result = self._call("measure", mode=mode, seconds=seconds)
        return tuple(result["samples"]), result["joules"]

    def stages(self, mode: Mode, seconds: float) -> dict[str, tuple[float, ...]]:
        """Return the milliseconds of the stages of calls for a time; empty: no stages."""
        result = self._call("stages", mode=mode, seconds=seconds)
        return {name: tuple(values) for name, values in result.items()}

    def upscale(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return an image (H, W, C) upscaled."""
        with tempfile.TemporaryDirectory() as folder:
            frames, output = (str(Path(folder) / f"{name}.npy") for name in ("in", "out"))
            np.save(frames, image[None])
            self._call("upscale", frames=frames, output=output)
            found: NDArray[np.uint8] = np.load(output)[0]
        return found

    def close(self) -> None:
        """End the process."""
        self._stack.close()

    def _call(self, function: str, **arguments: Any) -> Any:
        name = self.spec.configuration
        try:
            return self._worker.call(function, **arguments)
        except SrDeployError as error:
            raise type(error)(f"{name}: {error}") from error.__cause__
        except WorkerCrashError as crash:
            raise BackendError(f"{name}: worker died ({crash.cause}): {crash.last_line}") from crash
        except WorkerLimitError as limit:
            raise OutOfMemoryError(f"{name}: worker took more than {limit}") from limit
        except OSError as error:
            raise BackendError(f"{name}: the interpreter cannot start: {error}") from error
