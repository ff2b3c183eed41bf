"""Pictures in SVG: bars, spreads, plots and parts, to be read on paper, in the dark, on a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sr_bench.axes import Axis
from sr_export.report.markup import Markup, join, tag

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

WIDTH = 420
"""Little, so that letters are large enough where a phone makes the picture small."""
LEFT, RIGHT = 10, 410
_ROW, _BAR = 38, 12
TOP = 34
_WRAP = 48
"""Characters of a title's line."""

# In the picture itself, so that it can stand alone; the names begin with "bench-", because in a
# page the rules hold for all of it. The colours of runtimes differ in brightness, too.
STYLE = """
.bench-chart { font: 14px system-ui, sans-serif; fill: #57606a; }
.bench-title { fill: #1f2328; font-weight: 600; }
.bench-grid { stroke: #d8dee4; }
.bench-value { fill: #1f2328; font-weight: 600; }
.bench-other { fill: #9aa4af; stroke: #9aa4af; }
.bench-ours { fill: #0b6bcb; stroke: #0b6bcb; }
.bench-line { fill: none; stroke-width: 1.5; }
.bench-front { fill: none; stroke: #8c96a1; stroke-dasharray: 4 4; }
.bench-mark { fill: #fff; font-size: 10px; font-weight: 700; text-anchor: middle; }
.bench-median { stroke: #1f2328; stroke-width: 2.5; }
.bench-part0 { fill: #0b6bcb; } .bench-part1 { fill: #e8a33d; } .bench-part2 { fill: #9aa4af; }
.bench-part3 { fill: #4a9d6f; } .bench-part4 { fill: #b5548f; } .bench-part5 { fill: #5b4fb0; }
.bench-part6 { fill: #a0522d; } .bench-part7 { fill: #2aa5b8; }
@media screen and (prefers-color-scheme: dark) {
  .bench-chart { fill: #9aa4af; }
  .bench-title, .bench-value { fill: #e6edf3; }
  .bench-grid { stroke: #30363d; }
  .bench-other { fill: #6e7781; stroke: #6e7781; }
  .bench-ours { fill: #58a6ff; stroke: #58a6ff; }
  .bench-mark { fill: #0b0e12; }
  .bench-median { stroke: #e6edf3; }
}
"""


class Drawing(NamedTuple):
    """What is drawn, how high it is, and in words what it shows."""

    title: str
    height: int
    content: Markup
    words: str

    @classmethod
    def empty(cls) -> Drawing:
        """Return the drawing of nothing."""
        return cls("", 0, Markup(), "")

    def svg(self) -> str:
        """Return the picture."""
        return tag(
            "svg",
            tag("title", self.title),
            tag("desc", self.words),
            tag("style", Markup(STYLE)),
            self.content,
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {WIDTH} {self.height}",
            class_="bench-chart",
            role="img",
        )


def stacked(drawings: Sequence[Drawing]) -> Drawing:
    """Put drawings below one another."""
    shown = [each for each in drawings if each.height]
    parts, top = [], 0
    for each in shown:
        parts.append(tag("g", each.content, transform=f"translate(0 {top})"))
        top += each.height
    titles = "; ".join(each.title for each in shown)
    return Drawing(titles, top, join(*parts), " ".join(each.words for each in shown))


def bars(title: str, values: Sequence[tuple[str, float]], form: str) -> Drawing:
    """Draw a bar for each name; those of sr-deploy stand out."""
    longest = max(value for _, value in values)
    lines = []
    top = title_height(title)
    for i, (name, value) in enumerate(values):
        y = top + _ROW * i
        width = round((RIGHT - LEFT - 60) * value / longest, 1)
        lines += [
            tag("text", name, x=LEFT, y=y + 14),
            tag("rect", x=LEFT, y=y + 20, width=width, height=_BAR, rx=2, class_=_whose(name)),
            tag(
                "text",
                form.format(value),
                x=LEFT + width + 8,
                y=y + 31,
                class_="bench-value",
            ),
        ]
    words = "; ".join(f"{name}: {form.format(value)}" for name, value in values)
    return finished(title, top + _ROW * len(values) + 12, lines, words)


def spreads(title: str, values: Sequence[tuple[str, tuple[float, ...]]]) -> Drawing:
    """Draw for each name a line from least to 99 of 100, and a box of the middle half."""
    axis = Axis.logarithmic([each for _, five in values for each in five])
    top = title_height(title)
    bottom = top + _ROW * len(values)
    lines = [_ticks_below(axis, top, bottom)]
    for i, (name, five) in enumerate(values):
        y = top + _ROW * i
        least, low, median, high, most = (_across(axis, each) for each in five)
        box = {"x": low, "y": y + 20, "width": round(max(high - low, 1.0), 1), "height": _BAR}
        lines += [
            tag("text", name, x=LEFT, y=y + 14),
            tag("line", x1=least, x2=most, y1=y + 26, y2=y + 26, class_=_whose(name)),
            tag("rect", **box, rx=2, class_=_whose(name)),
            tag("line", x1=median, x2=median, y1=y + 18, y2=y + 34, class_="bench-median"),
        ]
    shown = (f"{name}: median {of[2]:.2f}, {of[0]:.2f} to {of[4]:.2f}" for name, of in values)
    return finished(title, bottom + 36, lines, "; ".join(shown))


def parts(title: str, values: Sequence[tuple[str, Mapping[str, float]]]) -> Drawing:
    """Draw for each name a bar of its parts; each bar is as long as its sum says."""
    longest = max(sum(each.values()) for _, each in values)
    stages = list(dict.fromkeys(stage for _, each in values for stage in each))
    top = title_height(title)
    legend = [
        join(
            tag("rect", x=LEFT + 132 * (i % 3), y=top + 20 * (i // 3), width=12, height=12,
                class_=_part(i)),
            tag("text", stage, x=LEFT + 18 + 132 * (i % 3), y=top + 11 + 20 * (i // 3)),
        )
        for i, stage in enumerate(stages)
    ]  # fmt: skip
    top += 20 * -(-len(stages) // 3) + 8
    lines = []
    for i, (name, each) in enumerate(values):
        y, x = top + _ROW * i, float(LEFT)
        lines.append(tag("text", f"{name}: {sum(each.values()):.2f}", x=LEFT, y=y + 14))
        for stage, value in each.items():
            width = (RIGHT - LEFT) * max(value, 0.0) / longest
            box = {"x": round(x, 1), "y": y + 20, "width": round(width, 1), "height": _BAR}
            note = tag("title", f"{stage}: {value:.2f} ms")
            lines.append(tag("rect", note, **box, class_=_part(stages.index(stage))))
            x += width
    words = "; ".join(
        f"{name}: " + ", ".join(f"{stage} {value:.2f}" for stage, value in each.items())
        for name, each in values
    )
    return finished(title, top + _ROW * len(values) + 12, [*legend, *lines], words)


def finished(title: str, height: int, lines: Sequence[Markup], words: str) -> Drawing:
    """Put the title above what is drawn."""
    heading = [
        tag("text", line, x=LEFT, y=18 + 17 * i, class_="bench-title")
        for i, line in enumerate(_wrapped(title))
    ]
    return Drawing(title, height, join(*heading, *lines), words)


def title_height(title: str) -> int:
    """Return where a drawing begins, below its title."""
    return TOP + 17 * (len(_wrapped(title)) - 1)


def _wrapped(title: str) -> list[str]:
    lines = [""]
    for word in title.split():
        if len(lines[-1]) + len(word) >= _WRAP:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines


def _whose(name: str) -> str:
    return "bench-ours" if name.startswith("sr-deploy") else "bench-other"


def _part(index: int) -> str:
    return f"bench-part{index % 8}"


def _across(axis: Axis, value: float) -> float:
    return round(LEFT + 14 + axis.part(value) * (RIGHT - LEFT - 30), 1)


def _ticks_below(axis: Axis, top: int, bottom: int) -> Markup:
    marks = []
    for tick in axis.ticks:
        x = _across(axis, tick)
        marks.append(tag("line", x1=x, x2=x, y1=top, y2=bottom, class_="bench-grid"))
        marks.append(tag("text", f"{tick:g}", x=x, y=bottom + 18, text_anchor="middle"))
    return join(*marks)
