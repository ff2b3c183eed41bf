"""Plots in SVG: numbered points between two axes, joined where a number has several."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_bench.drawing import LEFT, RIGHT, TOP, Drawing, finished, title_height
from sr_export.report.markup import Markup, join, tag

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sr_bench.axes import Axis

_PLOT_TOP, _PLOT_HEIGHT, _PLOT_LEFT = 50, 210, 46
_GUTTER, _MARK = 40, 20
"""Room for marks beside a plot of lines, and from one mark to the next."""


def plot(
    title: str,
    across: Axis,
    up: Axis,
    lines: Sequence[tuple[int, Sequence[tuple[float, float]]]],
    names: tuple[str, str],
    *,
    front: bool = False,
) -> Drawing:
    """Draw numbered points, joined where a number has several.

    Args:
        title: of the picture.
        across: the axis to the right.
        up: the axis upwards.
        lines: a number and its points, (across, up).
        names: of the axes.
        front: whether the points that no other beats in both are joined: the Pareto front.
    """
    top = title_height(title) + _PLOT_TOP - TOP
    joined = any(len(line) > 1 for _, line in lines)
    height = max(_PLOT_HEIGHT, _MARK * len(lines)) if joined else _PLOT_HEIGHT
    bottom = top + height
    width = RIGHT - _PLOT_LEFT - 20 - (_GUTTER if joined else 0)

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _PLOT_LEFT + 10 + across.part(point[0]) * width
        return round(x, 1), round(bottom - up.part(point[1]) * height, 1)

    drawn = [_grid(across, up, place, bottom), tag("text", names[1], x=LEFT, y=top - 14)]
    drawn.append(tag("text", names[0], x=RIGHT, y=bottom + 40, text_anchor="end"))
    if front:
        best = [place(each) for each in _front([point for _, line in lines for point in line])]
        drawn.append(tag("polyline", points=_path(best), class_="bench-front"))
    for _, line in lines:
        if len(line) > 1:
            drawn.append(
                tag("polyline", points=_path(map(place, line)), class_="bench-line bench-other")
            )
    ends = [place(line[-1]) for _, line in lines]
    marks = _column(ends, top, bottom) if joined else _free(ends)
    for (number, _), end, (x, y) in zip(lines, ends, marks, strict=True):
        drawn.append(tag("line", x1=end[0], y1=end[1], x2=x, y2=y, class_="bench-ours"))
        drawn.append(tag("circle", cx=end[0], cy=end[1], r=3, class_="bench-ours"))
        drawn.append(tag("circle", cx=x, cy=y, r=9, class_="bench-ours"))
        drawn.append(tag("text", number, x=x, y=y + 3.5, class_="bench-mark"))
    words = "; ".join(
        f"{number}: " + ", ".join(f"{x:.3g} and {y:.3g}" for x, y in line) for number, line in lines
    )
    return finished(title, bottom + 56, drawn, words)


def _grid(
    across: Axis,
    up: Axis,
    place: Callable[[tuple[float, float]], tuple[float, float]],
    bottom: int,
) -> Markup:
    marks = []
    for tick in up.ticks:
        _, y = place((across.low, tick))
        marks.append(tag("line", x1=_PLOT_LEFT, x2=RIGHT, y1=y, y2=y, class_="bench-grid"))
        marks.append(tag("text", f"{tick:g}", x=_PLOT_LEFT - 8, y=y + 4, text_anchor="end"))
    for tick in across.ticks:
        x, _ = place((tick, up.low))
        marks.append(tag("line", x1=x, x2=x, y1=bottom, y2=bottom + 5, class_="bench-grid"))
        marks.append(tag("text", f"{tick:g}", x=x, y=bottom + 20, text_anchor="middle"))
    return join(*marks)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points that no other beats in both, from the right to the left."""
    found: list[tuple[float, float]] = []
    for point in sorted(points, reverse=True):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found


def _column(
    ends: Sequence[tuple[float, float]], top: int, bottom: int
) -> list[tuple[float, float]]:
    """Return a place for the mark of each line, in a column right of their ends, none covered."""
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    found, y = [(0.0, 0.0)] * len(ends), top - float(_MARK)
    for position, i in enumerate(order):
        lowest = bottom - _MARK * (len(ends) - 1 - position)
        y = min(max(ends[i][1], y + _MARK), lowest)
        found[i] = (RIGHT - 10.0, round(y, 1))
    return found


def _free(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return a place for the mark of each point where no other lies yet, moved up or down."""
    taken: list[tuple[float, float]] = []
    for x, y in points:
        moves = (4 * ((i + 1) // 2) * (1 if i % 2 else -1) for i in range(80))
        places = [(x, round(y + move, 1)) for move in moves]
        taken.append(next((each for each in places if _is_free(each, taken)), (x, y)))
    return taken


def _is_free(place: tuple[float, float], taken: Sequence[tuple[float, float]]) -> bool:
    return all(abs(place[0] - x) >= _MARK or abs(place[1] - y) >= _MARK for x, y in taken)


def _path(points: Iterable[tuple[float, float]]) -> str:
    return " ".join(f"{x},{y}" for x, y in points)
