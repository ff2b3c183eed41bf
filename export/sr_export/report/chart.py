"""The picture of the INT8 search: decibels against the share of the network left in INT8."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_export.report.markup import Markup, join, tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_deploy.bundle.manifest import Quantization, Step

WIDTH, HEIGHT = 480, 310
_LEFT, _TOP, _RIGHT, _BOTTOM = 44, 52, 450, 256
"""The edges of the plot in the picture."""
_MOST_NUMBERED = 15
"""With more steps than this, their numbers would cover one another."""

# In the picture itself, so that it can stand alone; the names begin with "search-", because in a
# page the rules hold for all of it.
STYLE = """
.search-chart { font: 13px system-ui, sans-serif; fill: #57606a; }
.search-grid { stroke: #d8dee4; }
.search-path { fill: none; stroke: #8c96a1; stroke-width: 1.5; }
.search-step circle { fill: #fff; stroke: #57606a; stroke-width: 1.5; }
.search-step text { font-size: 10px; text-anchor: middle; }
.search-taken circle { fill: #0b6bcb; stroke: #0b6bcb; }
.search-taken text { fill: #fff; font-weight: 700; }
.search-label { fill: #1f2328; font-weight: 600; }
.search-label { paint-order: stroke; stroke: #fff; stroke-width: 4; }
@media (max-width: 480px) { .search-chart { font-size: 15px; } }
@media screen and (prefers-color-scheme: dark) {
  .search-chart { fill: #9aa4af; }
  .search-grid { stroke: #30363d; }
  .search-path { stroke: #6e7781; }
  .search-step circle { fill: #12161b; stroke: #9aa4af; }
  .search-taken circle { fill: #58a6ff; stroke: #58a6ff; }
  .search-taken text { fill: #0b0e12; }
  .search-label { fill: #e6edf3; stroke: #12161b; }
}
"""


@dataclass(frozen=True)
class _Axis:
    """Values from `low` to `high`, drawn from `start` to `end`."""

    low: float
    high: float
    start: int
    end: int
    ticks: tuple[float, ...]

    @classmethod
    def around(cls, values: Sequence[float], least: float, start: int, end: int) -> _Axis:
        """Make an axis that holds all values and at least a span of `least`, with round ticks."""
        low, high = min(values), max(values)
        missing = max(0.0, least - (high - low))
        low, high = low - missing / 2, high + missing / 2
        step = _round_step((high - low) / 5)
        first, last = math.floor(low / step), math.ceil(high / step)
        ticks = tuple(step * i for i in range(first, last + 1))
        return cls(ticks[0], ticks[-1], start, end, ticks)

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)


def search_chart(quantisation: Quantization, *, taken: bool = True) -> str:
    """Draw how the placement of INT8 was found, as an SVG that can stand alone or in a page.

    Args:
        quantisation: with one step at least.
        taken: whether INT8 is offered, and so the last step the one taken.

    Raises:
        ValueError: there is no step to draw.
    """
    steps = quantisation.steps
    if not steps:
        raise ValueError("no placement of INT8 was tried; there is nothing to draw")
    shares = [100 * each.share for each in steps]
    decibels = [each.psnr for each in steps if each.psnr is not None]
    across = _share_axis(shares)
    up = _Axis.around(decibels or [50.0], 2.0, _BOTTOM, _TOP)
    points = [
        (across.at(share), up.at(up.high if each.psnr is None else each.psnr))
        for share, each in zip(shares, steps, strict=True)
    ]
    path = tag("polyline", class_="search-path", points=" ".join(f"{x},{y}" for x, y in points))
    return tag(
        "svg",
        tag("title", "The search for the placement of INT8", id="search-title"),
        tag("desc", describe(steps, taken=taken), id="search-description"),
        tag("style", Markup(STYLE)),
        _grid(across, up),
        path,
        *_marks(steps, points, taken=taken),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH} {HEIGHT}",
        class_="search-chart",
        role="img",
        aria_labelledby="search-title search-description",
    )


def describe(steps: Sequence[Step], *, taken: bool) -> str:
    """Say in words what the picture shows."""
    tried = f"{len(steps)} placements" if len(steps) > 1 else "One placement"
    words = [f"{tried} tried.", f"The first: {_figures(steps[0])}."]
    if len(steps) > 1:
        words.append(f"The last: {_figures(steps[-1])}.")
    words.append("The last is the one taken." if taken else "None was taken: INT8 is not offered.")
    return " ".join(words)


def percent(share: float) -> str:
    """Write a share; never 100 % where something is left out."""
    return f"{math.floor(round(share * 1000, 6)) / 10:g} %"


def decibel(psnr: float | None) -> str:
    """Write decibels of something compared with something else."""
    return "equal" if psnr is None else f"{psnr:.1f} dB"


def _share_axis(shares: Sequence[float]) -> _Axis:
    """Make the axis of percents: it ends at 100, which nothing exceeds."""
    low = min(shares)
    axis = _Axis.around([low, 100.0], 10.0, _LEFT, _RIGHT)
    ticks = tuple(each for each in axis.ticks if each <= 100)
    return _Axis(ticks[0], ticks[-1], _LEFT, _RIGHT, ticks)


def _round_step(about: float) -> float:
    """Return the next larger of 1, 2 and 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(about))
    return float(next(each * power for each in (1, 2, 5, 10) if each * power >= about))


def _figures(step: Step) -> str:
    return f"{decibel(step.psnr)}, {percent(step.share)} in INT8"


def _grid(across: _Axis, up: _Axis) -> Markup:
    parts = []
    for tick in up.ticks:
        y = up.at(tick)
        parts.append(tag("line", class_="search-grid", x1=_LEFT, x2=_RIGHT, y1=y, y2=y))
        parts.append(tag("text", f"{tick:g}", x=_LEFT - 8, y=y + 4, text_anchor="end"))
    for tick in across.ticks:
        x = across.at(tick)
        parts.append(tag("line", class_="search-grid", x1=x, x2=x, y1=_BOTTOM, y2=_BOTTOM + 5))
        parts.append(tag("text", f"{tick:g} %", x=x, y=_BOTTOM + 21, text_anchor="middle"))
    parts.append(tag("text", "dB against FP32, worst image", x=8, y=20))
    below = "share of multiply-adds in INT8"
    parts.append(tag("text", below, x=_RIGHT, y=HEIGHT - 10, text_anchor="end"))
    return join(*parts)


def _marks(
    steps: Sequence[Step], points: Sequence[tuple[float, float]], *, taken: bool
) -> list[Markup]:
    """Draw the steps, numbered in order, and what the last one reached."""
    numbered = len(steps) <= _MOST_NUMBERED
    marks = []
    for i, (step, (x, y)) in enumerate(zip(steps, points, strict=True), start=1):
        chosen = taken and i == len(steps)
        shown = numbered or chosen
        inside = [
            tag("title", f"Step {i}: {_figures(step)}"),
            tag("circle", cx=x, cy=y, r=8.5 if shown else 3.5),
        ]
        if shown:
            inside.append(tag("text", i, x=x, y=y + 3.5))
        marks.append(
            tag("g", *inside, class_="search-step search-taken" if chosen else "search-step")
        )
    x, y = points[-1]
    label = f"{'taken' if taken else 'last tried'}: {_figures(steps[-1])}"
    anchor, shift = ("start", -8) if x < (_LEFT + _RIGHT) / 2 else ("end", 8)
    place = {"x": x + shift, "y": y - 16, "text_anchor": anchor}
    marks.append(tag("text", label, class_="search-label", **place))
    return marks
