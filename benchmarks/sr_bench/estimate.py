"""The estimated time of a benchmark, from one timed call of each configuration."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.cli import console

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_bench.configurations import SizePlan
    from sr_bench.records import SpeedOptions

_WARM_UP_CALLS = 7
"""Calls after which most warm-ups are steady."""
_MAX_WARM_UP = 5
_MODE_WARM_UP = 0.3


@dataclass(frozen=True)
class Probe:
    """The observed start of one configuration."""

    open_seconds: float
    """Seconds to start the process and make the first calls."""
    call_ms: float
    """Milliseconds of a call."""
    pixels: int
    """Input pixels of that call."""

    def call_seconds(self, pixels: int) -> float:
        """Return the seconds of a call with another number of pixels."""
        return self.call_ms / 1e3 * pixels / self.pixels


def measuring_seconds(call: float, modes: int, options: SpeedOptions) -> float:
    """Return the seconds to warm up and measure a configuration whose call takes `call` seconds."""

    def warm_up(least: float) -> float:
        calls = min(_WARM_UP_CALLS * call, _MAX_WARM_UP * least + call)
        return max(least + call, calls)

    turn = math.ceil(max(options.turn_seconds, 1e-9) / call) * call
    rounds = options.rounds * (1 + modes) * (options.rest_seconds + call + turn)
    further = modes * warm_up(_MODE_WARM_UP * options.warm_up_seconds)
    return warm_up(options.warm_up_seconds) + further + rounds + turn


class Schedule:
    """The progress of a benchmark and the estimated time that is left.

    Args:
        plans: All that will be measured.
        options: How.
        progress: The line on the terminal.
        clock: Returns seconds.
    """

    def __init__(
        self,
        plans: Sequence[SizePlan],
        options: SpeedOptions,
        progress: console.Progress,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plans = plans
        self._options = options
        self._progress = progress
        self._clock = clock
        self._end: float | None = None

    def announce(self, probes: Sequence[Probe], ceiling_seconds: float = 0.0) -> float | None:
        """Estimate and print the remaining time, the first time that this is called.

        Args:
            probes: One for each opened configuration of the first plan.
            ceiling_seconds: Seconds that measuring the ceilings will take.

        Returns:
            The estimated seconds; None: already announced.
        """
        if self._end is not None:
            return None
        seconds = ceiling_seconds + sum(self._plan_seconds(each, probes) for each in self._plans)
        # The configurations of the first plan are open already.
        seconds -= sum(each.open_seconds for each in probes)
        self._end = self._clock() + seconds
        count = max(len(each.specs) for each in self._plans)
        sizes = f"{len(self._plans)} size{'s' if len(self._plans) > 1 else ''}"
        what = f"{count} configurations, {sizes}, {self._options.rounds} rounds"
        more = "; --full measures more" if self._options.quick else ""
        console.complain("sr-bench", f"about {console.clock(seconds)} to go: {what}{more}")
        return seconds

    def show(self, text: str) -> None:
        """Show the current step and the remaining time."""
        if self._end is not None:
            text = f"{console.clock(max(0.0, self._end - self._clock()))} left  {text}"
        self._progress.stage(text)

    def _plan_seconds(self, plan: SizePlan, probes: Sequence[Probe]) -> float:
        pixels = math.prod(plan.size) * plan.batch
        modes = len(plan.modes)
        known = [
            each.open_seconds
            + 3 * (each.call_seconds(pixels) - each.call_ms / 1e3)
            + measuring_seconds(each.call_seconds(pixels), modes, self._options)
            for each in probes
        ]
        # Where memory is short, not all configurations are open when the time is announced.
        return sum(known) + statistics.fmean(known) * max(0, len(plan.specs) - len(known))
