"""Drawings in SVG: bars, spreads, stacked parts and plots.

They are legible on paper, in dark mode and on phones. `_element` escapes all text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from markupsafe import Markup, escape

from sr_export.report import Axis, static

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Point = tuple[float, float]

WIDTH = 420
"""Small, so that letters stay large enough where a phone scales the drawing down."""
_LEFT, _RIGHT, _TOP = 10, 410, 34
_ROW, _BAR = 38, 12
_TITLE_CHARACTERS = 48
_PLOT_TOP, _PLOT_HEIGHT, _PLOT_LEFT = 50, 210, 46
_GUTTER, _MARK = 40, 20
"""Space for marks beside a plot of lines, and from one mark to the next."""
# In the drawing itself, which can stand alone. The names begin with "bench-", because in a page the
# rules apply to everything. The colors of runtimes differ in brightness, too.
STYLE = static("chart.css", "sr_bench")


class Drawing(NamedTuple):
    """A drawing: title, height, SVG content, and its content in words."""

    title: str
    height: int
    content: Markup
    words: str

    @classmethod
    def empty(cls) -> Drawing:
        """Return a drawing without content."""
        return cls("", 0, Markup(), "")

    def svg(self) -> str:
        """Return the SVG."""
        return _element(
            "svg",
            _element("title", self.title),
            _element("desc", self.words),
            _element("style", STYLE),
            self.content,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {WIDTH} {self.height}",
            class_="bench-chart",
            role="img",
        )


def stacked(drawings: Sequence[Drawing]) -> Drawing:
    """Return drawings below one another."""
    shown = [each for each in drawings if each.height]
    parts, top = [], 0
    for each in shown:
        parts.append(_element("g", each.content, transform=f"translate(0 {top})"))
        top += each.height
    titles = "; ".join(each.title for each in shown)
    return Drawing(titles, top, _joined(parts), " ".join(each.words for each in shown))


def bars(title: str, values: Sequence[tuple[str, float]], form: str) -> Drawing:
    """Return a bar for each name; those of sr-deploy are highlighted."""
    longest = max(value for _, value in values)
    top = _title_height(title)
    elements = []
    for i, (name, value) in enumerate(values):
        y = top + _ROW * i
        width = round((_RIGHT - _LEFT - 60) * value / longest, 1)
        text = form.format(value)
        elements += [
            _text(name, _LEFT, y + 14),
            _bar(_LEFT, y, width, _owner(name)),
            _text(text, _LEFT + width + 8, y + 31, class_="bench-value"),
        ]
    words = "; ".join(f"{name}: {form.format(value)}" for name, value in values)
    return _drawing(title, top + _ROW * len(values) + 12, elements, words)


def spreads(title: str, values: Sequence[tuple[str, tuple[float, ...]]]) -> Drawing:
    """Return for each name a line from minimum to p99, and a box of the middle half."""
    axis = Axis.logarithmic([each for _, five in values for each in five])
    top = _title_height(title)
    bottom = top + _ROW * len(values)
    elements = []

    def place(value: float) -> float:
        return axis.at(value, _LEFT + 14, _RIGHT - 16)

    for tick in axis.ticks:
        x = place(tick)
        elements.append(_line(x, top, x, bottom, "bench-grid"))
        elements.append(_text(f"{tick:g}", x, bottom + 18, text_anchor="middle"))
    for i, (name, five) in enumerate(values):
        y = top + _ROW * i
        least, low, median, high, most = map(place, five)
        elements += [
            _text(name, _LEFT, y + 14),
            _line(least, y + 26, most, y + 26, _owner(name)),
            _bar(low, y, round(max(high - low, 1.0), 1), _owner(name)),
            _line(median, y + 18, median, y + 34, "bench-median"),
        ]
    shown = (f"{name}: median {of[2]:.2f}, {of[0]:.2f} to {of[4]:.2f}" for name, of in values)
    return _drawing(title, bottom + 36, elements, "; ".join(shown))


def parts(title: str, values: Sequence[tuple[str, Mapping[str, float]]]) -> Drawing:
    """Return for each name a bar of its parts, as long as their sum."""
    longest = max(sum(each.values()) for _, each in values)
    stages = list(dict.fromkeys(stage for _, each in values for stage in each))
    top = _title_height(title)
    elements = []
    for i, stage in enumerate(stages):
        x, y = _LEFT + 132 * (i % 3), top + 20 * (i // 3)
        elements.append(_element("rect", x=x, y=y, width=12, height=12, class_=_part(i)))
        elements.append(_text(stage, x + 18, y + 11))
    top += 20 * -(-len(stages) // 3) + 8
    for i, (name, each) in enumerate(values):
        y, left = top + _ROW * i, float(_LEFT)
        elements.append(_text(f"{name}: {sum(each.values()):.2f}", _LEFT, y + 14))
        for stage, value in each.items():
            width = (_RIGHT - _LEFT) * max(value, 0.0) / longest
            note = _element("title", f"{stage}: {value:.2f} ms")
            place = {"x": round(left, 1), "y": y + 20, "width": round(width, 1), "height": _BAR}
            elements.append(_element("rect", note, **place, class_=_part(stages.index(stage))))
            left += width
    words = "; ".join(
        f"{name}: " + ", ".join(f"{stage} {value:.2f}" for stage, value in each.items())
        for name, each in values
    )
    return _drawing(title, top + _ROW * len(values) + 12, elements, words)


def plot(
    title: str,
    across: Axis,
    up: Axis,
    lines: Sequence[tuple[int, Sequence[Point]]],
    names: tuple[str, str],
    *,
    front: bool = False,
) -> Drawing:
    """Return a plot of numbered points, joined where a number has several.

    Args:
        title: Title of the drawing.
        across: The horizontal axis.
        up: The vertical axis.
        lines: A number and its points, (across, up).
        names: Names of the axes.
        front: Whether to join the Pareto front: the points that no other exceeds in both values.
    """
    top = _title_height(title) + _PLOT_TOP - _TOP
    joined = any(len(line) > 1 for _, line in lines)
    height = max(_PLOT_HEIGHT, _MARK * len(lines)) if joined else _PLOT_HEIGHT
    bottom = top + height
    right = _RIGHT - 10 - (_GUTTER if joined else 0)

    def place(point: Point) -> Point:
        return across.at(point[0], _PLOT_LEFT + 10, right), up.at(point[1], bottom, top)

    elements = [_grid(across, up, place, bottom), _text(names[1], _LEFT, top - 14)]
    elements.append(_text(names[0], _RIGHT, bottom + 40, text_anchor="end"))
    if front:
        best = _front([point for _, line in lines for point in line])
        elements.append(_path(map(place, best), "bench-front"))
    elements += [
        _path(map(place, line), "bench-line bench-other") for _, line in lines if len(line) > 1
    ]
    ends = [place(line[-1]) for _, line in lines]
    marks = _column(ends, top, bottom) if joined else _free_places(ends)
    for (number, _), end, (x, y) in zip(lines, ends, marks, strict=True):
        elements += [
            _line(*end, x, y, "bench-ours"),
            _element("circle", cx=end[0], cy=end[1], r=3, class_="bench-ours"),
            _element("circle", cx=x, cy=y, r=9, class_="bench-ours"),
            _text(number, x, y + 3.5, class_="bench-mark"),
        ]
    words = "; ".join(
        f"{number}: " + ", ".join(f"{x:.3g} and {y:.3g}" for x, y in line) for number, line in lines
    )
    return _drawing(title, bottom + 56, elements, words)


def _grid(across: Axis, up: Axis, place: Callable[[Point], Point], bottom: int) -> Markup:
    elements = []
    for tick in up.ticks:
        _, y = place((across.low, tick))
        elements.append(_line(_PLOT_LEFT, y, _RIGHT, y, "bench-grid"))
        elements.append(_text(f"{tick:g}", _PLOT_LEFT - 8, y + 4, text_anchor="end"))
    for tick in across.ticks:
        x, _ = place((tick, up.low))
        elements.append(_line(x, bottom, x, bottom + 5, "bench-grid"))
        elements.append(_text(f"{tick:g}", x, bottom + 20, text_anchor="middle"))
    return _joined(elements)


def _front(points: Sequence[Point]) -> list[Point]:
    """Return the Pareto front, from right to left."""
    found: list[Point] = []
    for point in sorted(points, reverse=True):
        if not found or point[1] > found[-1][1]:
            found.append(point)
    return found


def _column(ends: Sequence[Point], top: int, bottom: int) -> list[Point]:
    """Return places for the marks of lines, in a column at the right, without overlap."""
    order = sorted(range(len(ends)), key=lambda i: ends[i][1])
    found, y = [(0.0, 0.0)] * len(ends), top - float(_MARK)
    for position, i in enumerate(order):
        lowest = bottom - _MARK * (len(ends) - 1 - position)
        y = min(max(ends[i][1], y + _MARK), lowest)
        found[i] = (_RIGHT - 10.0, round(y, 1))
    return found


def _free_places(points: Sequence[Point]) -> list[Point]:
    """Return places for the marks of points, moved up or down until none overlap."""
    taken: list[Point] = []

    def is_free(x: float, y: float) -> bool:
        return all(abs(x - other) >= _MARK or abs(y - at) >= _MARK for other, at in taken)

    for x, y in points:
        moves = (4 * ((i + 1) // 2) * (1 if i % 2 else -1) for i in range(80))
        places = (round(y + move, 1) for move in moves)
        taken.append((x, next((each for each in places if is_free(x, each)), y)))
    return taken


def _drawing(title: str, height: int, elements: Sequence[Markup], words: str) -> Drawing:
    """Return a drawing with its title above the elements."""
    heading = [
        _text(line, _LEFT, 18 + 17 * i, class_="bench-title")
        for i, line in enumerate(_wrapped(title))
    ]
    return Drawing(title, height, _joined([*heading, *elements]), words)


def _title_height(title: str) -> int:
    return _TOP + 17 * (len(_wrapped(title)) - 1)


def _wrapped(title: str) -> list[str]:
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) >= _TITLE_CHARACTERS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _owner(name: str) -> str:
    return "bench-ours" if name.startswith("sr-deploy") else "bench-other"


def _part(index: int) -> str:
    return f"bench-part{index % 8}"


def _text(content: object, x: float, y: float, **attributes: object) -> Markup:
    return _element("text", content, x=x, y=y, **attributes)


def _line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return _element("line", x1=x1, x2=x2, y1=y1, y2=y2, class_=class_)


def _bar(x: float, y: float, width: float, class_: str) -> Markup:
    place = {"x": x, "y": y + 20, "width": width, "height": _BAR}
    return _element("rect", **place, rx=2, class_=class_)


def _path(points: Iterable[Point], class_: str) -> Markup:
    return _element("polyline", points=" ".join(f"{x},{y}" for x, y in points), class_=class_)


def _element(name: str, *content: object, **attributes: object) -> Markup:
    """Return an element; `class_` stands for `class` and `text_anchor` for `text-anchor`."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
    )
    return Markup(f"<{name}{written}>{_joined(content)}</{name}>")  # noqa: S704  all is escaped


def _joined(parts: Iterable[object]) -> Markup:
    return Markup("").join(parts)  # type: ignore[arg-type]
