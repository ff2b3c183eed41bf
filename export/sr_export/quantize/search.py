"""Which layers compute in INT8: all that can, or the most that keep the picture.

Where all of them together miss the budget, the last convolution goes back to half precision: what
it gets wrong is seen as it is. Where that does not suffice, weights are fitted to the inputs that
they meet, instead of rounded to the nearest level, which takes longer. And then each layer alone is
put back to see what that gains, and they go back, those that gain most first.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.bundle.manifest import Quality, Step
from sr_export.quantize import acceptance

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sr_export.quantize.placement import Layer

    Measure = Callable[[Sequence[Layer], bool], Quality]

LEAST_SHARE = 0.5
# Networks with more layers are analysed and restored in groups of neighbours.
_MOST_GROUPS = 24


@dataclass(frozen=True)
class SearchResult:
    """What came of a search."""

    chosen: tuple[Layer, ...]
    """Those to quantise; empty when nothing holds."""
    fitted: bool
    """Whether their weights are fitted."""
    steps: tuple[Step, ...]
    """What was tried; the last step is the chosen one, if one is."""
    reason: str
    """Why INT8 is not offered, in words; empty when it is."""


class LayerSearch:
    """Finds the placement of one network.

    Args:
        layers: Those that can be quantised, in the order in which they run.
        shares: Of the network's multiply-adds, of each layer by its name.
        measure: Tells the quality when some layers are quantised, their weights fitted or not.
        budget: Decibels against FP32.
        report: Called with what is being done.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        shares: dict[str, float],
        measure: Measure,
        budget: float,
        report: Callable[[str], None],
    ) -> None:
        self._layers = tuple(layers)
        self._shares = shares
        self._measure = measure
        self._budget = budget
        self._report = report
        self._steps: list[Step] = []

    def run(self) -> SearchResult:
        """Return the placement with the most INT8 that holds the budget."""
        best, misses = -math.inf, ""
        for restored, fitted in self._candidates():
            if any(each.fitted is fitted and restored == {*each.restored} for each in self._steps):
                continue
            chosen = [each for each in self._layers if each.name not in restored]
            share = self._share(chosen)
            if share < LEAST_SHARE:
                continue
            self._report(f"quantising: {share:.0%} of the multiply-adds in INT8")
            quality = self._measure(chosen, fitted)
            step = Step(tuple(sorted(restored)), fitted, round(share, 4), quality.psnr)
            self._steps.append(step)
            reason = acceptance.misses(quality, self._budget)
            if reason is None:
                return SearchResult(tuple(chosen), fitted, tuple(self._steps), "")
            if acceptance.decibels(quality) > best:
                best, misses = acceptance.decibels(quality), reason
        return SearchResult((), False, tuple(self._steps), self._refusal(misses))

    def _refusal(self, misses: str) -> str:
        if not self._steps:
            share = self._share(self._layers)
            return (
                f"only {share:.0%} of the multiply-adds are of convolutions that INT8 suits, "
                f"and under {LEAST_SHARE:.0%} it is not worth its loss"
            )
        return (
            f"with {LEAST_SHARE:.0%} of the multiply-adds or more in INT8, the best that was found "
            f"is {misses}"
        )

    def _share(self, layers: Sequence[Layer]) -> float:
        return sum(self._shares[each.name] for each in layers)

    def _candidates(self) -> Iterator[tuple[frozenset[str], bool]]:
        """Yield the names of the layers to restore, the fewest first, and whether to fit."""
        last = frozenset(each.name for each in self._layers[1:][-1:])
        for fitted in (False, True):
            yield frozenset(), fitted
            yield last, fitted
        restored: frozenset[str] = frozenset()
        for group in self._by_gain():
            restored |= group
            yield restored, True

    def _by_gain(self) -> list[frozenset[str]]:
        """Return groups of layers, the one first that gains most quality when it is restored."""
        if self._share(self._layers) < LEAST_SHARE:
            return []
        size = math.ceil(len(self._layers) / _MOST_GROUPS)
        starts = range(0, len(self._layers), size)
        groups = [frozenset(each.name for each in self._layers[i : i + size]) for i in starts]
        gains = {}
        for i, group in enumerate(groups, 1):
            self._report(f"quantising: layer group {i} of {len(groups)} in half precision")
            others = [each for each in self._layers if each.name not in group]
            gains[group] = acceptance.decibels(self._measure(others, True))
        return sorted(groups, key=gains.__getitem__, reverse=True)
