"""The chart of the INT8 search: PSNR against the share of the network in INT8."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_export.report.templating import render, static

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_deploy.bundle.manifest import Quantization, Step

WIDTH, HEIGHT = 480, 310
NOTHING = "\N{EN DASH}"
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 52, 450, 256
"""The edges of the plot."""
_MAX_NUMBERED = 15
"""The numbers of more steps would overlap."""


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` with round ticks, on a linear or another scale."""

    low: float
    high: float
    ticks: tuple[float, ...]
    scale: Callable[[float], float] = float

    @classmethod
    def linear(cls, values: Sequence[float], intervals: int = 4, span: float = 0.0) -> Axis:
        """Return an axis that includes all values and has at least a span."""
        low, high = min(values), max(values)
        missing = max(0.0, span - (high - low))
        low, high = low - missing / 2, high + missing / 2
        step = _round_step(max(high - low, abs(high) / 100, 1e-9) / intervals)
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = tuple(step * i for i in range(first, max(last, first + 1) + 1))
        return cls(ticks[0], ticks[-1], ticks)

    @classmethod
    def logarithmic(cls, values: Sequence[float]) -> Axis:
        """Return an axis on which equal ratios have equal width, for positive values."""
        low, high = min(values), max(values)
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        ticks = [each * 10.0**power for power in powers for each in (1, 2, 5)]
        below = max((each for each in ticks if each <= low), default=low)
        above = min((each for each in ticks if each >= high and each > below), default=10 * high)
        return cls(below, above, tuple(each for each in ticks if below <= each <= above), math.log)

    def part(self, value: float) -> float:
        """Return the position of a value, from 0 to 1."""
        low, high = self.scale(self.low), self.scale(self.high)
        return (self.scale(value) - low) / (high - low)

    def at(self, value: float, start: float, end: float) -> float:
        """Return the coordinate of a value on an axis drawn from `start` to `end`."""
        return round(start + self.part(value) * (end - start), 1)


def search_chart(quantization: Quantization, *, taken: bool = True) -> str:
    """Return the chart as SVG, for a page or by itself.

    Args:
        quantization: The search, with at least one step.
        taken: Whether INT8 is offered, and so the last step was accepted.

    Raises:
        ValueError: There is no step.
    """
    steps = quantization.steps
    if not steps:
        raise ValueError("the INT8 search has no step; there is nothing to draw")
    shares = [100 * each.share for each in steps]
    across = Axis.linear([min(shares), 100.0], 5, 10.0)
    ticks = tuple(each for each in across.ticks if each <= 100)  # no share exceeds 100 %
    across = Axis(ticks[0], ticks[-1], ticks)
    known = [each.psnr for each in steps if each.psnr is not None]
    up = Axis.linear(known or [50.0], 5, 2.0)
    points = [
        (
            across.at(share, _LEFT, _RIGHT),
            up.at(up.high if each.psnr is None else each.psnr, _BOTTOM, _TOP),
        )
        for share, each in zip(shares, steps, strict=True)
    ]
    return render(
        "search.svg",
        width=WIDTH,
        height=HEIGHT,
        left=_LEFT,
        right=_RIGHT,
        bottom=_BOTTOM,
        style=static("search.css"),
        description=_description(steps, taken=taken),
        x_ticks=[(across.at(each, _LEFT, _RIGHT), f"{each:g}") for each in ticks],
        y_ticks=[(up.at(each, _BOTTOM, _TOP), f"{each:g}") for each in up.ticks],
        points=points,
        figures=[_figures(each) for each in steps],
        numbered=len(steps) <= _MAX_NUMBERED,
        taken=taken,
    )


def percent(share: float) -> str:
    """Return a share, which is never rounded up to 100 %."""
    return f"{math.floor(round(share * 1000, 6)) / 10:g} %"


def decibels(psnr: float | None) -> str:
    """Return a PSNR; None is equality."""
    return "equal" if psnr is None else f"{psnr:.1f} dB"


def _description(steps: Sequence[Step], *, taken: bool) -> str:
    """Return the content of the chart in words."""
    tried = f"{len(steps)} placements" if len(steps) > 1 else "One placement"
    words = [f"{tried} tried.", f"The first: {_figures(steps[0])}."]
    if len(steps) > 1:
        words.append(f"The last: {_figures(steps[-1])}.")
    words.append("The last one was taken." if taken else "None was taken: INT8 is not offered.")
    return " ".join(words)


def _figures(step: Step) -> str:
    return f"{decibels(step.psnr)}, {percent(step.share)} in INT8"


def _round_step(minimum: float) -> float:
    """Return the next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(minimum))
    return float(next(e * power for e in (1, 2, 5, 10) if e * power >= minimum * 0.999))
