"""Bootstrap confidence intervals over rounds.

Frames of one round share the machine load, so the bootstrap resamples rounds and not frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FLOOR = 0.02
"""Minimum half width, relative to the value. Rounds do not show how two processes of the same
program differ by their memory layout."""
_RESAMPLES = 2000
_CONFIDENCE = 95.0


@dataclass(frozen=True)
class Interval:
    """A value with its 95 % confidence interval."""

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Whether the interval covers a value."""
        return self.low <= value <= self.high


def quotient(above: Sequence[float], below: Sequence[float], *, paired: bool) -> Interval:
    """Return the ratio of two series of round medians.

    Args:
        above: One value for each round.
        below: One value for each round; of the same rounds, if paired.
        paired: Whether the rounds are the same. Then their ratios are resampled, in which drift of
            the machine cancels out; otherwise each series is resampled by itself.
    """
    random = np.random.default_rng(0)  # the same record always has the same interval
    over, under = np.asarray(above, float), np.asarray(below, float)
    if paired:
        ratios = over / under
        value = float(np.median(ratios))
        drawn = _medians(ratios, random)
    else:
        value = float(np.median(over) / np.median(under))
        drawn = _medians(over, random) / _medians(under, random)
    rest = (100 - _CONFIDENCE) / 2
    low, high = (float(each) for each in np.percentile(drawn, [rest, 100 - rest]))
    return Interval(value, min(low, value * (1 - FLOOR)), max(high, value * (1 + FLOOR)))


def percent(ratio: float) -> str:
    """Return a ratio as a signed change: 1.05 is "+5.0"."""
    return f"{100 * (ratio - 1):+.1f}"


def _medians(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return the medians of samples drawn with replacement."""
    found: NDArray[np.float64] = np.median(random.choice(values, (_RESAMPLES, len(values))), axis=1)
    return found
