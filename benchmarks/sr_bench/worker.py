"""The worker process of one configuration; `process` starts it and calls it.

Between calls it sleeps, so that other workers have the machine to themselves.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_bench import environment, meters
from sr_bench.configurations import WorkerSpec
from sr_bench.timers import CallTimer, StreamTimer, VideoTimer, input_batches, video_timer
from sr_deploy import _worker
from sr_deploy.bundle import schema
from sr_deploy.bundle.bundle import Bundle

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_bench.meters import Meter
    from sr_bench.timers import Runner, Timer

# The warm-up ends when this many successive calls were not faster than the fastest before ...
_STEADY_CALLS = 5
# ... by more than this share, or after this multiple of its minimum time.
_STEADY_GAIN = 0.02
_MAX_FACTOR = 5


_ACTIONS = ("prepare", "warm_up", "add", "measure", "stages", "upscale")


def main() -> None:
    """Answer calls until the parent ends."""
    started: list[BenchWorker] = []

    def start(progress: object, **fields: Any) -> dict[str, Any]:
        """Open a runner; return what the default resolved to, and the package versions."""
        spec = schema.decode(WorkerSpec, fields, "worker")
        runner = open_runner(spec)
        channels = Bundle.open(spec.bundle).manifest.model.channels
        started.append(BenchWorker(runner, channels, meters.meter(spec.device)))
        resolved = runner.resolved and dataclasses.asdict(runner.resolved)
        return {"resolved": resolved, "versions": environment.versions()}

    def action(name: str) -> Callable[..., object]:
        return lambda progress, **arguments: getattr(started[0], name)(**arguments)

    _worker.serve({"start": start} | {name: action(name) for name in _ACTIONS})


def open_runner(spec: WorkerSpec) -> Runner:
    """Return the runner of a configuration."""
    # Separate imports: this interpreter may lack the packages of the other runner.
    if spec.configuration.runtime == "torch":
        from sr_bench.torch_runner import TorchRunner

        return TorchRunner(spec)
    from sr_bench.engine_runner import EngineRunner

    return EngineRunner(spec)


class BenchWorker:
    """Runs one configuration at one size."""

    def __init__(self, runner: Runner, channels: int, meter: Meter) -> None:
        self._runner = runner
        self._channels = channels
        self._meter = meter
        self._batches = np.empty((0, 0, 0, 0, 0), np.uint8)
        self._timers: dict[str, Timer] = {}

    def prepare(self, width: int, height: int, batch: int, output: str) -> dict[str, float]:
        """Create input frames and save the output for the first batch.

        Returns:
            Milliseconds of the first call, and of a later one.
        """
        meters.reset_peak()
        self._batches = input_batches(width, height, self._channels, batch)
        clock = self._runner.clock()
        first = clock(lambda: self._runner.upscale(self._batches[0]))
        # The settled output, since that is the computation that will be timed.
        np.save(output, self._runner.settle(self._batches[0]))
        calls = CallTimer(
            lambda index: self._runner.upscale(self._batches[index]), len(self._batches), clock
        )
        self._timers = {"upscale": calls}
        return {"first_ms": first, "call_ms": calls.one()}

    def warm_up(self, seconds: float) -> dict[str, int | None]:
        """Warm up; return the peak memory so far."""
        calls = self._timers["upscale"]
        assert isinstance(calls, CallTimer)
        _warm_up(calls, seconds)
        return {
            "peak_memory": meters.peak_memory(),
            "device_memory": self._runner.device_memory(),
        }

    def add(self, mode: str, seconds: float) -> bool:
        """Add a mode and warm it up; return whether the configuration supports it."""
        timer = self._timer(mode)
        if timer is None:
            return False
        if isinstance(timer, CallTimer):
            _warm_up(timer, seconds)
        else:
            timer.measure(seconds)
        self._timers[mode] = timer
        return True

    def measure(self, mode: str, seconds: float) -> dict[str, object]:
        """Return the milliseconds of calls for a time, and the energy per call."""
        self._meter.joules()
        start = time.perf_counter()
        samples = self._timers[mode].measure(seconds)
        joules, taken = self._meter.joules(), time.perf_counter() - start
        # The first call is not among the samples, but it uses energy.
        calls = max(1e3 * taken / (sum(samples) / len(samples)), len(samples))
        return {
            "samples": [round(each, 4) for each in samples],
            "joules": None if joules is None else joules / calls,
        }

    def stages(self, mode: str, seconds: float) -> dict[str, list[float]]:
        """Return the milliseconds of the stages of calls for a time; empty: no stages."""
        found: dict[str, list[float]] = {}
        end = time.monotonic() + seconds
        for batch in itertools.cycle(self._batches):
            for name, milliseconds in self._stages(mode, batch).items():
                found.setdefault(name, []).append(round(milliseconds, 4))
            if not found or time.monotonic() >= end:
                break
        return found

    def upscale(self, frames: str, output: str) -> None:
        """Upscale the batch in one file into another."""
        np.save(output, self._runner.upscale(np.load(frames)))

    def _stages(self, mode: str, batch: Any) -> dict[str, float]:
        if mode == "upscale":
            return self._runner.stages(batch)
        timer = self._timers[mode]
        return timer.stages() if isinstance(timer, VideoTimer) else {}

    def _timer(self, mode: str) -> Timer | None:
        if mode == "network":
            call = self._runner.network(self._batches)
            return call and CallTimer(call, len(self._batches), self._runner.clock())
        if mode == "stream":
            supported = self._runner.stream(iter(())) is not None
            return StreamTimer(self._runner, self._batches) if supported else None
        return video_timer(self._runner, self._batches)


def _warm_up(calls: CallTimer, seconds: float) -> None:
    """Call for a minimum time and until calls get no faster."""
    start = time.monotonic()
    least, most = start + seconds, start + _MAX_FACTOR * seconds
    fastest, steady = calls.one(), 0
    while (now := time.monotonic()) < least or (steady < _STEADY_CALLS and now < most):
        last = calls.one()
        steady = 0 if last < fastest * (1 - _STEADY_GAIN) else steady + 1
        fastest = min(fastest, last)


if __name__ == "__main__":
    main()
