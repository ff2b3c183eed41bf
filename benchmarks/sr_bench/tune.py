"""The search for the fastest tile, batch of tiles, lanes and threads on this machine.

Settings are searched one after the other, each against the best so far. Engines are measured in
turns, and a setting is accepted only if its gain exceeds the noise: a search on a busy machine
accepts little, and nothing wrong. A lane is one stream of the backend, so the number of lanes is
the number of frames computed at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sr_bench import engine_runner, intervals
from sr_bench.records import size_text
from sr_bench.tables import Table
from sr_bench.timers import input_batches, wall_clock
from sr_deploy import backends, machine
from sr_deploy.bundle import tuning
from sr_deploy.bundle.tuning import NAME, Tuning, TuningEntry
from sr_deploy.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from sr_bench.intervals import Interval
    from sr_bench.records import Size
    from sr_deploy.bundle.bundle import Bundle
    from sr_deploy.bundle.tuning import Goal
    from sr_deploy.cli.console import Progress
    from sr_deploy.engine import Spec

__all__ = ["NAME", "TuneRequest", "TuneSearch", "TuneTrial", "save", "search", "text"]

_TILES = (768, 512, 384, 256)
_BATCHES = (2, 4)
_WARM_UP_FRAMES = 4


@dataclass(frozen=True)
class TuneRequest:
    """The requested tuning."""

    goal: Goal
    size: Size
    backend: str
    precision: str
    memory: str | None
    rounds: int
    turn_seconds: float


@dataclass(frozen=True)
class TuneTrial:
    """One candidate, measured against the best before it."""

    setting: str
    """The setting that it changes: "lanes", "threads", "tile" or "batch"."""
    tuning: Tuning
    speedup: Interval
    """Speedup over the best before."""
    accepted: bool


@dataclass(frozen=True)
class TuneSearch:
    """The trials and the result of a search."""

    request: TuneRequest
    spec: Spec
    """Spec of the tuned engine."""
    trials: tuple[TuneTrial, ...]

    @property
    def best(self) -> Tuning:
        """The last accepted candidate."""
        return next((each.tuning for each in reversed(self.trials) if each.accepted), Tuning())

    @property
    def gains(self) -> dict[str, float]:
        """The speedup of each setting."""
        found = dict.fromkeys((each.setting for each in self.trials), 1.0)
        return found | {each.setting: each.speedup.value for each in self.trials if each.accepted}


def search(
    bundle: Bundle,
    request: TuneRequest,
    progress: Progress,
    measure: Callable[[Sequence[Tuning]], list[list[float]]] | None = None,
) -> TuneSearch:
    """Search one setting after the other.

    Args:
        bundle: The bundle to tune.
        request: Goal, size and engine.
        progress: Shows the current setting.
        measure: Takes candidates and returns for each the milliseconds of a frame in each round;
            None: engines are measured in turns.

    Raises:
        SrDeployError: The engine cannot be opened, or cannot upscale such frames.
    """
    with _engine(bundle, request, Tuning()) as engine:
        spec = engine.spec
    measure = measure or (lambda candidates: _times(bundle, request, candidates))
    best, trials = Tuning(), []
    for setting, candidates_for in _steps(request):
        candidates = candidates_for(best)
        if not candidates:
            continue
        progress.stage(f"{setting}: measuring {len(candidates)} candidates")
        before, *times = measure([best, *candidates])
        speedups = [intervals.quotient(before, each, paired=True) for each in times]
        winner = max(range(len(times)), key=lambda i: speedups[i].value)
        for i, candidate in enumerate(candidates):
            accepted = i == winner and speedups[i].low > 1
            trials.append(TuneTrial(setting, candidate, speedups[i], accepted))
            best = candidate if accepted else best
    return TuneSearch(request, spec, tuple(trials))


def save(bundle: Bundle, found: TuneSearch) -> None:
    """Write the result into the tuning record of the bundle.

    Raises:
        BundleError: The existing record is invalid.
    """
    entry = TuningEntry(
        tuning=found.best,
        goal=found.request.goal,
        size=found.request.size,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        gains={name: round(gain, 3) for name, gain in found.gains.items()},
    )
    backend = backends.name_and_version(found.spec.backend)
    tuning.keep(bundle.folder, tuning.key(backend, found.spec.precision), entry)


def text(found: TuneSearch) -> str:
    """Return the trials and the result for the terminal."""
    rows = tuple(
        (
            f"{each.setting} {_shown(getattr(each.tuning, each.setting))}",
            f"{each.speedup.value:.2f}",
            f"{each.speedup.low:.2f} to {each.speedup.high:.2f}",
            "accepted" if each.accepted else "",
        )
        for each in found.trials
    )
    best, spec = found.best, found.spec
    result = ", ".join(
        f"{field.name} {_shown(getattr(best, field.name))}"
        for field in dataclasses.fields(best)
        if getattr(best, field.name) != field.default
    )
    return (
        f"{Table(('candidate', 'speedup', '95 % interval', ''), rows).text()}\n\n"
        f"Fastest settings for {found.request.goal} at {size_text(found.request.size)} with "
        f"{spec.backend} {spec.precision}: {result or 'the defaults of the engine'}."
    )


def _steps(request: TuneRequest) -> Iterator[tuple[str, Callable[[Tuning], list[Tuning]]]]:
    """Yield each setting with its candidates, given the best so far."""
    cores = machine.cores()
    if request.goal == "throughput":
        lanes = sorted({each for each in (2, cores // 2, cores) if 1 < each <= cores})
        yield "lanes", lambda best: [dataclasses.replace(best, lanes=each) for each in lanes]
    processors = os.cpu_count() or cores
    threads = sorted({cores - 1, processors} - {0, cores})
    yield "threads", lambda best: [dataclasses.replace(best, threads=each) for each in threads]
    width, height = request.size
    sides = [each for each in _TILES if each < max(request.size)]
    tiles = list(dict.fromkeys((min(each, height), min(each, width)) for each in sides))
    yield "tile", lambda best: [dataclasses.replace(best, tile=each) for each in tiles]
    # Batches need a tile: the accepted one, or the smallest.
    yield (
        "batch",
        lambda best: [
            dataclasses.replace(best, tile=best.tile or tiles[-1], batch=each)
            for each in (_BATCHES if tiles else ())
        ],
    )


def _times(bundle: Bundle, request: TuneRequest, candidates: Sequence[Tuning]) -> list[list[float]]:
    """Return the milliseconds of a frame of each candidate, by round, measured in turns."""
    frames = input_batches(*request.size, bundle.manifest.model.channels, 1)[:, 0]
    with contextlib.ExitStack() as stack:
        engines = []
        for each in candidates:
            engine = stack.enter_context(_engine(bundle, request, each))
            engines.append(engine)
            for _ in range(_WARM_UP_FRAMES):
                engine_runner.settle(engine)
                _measure(engine, request.goal, frames, 0.0)
        found: list[list[float]] = [[] for _ in engines]
        for _ in range(request.rounds):
            for engine, times in zip(engines, found, strict=True):
                times.append(_measure(engine, request.goal, frames, request.turn_seconds))
    return found


def _engine(bundle: Bundle, request: TuneRequest, tuning: Tuning) -> Engine:
    return Engine(
        bundle.folder,
        backend=request.backend,
        precision=request.precision,
        memory=request.memory,
        tuning=tuning,
    )


def _measure(engine: Engine, goal: Goal, frames: NDArray[Any], seconds: float) -> float:
    """Return the milliseconds of a frame: the median of single frames, or the mean of a stream."""
    coming = _cycled(frames, time.monotonic() + seconds, 2 * engine.spec.lanes)
    if goal == "latency":
        return statistics.median(
            wall_clock(functools.partial(engine.upscale, frame)) for frame in coming
        )
    start, count = time.perf_counter(), 0
    for _ in engine.stream(coming, reuse=True):
        count += 1
    return 1e3 * (time.perf_counter() - start) / count


def _cycled(frames: NDArray[Any], end: float, minimum: int) -> Iterator[NDArray[Any]]:
    count = 0
    while count < minimum or time.monotonic() < end:
        yield frames[count % len(frames)]
        count += 1


def _shown(value: object) -> str:
    return "{1}x{0}".format(*value) if isinstance(value, tuple) else str(value)
