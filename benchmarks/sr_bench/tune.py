"""The search for the tile, the batch, the lanes and the threads that are fastest here.

One thing is tried after the other, each against the best so far: engines take turns, and a choice
is only taken where it wins beyond noise. So a search on a busy machine finds little, and nothing
wrong. A lane is one stream of the backend: as many frames are computed at once as there are lanes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sr_bench import engine_runner, forms, intervals
from sr_bench.records import size_text
from sr_bench.tables import Table
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

__all__ = ["NAME", "TuneRequest", "TuneSearch", "TuneTrial", "keep", "search", "text"]

_TILES = (768, 512, 384, 256)
_BATCHES = (2, 4)
_WARM_UP_FRAMES = 4


@dataclass(frozen=True)
class TuneRequest:
    """What the user wants tuned."""

    goal: Goal
    size: Size
    backend: str
    precision: str
    memory: str | None
    rounds: int
    turn_seconds: float


@dataclass(frozen=True)
class TuneTrial:
    """One choice that was tried against the best before it."""

    what: str
    """Which choice it is about: "lanes", "threads", "tile" or "batch"."""
    tuning: Tuning
    faster: Interval
    """How many times faster it was than the best before."""
    taken: bool


@dataclass(frozen=True)
class TuneSearch:
    """What was tried, and what was found."""

    wish: TuneRequest
    spec: Spec
    """Of the engine that was tuned."""
    trials: tuple[TuneTrial, ...]

    @property
    def best(self) -> Tuning:
        """The last choice that was taken."""
        return next((each.tuning for each in reversed(self.trials) if each.taken), Tuning())

    @property
    def gains(self) -> dict[str, float]:
        """How many times faster each choice made it."""
        found = dict.fromkeys((each.what for each in self.trials), 1.0)
        return found | {each.what: each.faster.value for each in self.trials if each.taken}


def search(
    bundle: Bundle,
    wish: TuneRequest,
    progress: Progress,
    measure: Callable[[Sequence[Tuning]], list[list[float]]] | None = None,
) -> TuneSearch:
    """TuneSearch, one thing after the other.

    Args:
        bundle: whose network is tuned.
        wish: what the user wants.
        progress: told what is being tried.
        measure: takes choices, and returns for each of them the milliseconds of a frame in each
            round; None: engines take turns.

    Raises:
        SrDeployError: the engine cannot be had, or cannot upscale such frames.
    """
    with _engine(bundle, wish, Tuning()) as engine:
        spec = engine.spec
    measure = measure or (lambda choices: _times(bundle, wish, choices))
    best, trials = Tuning(), []
    for what, choices in _steps(wish):
        candidates = choices(best)
        if not candidates:
            continue
        progress.stage(f"trying {len(candidates)} choices of {what}")
        before, *times = measure([best, *candidates])
        compared = [intervals.quotient(before, each, paired=True) for each in times]
        winner = max(range(len(times)), key=lambda i: compared[i].value)
        for i, candidate in enumerate(candidates):
            taken = i == winner and compared[i].low > 1
            trials.append(TuneTrial(what, candidate, compared[i], taken))
            best = candidate if taken else best
    return TuneSearch(wish, spec, tuple(trials))


def keep(bundle: Bundle, found: TuneSearch) -> None:
    """Write what was found into the bundle's tuning record.

    Raises:
        BundleError: the record that is there does not hold.
    """
    entry = TuningEntry(
        tuning=found.best,
        goal=found.wish.goal,
        size=found.wish.size,
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        gains={name: round(gain, 3) for name, gain in found.gains.items()},
    )
    backend = backends.name_and_version(found.spec.backend)
    tuning.keep(bundle.folder, tuning.key(backend, found.spec.precision), entry)


def text(found: TuneSearch) -> str:
    """Return what was tried, for the terminal."""
    rows = tuple(
        (
            f"{each.what} {_value(each)}",
            f"{each.faster.value:.2f}",
            f"{each.faster.low:.2f} to {each.faster.high:.2f}",
            "taken" if each.taken else "",
        )
        for each in found.trials
    )
    header = ("tried", "times faster", "in 95 of 100 runs", "")
    best, spec = found.best, found.spec
    result = ", ".join(
        f"{field.name} {_shown(getattr(best, field.name))}"
        for field in dataclasses.fields(best)
        if getattr(best, field.name) != field.default
    )
    return (
        f"{Table(header, rows).text()}\n\n"
        f"For {found.wish.goal} at {size_text(found.wish.size)}, {spec.backend} "
        f"{spec.precision} is best run with {result or 'what the engine chooses by itself'}."
    )


def _steps(wish: TuneRequest) -> Iterator[tuple[str, Callable[[Tuning], list[Tuning]]]]:
    """Yield what is tried, in order: given the best so far, other choices of one thing."""
    cores = machine.cores()
    if wish.goal == "throughput":
        lanes = sorted({each for each in (2, cores // 2, cores) if 1 < each <= cores})
        yield "lanes", lambda best: [dataclasses.replace(best, lanes=each) for each in lanes]
    processors = os.cpu_count() or cores
    threads = sorted({cores - 1, processors} - {0, cores})
    yield "threads", lambda best: [dataclasses.replace(best, threads=each) for each in threads]
    width, height = wish.size
    tiles = [(min(each, height), min(each, width)) for each in _TILES if each < max(wish.size)]
    yield (
        "tile",
        lambda best: [dataclasses.replace(best, tile=each) for each in dict.fromkeys(tiles)],
    )
    yield "batch", lambda best: _batches(best, tiles)


def _batches(best: Tuning, tiles: Sequence[tuple[int, int]]) -> list[Tuning]:
    """Return batches of the tile that was taken, or of the smallest, where none was."""
    if not tiles:
        return []
    tile = best.tile or tiles[-1]
    return [dataclasses.replace(best, tile=tile, batch=each) for each in _BATCHES]


def _times(bundle: Bundle, wish: TuneRequest, choices: Sequence[Tuning]) -> list[list[float]]:
    """Have engines take turns."""
    frames = forms.inputs(*wish.size, bundle.manifest.model.channels, 1)[:, 0]
    with contextlib.ExitStack() as stack:
        engines = []
        for each in choices:
            engine = stack.enter_context(_engine(bundle, wish, each))
            engines.append(engine)
            for _ in range(_WARM_UP_FRAMES):
                engine_runner.settle(engine)
                _turn(engine, wish.goal, frames, 0.0)
        found: list[list[float]] = [[] for _ in engines]
        for _ in range(wish.rounds):
            for engine, times in zip(engines, found, strict=True):
                times.append(_turn(engine, wish.goal, frames, wish.turn_seconds))
    return found


def _engine(bundle: Bundle, wish: TuneRequest, choice: Tuning) -> Engine:
    return Engine(
        bundle.folder,
        backend=wish.backend,
        precision=wish.precision,
        memory=wish.memory,
        tuning=choice,
    )


def _turn(engine: Engine, goal: Goal, frames: NDArray[Any], seconds: float) -> float:
    """Return the milliseconds of a frame: the median of single ones, or in a stream the mean."""
    coming = _cycled(frames, time.monotonic() + seconds, 2 * engine.spec.lanes)
    if goal == "latency":
        times = []
        for frame in coming:
            start = time.perf_counter()
            engine.upscale(frame)
            times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)
    start, count = time.perf_counter(), 0
    for _ in engine.stream(coming, reuse=True):
        count += 1
    return 1e3 * (time.perf_counter() - start) / count


def _cycled(frames: NDArray[Any], end: float, fewest: int) -> Iterator[NDArray[Any]]:
    count = 0
    while count < fewest or time.monotonic() < end:
        yield frames[count % len(frames)]
        count += 1


def _value(trial: TuneTrial) -> str:
    return _shown(getattr(trial.tuning, trial.what))


def _shown(value: object) -> str:
    return "{1}x{0}".format(*value) if isinstance(value, tuple) else str(value)
