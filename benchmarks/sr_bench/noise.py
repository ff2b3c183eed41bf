"""How far measurements can be trusted: bootstrap intervals over rounds.

Frames of one round share the machine's mood, so it is rounds that are drawn again, not frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FLOOR = 0.02
"""No interval is narrower than this on either side. Rounds cannot tell how one process differs
from another of the same program, by where its memory came to lie."""
_DRAWS = 2000
_CONFIDENCE = 95.0


@dataclass(frozen=True)
class Interval:
    """A value, and between what it lies in 95 of 100 runs."""

    value: float
    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        """Whether the interval holds a value."""
        return self.low <= value <= self.high


def quotient(above: Sequence[float], below: Sequence[float], *, paired: bool) -> Interval:
    """Compare two series of round medians, by the median of what one is over the other.

    Args:
        above: one value for each round.
        below: the same; of the same rounds, if they are paired.
        paired: whether the rounds are the same: then their quotients are drawn, in which a machine
            that drifts cancels out; otherwise each series is drawn by itself.
    """
    random = np.random.default_rng(0)  # the same record always states the same interval
    over, under = np.asarray(above, float), np.asarray(below, float)
    if paired:
        quotients = over / under
        value = float(np.median(quotients))
        drawn = _medians(quotients, random)
    else:
        value = float(np.median(over) / np.median(under))
        drawn = _medians(over, random) / _medians(under, random)
    rest = (100 - _CONFIDENCE) / 2
    low, high = (float(each) for each in np.percentile(drawn, [rest, 100 - rest]))
    return Interval(value, min(low, value * (1 - FLOOR)), max(high, value * (1 + FLOOR)))


def _medians(values: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float64]:
    """Return the medians of as many drawings, with putting back."""
    drawn = random.choice(values, (_DRAWS, len(values)))
    found: NDArray[np.float64] = np.median(drawn, axis=1)
    return found
