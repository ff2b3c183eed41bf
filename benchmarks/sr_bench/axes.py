"""Axes of pictures: which values they hold, and where each lies."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high`, evenly or by their logarithm."""

    low: float
    high: float
    ticks: tuple[float, ...]
    of: Callable[[float], float]

    @classmethod
    def linear(cls, values: Sequence[float]) -> Axis:
        """Make an axis with round ticks that holds all values."""
        low, high = min(values), max(values)
        step = _round_step(max(high - low, abs(high) / 100, 1e-9) / 4)
        first, last = math.floor(low / step), math.ceil(high / step)
        last = max(last, first + 1)
        ticks = tuple(step * i for i in range(first, last + 1))
        return cls(ticks[0], ticks[-1], ticks, float)

    @classmethod
    def logarithmic(cls, values: Sequence[float]) -> Axis:
        """Make an axis on which equal ratios are equally wide, for positive values."""
        low, high = min(values), max(values)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [each * 10.0**power for power in powers for each in (1, 2, 5)]
        below = max((each for each in ticks if each <= low), default=low)
        above = min((each for each in ticks if each >= high and each > below), default=10 * high)
        return cls(below, above, tuple(each for each in ticks if below <= each <= above), math.log)

    def part(self, value: float) -> float:
        """Return where a value lies, from 0 to 1."""
        return (self.of(value) - self.of(self.low)) / (self.of(self.high) - self.of(self.low))


def _round_step(about: float) -> float:
    """Return the next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(about))
    return float(next(each * power for each in (1, 2, 5, 10) if each * power >= about * 0.999))
