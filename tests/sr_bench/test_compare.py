"""A slowdown is found, and a slower machine is not mistaken for one."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_bench import compare, timers
from sr_bench.compare import TimingChange
from sr_bench.records import BenchRun, SpeedRecord, Timing
from sr_bench.timers import CallTimer
from sr_deploy.engine import Engine
from sr_deploy.errors import InvalidInputError
from tests.sr_bench.conftest import Tiny
from tests.sr_bench.examples import EAGER, OPENVINO, SERIES, row

_ROUNDS = 10


def _record(ours: float, theirs: float = 1.0, seed: int = 0, spread: float = 0.02) -> SpeedRecord:
    """A record with rounds around `theirs` (baseline) and `ours`, and idle noise."""
    random = np.random.default_rng(seed)

    def rounds(about: float) -> Iterator[tuple[float, ...]]:
        for _ in range(_ROUNDS):
            yield tuple(float(each) for each in about * random.normal(10.0, 10 * spread, 5))

    rows = (row(EAGER, *rounds(theirs)), row(OPENVINO, *rounds(ours)))
    series = dataclasses.replace(SERIES, bouts=(BenchRun((64, 32), 1, rows),))
    return SpeedRecord(3, "speed", (series,))


def _of(contender: object, changes: list[TimingChange]) -> TimingChange:
    (found,) = (each for each in changes if each.key.configuration == contender)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_ten_percent_are_found_and_no_change_is_not(seed: int) -> None:
    before = _record(0.5, seed=seed)
    slower = _of(OPENVINO, compare.changes(before, _record(0.55, seed=seed + 100)))
    same = _of(OPENVINO, compare.changes(before, _record(0.5, seed=seed + 200)))
    assert slower.significant
    assert slower.slower_than(0.05)
    assert 1.1 in slower.times
    assert not same.significant
    assert not same.slower_than(0.0)


def test_a_slower_machine_is_no_regression() -> None:
    """Everything takes twice as long, including the baseline, which is the same program."""
    found = compare.changes(_record(0.5), _record(1.0, 2.0, seed=1))
    assert _of(OPENVINO, found).relative
    assert not _of(OPENVINO, found).significant
    assert _of(EAGER, found).significant


def test_with_different_baselines_times_are_compared_directly() -> None:
    after = _record(1.0, 2.0, seed=1)
    setting = dataclasses.replace(SERIES.setting, versions={"torch": "3.0"})
    series = dataclasses.replace(after.series[0], setting=setting)
    after = dataclasses.replace(after, series=(series,))
    change = _of(OPENVINO, compare.changes(_record(0.5), after))
    assert not change.relative
    assert 2.0 in change.times


def test_records_without_a_common_measurement_are_refused() -> None:
    other = _record(0.5)
    subject = dataclasses.replace(SERIES.subject, sha256="1" * 64)
    series = dataclasses.replace(other.series[0], subject=subject)
    with pytest.raises(InvalidInputError, match="no measurement in common"):
        compare.changes(_record(0.5), dataclasses.replace(other, series=(series,)))


def test_the_text_names_regressions() -> None:
    found = compare.changes(_record(0.5), _record(0.6, seed=1))
    lines = compare.text(found, 0.05).splitlines()
    assert lines[1].split()[-1] == "noise"
    assert lines[2].startswith("tiny sr-deploy OpenVINO BF16  64x32  upscale")
    assert lines[2].endswith("REGRESSION")
    assert compare.text(found, None).splitlines()[2].endswith("slower")
    faster = compare.text(compare.changes(_record(0.6, seed=1), _record(0.5)), 0.05)
    assert faster.splitlines()[2].endswith("faster")


@pytest.fixture(scope="module")
def alternating(tiny: Tiny) -> tuple[list[tuple[float, ...]], ...]:
    """Interleaved rounds of one engine: unchanged, unchanged again, and slowed down.

    The processor time is measured, which other programs hardly affect.
    """
    with Engine(tiny.bundle, precision="fp32", threads=1) as engine:
        batches = timers.input_batches(160, 120, 3, 1)

        def plain(index: int) -> NDArray[np.uint8]:
            result: NDArray[np.uint8] = engine.upscale(batches[index][0])
            return result

        def slowed(index: int) -> object:
            start = time.process_time()
            result = plain(index)
            end = start + 1.1 * (time.process_time() - start)
            while time.process_time() < end:
                pass
            return result

        def clock(call: Callable[[], object]) -> float:
            start = time.process_time()
            call()
            return 1e3 * (time.process_time() - start)

        calls = [CallTimer(each, len(batches), clock) for each in (plain, plain, slowed)]
        for each in calls:
            each.measure(0.2)
        rounds = [[tuple(each.measure(0.05)) for each in calls] for _ in range(20)]
    return tuple(map(list, zip(*rounds, strict=True)))


def _real(rounds: list[tuple[float, ...]], baseline: list[tuple[float, ...]]) -> SpeedRecord:
    rows = (row(EAGER, *baseline), row(OPENVINO, *rounds))
    series = dataclasses.replace(SERIES, bouts=(BenchRun((160, 120), 1, rows),))
    return SpeedRecord(3, "speed", (series,))


@pytest.mark.slow
def test_an_artificial_slowdown_is_found_in_real_times(
    alternating: tuple[list[tuple[float, ...]], ...],
) -> None:
    plain, again, slowed = alternating
    change = _of(OPENVINO, compare.changes(_real(again, plain), _real(slowed, plain)))
    assert change.significant
    assert change.slower_than(0.05)


@pytest.mark.slow
def test_no_slowdown_is_found_in_real_times_without_one(
    alternating: tuple[list[tuple[float, ...]], ...],
) -> None:
    plain, again, _ = alternating
    odd, even = (Timing("upscale", tuple(each)).rounds for each in (again[1::2], again[:-1:2]))
    base_odd, base_even = plain[1::2], plain[:-1:2]
    change = _of(
        OPENVINO,
        compare.changes(_real(list(odd), base_odd), _real(list(even), base_even)),
    )
    assert not change.slower_than(0.05)
