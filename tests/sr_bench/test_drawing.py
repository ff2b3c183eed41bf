"""Drawings show their values, inside their borders."""

from __future__ import annotations

import itertools
import re
import xml.etree.ElementTree as ElementTree

import pytest

from sr_bench import drawing
from sr_bench.drawing import WIDTH, Drawing
from sr_export.report import Axis

SVG = "{http://www.w3.org/2000/svg}"
NAMES = ["PyTorch eager FP32", "sr-deploy OpenVINO INT8"]


def _elements(drawn: Drawing, name: str) -> list[ElementTree.Element]:
    return ElementTree.fromstring(drawn.svg()).findall(f".//{SVG}{name}")


def test_bars_are_as_long_as_their_values() -> None:
    drawn = drawing.bars("times faster", [(NAMES[0], 1.0), (NAMES[1], 4.0)], "{:.2f}")
    other, ours = _elements(drawn, "rect")
    assert float(ours.attrib["width"]) == pytest.approx(4 * float(other.attrib["width"]))
    assert (other.attrib["class"], ours.attrib["class"]) == ("bench-other", "bench-ours")
    assert [each.text for each in _elements(drawn, "text")] == [
        "times faster", NAMES[0], "1.00", NAMES[1], "4.00",
    ]  # fmt: skip
    assert drawn.words == "PyTorch eager FP32: 1.00; sr-deploy OpenVINO INT8: 4.00"


def test_spreads_are_ordered() -> None:
    drawn = drawing.spreads("times", [("a", (1.0, 2.0, 4.0, 8.0, 10.0))])
    (box,) = _elements(drawn, "rect")
    line, median = (each.attrib for each in _elements(drawn, "line")[-2:])
    low = float(box.attrib["x"])
    high = low + float(box.attrib["width"])
    places = [float(line["x1"]), low, float(median["x1"]), high, float(line["x2"])]
    assert places == sorted(places)
    assert high - float(median["x1"]) == pytest.approx(float(median["x1"]) - low, abs=0.2)


def test_parts_are_adjacent_and_add_up() -> None:
    values = [("a", {"engine": 1.0, "network": 3.0}), ("b", {"network": 2.0})]
    drawn = drawing.parts("stages", values)
    legend, (first, second, alone) = (lambda all_: (all_[:2], all_[2:]))(_elements(drawn, "rect"))
    end = float(first.attrib["x"]) + float(first.attrib["width"])
    assert float(second.attrib["x"]) == pytest.approx(end, abs=0.1)
    assert float(alone.attrib["width"]) == pytest.approx(2 * float(first.attrib["width"]), abs=0.1)
    assert alone.attrib["class"] == second.attrib["class"] == legend[1].attrib["class"]


@pytest.mark.parametrize("joined", [True, False])
def test_marks_never_overlap(joined: bool) -> None:
    points = [(1.0, 1.0 + 0.001 * i) for i in range(12)]
    lines = [(i, [(0.5, 0.5), point] if joined else [point]) for i, point in enumerate(points)]
    drawn = drawing.plot(
        "plot", Axis.logarithmic([0.5, 1.0]), Axis.linear([0.0, 2.0]), lines, ("x", "y")
    )
    marks = [each.attrib for each in _elements(drawn, "circle") if each.attrib["r"] == "9"]
    assert len(marks) == 12
    for one, other in itertools.combinations(marks, 2):
        apart = abs(float(one["cy"]) - float(other["cy"]))
        assert apart >= 19.9 or one["cx"] != other["cx"]
    assert all(0 < float(each["cy"]) < drawn.height for each in marks)


def test_the_front_joins_the_pareto_optimal_points() -> None:
    points = [(1.0, 100.0), (2.0, 50.0), (1.5, 40.0), (4.0, 30.0)]
    drawn = drawing.plot(
        "plot",
        Axis.linear([0.0, 4.0]),
        Axis.linear([0.0, 100.0]),
        [(i, [point]) for i, point in enumerate(points)],
        ("x", "y"),
        front=True,
    )
    (front,) = _elements(drawn, "polyline")
    assert len(front.attrib["points"].split()) == 3  # without the third point


def test_titles_are_wrapped_to_the_width() -> None:
    drawn = drawing.bars("word " * 30, [("a", 1.0)], "{}")
    lines = [each.text or "" for each in _elements(drawn, "text")][:-2]
    assert len(lines) >= 3
    assert max(map(len, lines)) <= 48


def test_stacked_drawings_are_below_one_another() -> None:
    one = drawing.bars("one", [("a", 1.0)], "{}")
    both = drawing.stacked([one, Drawing.empty(), one])
    assert both.height == 2 * one.height
    moves = [each.attrib["transform"] for each in _elements(both, "g")]
    assert moves == ["translate(0 0)", f"translate(0 {one.height})"]
    assert f'viewBox="0 0 {WIDTH} {2 * one.height}"' in both.svg()


def test_names_cannot_become_markup() -> None:
    drawn = drawing.bars("<b>", [("<script>", 1.0)], "{}")
    assert not re.search("<(b|script)>", drawn.svg())
