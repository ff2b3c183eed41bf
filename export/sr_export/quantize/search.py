"""Searching the set of layers that compute in INT8: as many as the quality budget allows.

First all layers are tried. If they miss the budget, the last convolution returns to half precision:
its errors reach the output directly. If that is not enough, the rounding of weights is optimized on
real activations, which takes longer. Finally the sensitivity of each layer is measured, and the
most sensitive layers return to half precision one after the other.
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
# Networks with more layers are searched in groups of neighboring layers.
_MOST_GROUPS = 24


@dataclass(frozen=True)
class SearchResult:
    """The result of a search."""

    chosen: tuple[Layer, ...]
    """The layers to quantize; empty if no set meets the budget."""
    fitted: bool
    """Whether the rounding of their weights is optimized."""
    steps: tuple[Step, ...]
    """Every set that was tried; the last one is the chosen one, if any is."""
    reason: str
    """Why INT8 is not offered; empty if it is."""


class LayerSearch:
    """Finds the INT8 layers of one network.

    Args:
        layers: The layers that can compute in INT8, in execution order.
        shares: Each layer's share of the multiply-adds, by name.
        measure: Returns the quality with some layers in INT8, with or without optimized rounding.
        budget: Minimum PSNR against FP32 in dB.
        report: Called with each stage as it begins.
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
        """Return the largest set of layers that meets the budget."""
        best, shortfall = -math.inf, ""
        for restored, fitted in self._candidates():
            if any(each.fitted is fitted and restored == {*each.restored} for each in self._steps):
                continue
            chosen = [each for each in self._layers if each.name not in restored]
            share = self._share(chosen)
            if share < LEAST_SHARE:
                continue
            self._report(f"quantizing: {share:.0%} of the multiply-adds in INT8")
            quality = self._measure(chosen, fitted)
            step = Step(tuple(sorted(restored)), fitted, round(share, 4), quality.psnr)
            self._steps.append(step)
            reason = acceptance.shortfall(quality, self._budget)
            if reason is None:
                return SearchResult(tuple(chosen), fitted, tuple(self._steps), "")
            if acceptance.decibels(quality) > best:
                best, shortfall = acceptance.decibels(quality), reason
        return SearchResult((), False, tuple(self._steps), self._refusal(shortfall))

    def _refusal(self, shortfall: str) -> str:
        if not self._steps:
            share = self._share(self._layers)
            return (
                f"only {share:.0%} of the multiply-adds are in convolutions that INT8 supports; "
                f"below {LEAST_SHARE:.0%} it does not pay"
            )
        return (
            f"best result with at least {LEAST_SHARE:.0%} of the multiply-adds in INT8: {shortfall}"
        )

    def _share(self, layers: Sequence[Layer]) -> float:
        return sum(self._shares[each.name] for each in layers)

    def _candidates(self) -> Iterator[tuple[frozenset[str], bool]]:
        """Yield the layers to keep in half precision, the fewest first, and whether to optimize."""
        last = frozenset(each.name for each in self._layers[1:][-1:])
        for fitted in (False, True):
            yield frozenset(), fitted
            yield last, fitted
        restored: frozenset[str] = frozenset()
        for group in self._by_gain():
            restored |= group
            yield restored, True

    def _by_gain(self) -> list[frozenset[str]]:
        """Return groups of layers, the most sensitive first."""
        if self._share(self._layers) < LEAST_SHARE:
            return []
        size = math.ceil(len(self._layers) / _MOST_GROUPS)
        starts = range(0, len(self._layers), size)
        groups = [frozenset(each.name for each in self._layers[i : i + size]) for i in starts]
        gains = {}
        for i, group in enumerate(groups, 1):
            self._report(f"measuring sensitivity: layer group {i} of {len(groups)}")
            others = [each for each in self._layers if each.name not in group]
            gains[group] = acceptance.decibels(self._measure(others, True))
        return sorted(groups, key=gains.__getitem__, reverse=True)
