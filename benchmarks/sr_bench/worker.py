"""The process in which one contender runs: `python -m sr_bench.worker`, started by `processes`.

It does what it is told, one JSON object a line on stdin, and answers each with one on stdout.
In between it sleeps, so that the others have the machine to themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_bench import environment, forms, meters, video
from sr_bench.contenders import opened
from sr_bench.forms import CallTimer, Stream
from sr_bench.jobs import WorkerSpec
from sr_bench.video import Video
from sr_deploy.bundle import schema
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import SrDeployError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_bench.forms import Form
    from sr_bench.jobs import Runner
    from sr_bench.meters import Meter

# It is warm when so many calls in a row were no faster than the fastest before, by this much.
_STEADY_CALLS = 5
_STEADY_GAIN = 0.02
# Then what is still drifting is measured as it is.
_LONGEST_FACTOR = 5


def main() -> int:
    """Answer until stdin ends."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    # What torch and its friends print must not come between the answers.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def answer(**value: object) -> None:
        answers.write(json.dumps(value) + "\n")
        answers.flush()

    try:
        job = schema.decode(WorkerSpec, json.loads(sys.stdin.readline()), "job")
        with contextlib.closing(opened(job)) as contender:
            channels = Bundle.open(job.bundle).manifest.model.channels
            worker = Worker(contender, channels, meters.meter(job.device))
            ran = contender.ran and dataclasses.asdict(contender.ran)
            answer(ran=ran, versions=environment.versions())
            for line in sys.stdin:
                answer(result=worker.do(**json.loads(line)))
    except (SrDeployError, OSError, MemoryError, ImportError) as error:
        traceback.print_exc()
        answer(error=type(error).__name__, text=str(error))
        return 1
    return 0


class Worker:
    """Runs one contender at one size."""

    def __init__(self, contender: Runner, channels: int, meter: Meter) -> None:
        self._contender = contender
        self._channels = channels
        self._meter = meter
        self._batches = np.empty((0, 0, 0, 0, 0), np.uint8)
        self._forms: dict[str, Form] = {}

    def do(self, what: str, **arguments: Any) -> object:
        """Do what a line on stdin asks for."""
        actions: dict[str, Callable[..., object]] = {
            "prepare": self.prepare,
            "add": self.add,
            "measure": self.measure,
            "stages": self.stages,
            "upscale": self.upscale,
        }
        return actions[what](**arguments)

    def prepare(
        self, width: int, height: int, batch: int, seconds: float, output: str
    ) -> dict[str, object]:
        """Make frames, write what becomes of the first batch, and warm up.

        Returns:
            The milliseconds of the first call, and the memory that was held at most until it was
            warm.
        """
        meters.forget_peak()
        self._batches = forms.inputs(width, height, self._channels, batch)
        self._forms = {}
        clock = self._contender.clock()
        first = clock(lambda: self._contender.upscale(self._batches[0]))
        # As it will be timed, which may not be how the first call was computed.
        np.save(output, self._contender.settle(self._batches[0]))
        calls = CallTimer(
            lambda index: self._contender.upscale(self._batches[index]), len(self._batches), clock
        )
        _warm_up(calls, seconds)
        self._forms["upscale"] = calls
        return {
            "first_ms": first,
            "peak_memory": meters.peak_memory(),
            "device_memory": self._contender.device_memory(),
        }

    def add(self, form: str, seconds: float) -> bool:
        """Prepare another form and warm it up; return whether this contender has it."""
        added = self._made(form)
        if added is None:
            return False
        if isinstance(added, CallTimer):
            _warm_up(added, seconds)
        else:
            added.turn(seconds)
        self._forms[form] = added
        return True

    def measure(self, form: str, seconds: float) -> dict[str, object]:
        """Return the milliseconds of as many calls as fit, and the energy of one."""
        self._meter.joules()
        start = time.perf_counter()
        samples = self._forms[form].turn(seconds)
        joules, taken = self._meter.joules(), time.perf_counter() - start
        # The turn's first call is not among the samples, but its energy is.
        calls = max(1e3 * taken / (sum(samples) / len(samples)), len(samples))
        return {
            "samples": [round(each, 4) for each in samples],
            "joules": None if joules is None else joules / calls,
        }

    def stages(self, form: str, seconds: float) -> dict[str, list[float]]:
        """Return the milliseconds of each stage of as many calls as fit, one at least.

        Nothing for a form that has no stages.
        """
        found: dict[str, list[float]] = {}
        end = time.monotonic() + seconds
        for batch in itertools.cycle(self._batches):
            for name, milliseconds in self._staged(form, batch).items():
                found.setdefault(name, []).append(round(milliseconds, 4))
            if not found or time.monotonic() >= end:
                break
        return found

    def upscale(self, frames: str, output: str) -> None:
        """Upscale a batch that is in a file into another."""
        np.save(output, self._contender.upscale(np.load(frames)))

    def _staged(self, form: str, batch: Any) -> dict[str, float]:
        if form == "upscale":
            return self._contender.staged(batch)
        whole = self._forms[form]
        return whole.stages() if isinstance(whole, Video) else {}

    def _made(self, form: str) -> Form | None:
        clock = self._contender.clock()
        if form == "network":
            call = self._contender.network(self._batches)
            return call and CallTimer(call, len(self._batches), clock)
        if form == "stream":
            overlaps = self._contender.through(iter(())) is not None
            return Stream(self._contender, self._batches) if overlaps else None
        return video.prepared(self._contender, self._batches)


def _warm_up(calls: CallTimer, seconds: float) -> None:
    """Call until it gets no faster, and for so long at least."""
    start = time.monotonic()
    least, most = start + seconds, start + _LONGEST_FACTOR * seconds
    fastest, steady = calls.one(), 0
    while (now := time.monotonic()) < least or (steady < _STEADY_CALLS and now < most):
        last = calls.one()
        steady = 0 if last < fastest * (1 - _STEADY_GAIN) else steady + 1
        fastest = min(fastest, last)


if __name__ == "__main__":
    sys.exit(main())
