"""Intervals are reproducible and cover the true value as often as stated."""

from __future__ import annotations

import numpy as np
import pytest

from sr_bench import intervals
from sr_bench.intervals import FLOOR


def _rounds(seed: int, scale: float = 1.0, spread: float = 0.03, count: int = 10) -> list[float]:
    random = np.random.default_rng(seed)
    return [float(each) for each in scale * random.normal(10.0, 10.0 * spread, count)]


def test_the_same_rounds_always_give_the_same_interval() -> None:
    once, again = (intervals.quotient(_rounds(0), _rounds(1), paired=False) for _ in range(2))
    assert once == again


def test_no_interval_is_narrower_than_the_difference_between_processes() -> None:
    found = intervals.quotient([2.0] * 5, [1.0] * 5, paired=True)
    assert (found.value, found.low, found.high) == (2.0, 2.0 * (1 - FLOOR), 2.0 * (1 + FLOOR))


def test_drift_of_the_machine_cancels_out_in_pairs() -> None:
    drift = np.linspace(1, 3, 10)
    above, below = 1.1 * drift, drift
    found = intervals.quotient(list(above), list(below), paired=True)
    assert (found.low, found.high) == pytest.approx((1.1 * (1 - FLOOR), 1.1 * (1 + FLOOR)))
    assert 1.0 in intervals.quotient(list(above), list(below), paired=False)


@pytest.mark.parametrize("spread", [0.01, 0.03])
def test_a_slowdown_of_ten_percent_is_found(spread: float) -> None:
    """With the noise of an idle machine; one run in twenty may miss it."""
    found = [
        intervals.quotient(_rounds(i, 1.1, spread), _rounds(i + 1000, 1.0, spread), paired=False)
        for i in range(100)
    ]
    assert sum(each.low > 1 for each in found) >= 95


@pytest.mark.parametrize("spread", [0.01, 0.03])
def test_no_slowdown_is_found_without_one(spread: float) -> None:
    found = [
        intervals.quotient(_rounds(i, 1.0, spread), _rounds(i + 1000, 1.0, spread), paired=False)
        for i in range(100)
    ]
    assert sum(1.0 in each for each in found) >= 95
