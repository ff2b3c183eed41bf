"""The estimated time is right within a factor of 1.5, for simulated configurations."""

from __future__ import annotations

import itertools
import random

import pytest

from sr_bench.configurations import SizePlan, WorkerSpec
from sr_bench.estimate import Probe, Schedule, measuring_seconds
from sr_bench.records import Configuration, SpeedOptions
from sr_deploy.cli.console import Progress

QUICK = SpeedOptions(2, 1.0, 5, 0.5, 0.1, quick=True)
FULL = SpeedOptions(2, 3.0, 10, 1.0, 0.1)
SPEC = WorkerSpec(Configuration("sr-deploy", "auto", "auto"), "", None, 1)


class Simulation:
    """A machine whose calls take a time with noise, and which does what workers do."""

    def __init__(self, call: float, noise: float = 0.1) -> None:
        self.now = 0.0
        self._call, self._noise = call, noise
        self._random = random.Random(0)

    def one(self) -> float:
        spent = self._call * self._random.uniform(1 - self._noise, 1 + self._noise)
        self.now += spent
        return spent

    def warm_up(self, seconds: float) -> None:
        """At least so long, and until five calls were no faster, up to five times as long."""
        start, fastest, steady = self.now, self.one(), 0
        while self.now - start < seconds or (steady < 5 and self.now - start < 5 * seconds):
            last = self.one()
            steady = 0 if last < 0.98 * fastest else steady + 1
            fastest = min(fastest, last)

    def turn(self, seconds: float) -> None:
        """An untimed call, then calls for a time."""
        self.one()
        end = self.now + seconds
        self.one()
        while self.now < end:
            self.one()

    def run(self, options: SpeedOptions, modes: int) -> float:
        start = self.now
        self.warm_up(options.warm_up_seconds)
        for _ in range(modes):
            self.warm_up(0.3 * options.warm_up_seconds)
        for _ in range(options.rounds * (1 + modes)):
            self.now += options.rest_seconds
            self.turn(options.turn_seconds)
        self.turn(options.turn_seconds)  # the stages
        return self.now - start


@pytest.mark.parametrize("options", [QUICK, FULL], ids=["quick", "full"])
@pytest.mark.parametrize("call", [0.001, 0.03, 0.2, 0.7, 3.0, 20.0])
@pytest.mark.parametrize("modes", [0, 2])
def test_the_time_of_a_configuration_is_estimated(
    options: SpeedOptions, call: float, modes: int
) -> None:
    simulated = Simulation(call).run(options, modes)
    assert 1 / 1.5 <= measuring_seconds(call, modes, options) / simulated <= 1.5


def test_the_estimate_covers_all_configurations_and_sizes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two sizes, the second with four times the pixels; four configurations, two of them open."""
    calls = [0.5, 0.05]
    plans = [SizePlan([SPEC] * 4, size) for size in ((100, 100), (200, 200))]
    with Progress() as progress:
        schedule = Schedule(plans, FULL, progress, clock=lambda: 0.0)
        probes = [Probe(2.0, 1e3 * each, 10_000) for each in calls]
        seconds = schedule.announce(probes, ceiling_seconds=15.0)
        assert schedule.announce(probes) is None
    assert seconds is not None
    simulated = 15.0 + 6 * 2.0  # ceilings; starts of all but the two that are open
    for call, factor in itertools.product(calls, (1, 4)):
        simulated += 2 * Simulation(factor * call).run(FULL, 0)
    assert 1 / 1.5 <= seconds / simulated <= 1.5
    (line,) = capsys.readouterr().err.splitlines()
    assert "4 configurations" in line
    assert "10 rounds" in line
