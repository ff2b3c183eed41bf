"""The process in which one contender runs: `python -m sr_bench.worker`, started by `speed`.

It does what it is told, one JSON object a line on stdin, and answers each with one on stdout.
In between it sleeps, so that the others have the machine to themselves.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_bench.contenders import Job, opened
from sr_deploy import strict
from sr_deploy.bundle import Bundle
from sr_deploy.errors import SrDeployError
from sr_export import samples

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_bench.contenders import Upscale

# So many different frames take turns, so that none is in the cache when its turn comes.
_FRAMES = 4
# It is warm when so many frames in a row were no faster than the fastest before, by this much.
_STEADY_FRAMES = 5
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
        job = strict.decode(Job, json.loads(sys.stdin.readline()), "job")
        with opened(job) as upscale:
            runner = Runner(upscale, Bundle.open(job.bundle).manifest.model.channels)
            answer(ready=True)
            for line in sys.stdin:
                answer(result=runner.do(**json.loads(line)))
    except (SrDeployError, OSError, MemoryError) as error:
        traceback.print_exc()
        answer(error=type(error).__name__, text=str(error))
        return 1
    return 0


class Runner:
    """Runs one contender on frames of one size at a time."""

    def __init__(self, upscale: Upscale, channels: int) -> None:
        self._upscale = upscale
        self._channels = channels
        self._frames = np.empty((0, 0, 0, 0), np.uint8)
        self._next = 0

    def do(self, what: str, **arguments: Any) -> object:
        """Do what a line on stdin asks for."""
        actions: dict[str, Callable[..., object]] = {
            "prepare": self.prepare,
            "measure": self.measure,
        }
        return actions[what](**arguments)

    def prepare(self, width: int, height: int, seconds: float, output: str) -> None:
        """Make frames, write the first one's output, and warm up.

        A backend may compile itself for a size once it has run long enough on it, so there is a
        least time beside the wait for steadiness.
        """
        self._frames = samples.batch(_FRAMES, height, width, self._channels)
        self._next = 0
        np.save(output, self._upscale(self._frames[0]))
        start = time.monotonic()
        least, most = start + seconds, start + _LONGEST_FACTOR * seconds
        fastest, steady = self._frame(), 0
        while (now := time.monotonic()) < least or (steady < _STEADY_FRAMES and now < most):
            last = self._frame()
            steady = 0 if last < fastest * (1 - _STEADY_GAIN) else steady + 1
            fastest = min(fastest, last)

    def measure(self, seconds: float) -> list[float]:
        """Return the milliseconds of as many frames as fit, one at least.

        One frame goes before them unmeasured, since the caches are full of what others did.
        """
        self._frame()
        end = time.monotonic() + seconds
        found = [self._frame()]
        while time.monotonic() < end:
            found.append(self._frame())
        return [round(each, 4) for each in found]

    def _frame(self) -> float:
        frame = self._frames[self._next]
        self._next = (self._next + 1) % len(self._frames)
        start = time.perf_counter()
        self._upscale(frame)
        return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    sys.exit(main())
