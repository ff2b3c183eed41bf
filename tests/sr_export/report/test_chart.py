"""The chart of the INT8 search."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from sr_deploy.bundle.manifest import Step
from sr_export.report import search_chart
from sr_export.report.chart import HEIGHT, WIDTH, percent
from tests.sr_export.report.samples import QUANTIZATION

SVG = "{http://www.w3.org/2000/svg}"


def points(root: ET.Element) -> list[tuple[float, float]]:
    path = root.find(f"{SVG}polyline")
    assert path is not None
    pairs = [each.split(",") for each in path.attrib["points"].split()]
    return [(float(x), float(y)) for x, y in pairs]


def texts(root: ET.Element) -> list[str]:
    return [each.text or "" for each in root.iter(f"{SVG}text")]


def test_it_is_a_standalone_svg() -> None:
    root = ET.fromstring(search_chart(QUANTIZATION))
    assert root.tag == f"{SVG}svg"
    assert "dB against FP32, worst image" in texts(root)
    assert "share of multiply-adds in INT8" in texts(root)


def test_steps_are_connected_in_order() -> None:
    found = points(ET.fromstring(search_chart(QUANTIZATION)))
    (x1, y1), (x2, y2), (x3, y3) = found
    assert x1 > x2 > x3  # less and less in INT8
    assert y1 > y2 > y3  # nearer and nearer to FP32; y points down
    # 38.4, 43.9 and 46.3 dB lie on a straight scale; coordinates have one decimal.
    assert (y1 - y2) / (y2 - y3) == pytest.approx(5.5 / 2.4, abs=0.02)


def test_ticks_are_round_and_include_all_steps() -> None:
    shown = texts(ET.fromstring(search_chart(QUANTIZATION)))
    shares = [each for each in shown if each.endswith(" %")]
    assert shares == [f"{each} %" for each in (90, 92, 94, 96, 98, 100)]
    assert shown[:6] == ["38", "40", "42", "44", "46", "48"]


def test_the_taken_step_is_marked() -> None:
    drawing = search_chart(QUANTIZATION)
    root = ET.fromstring(drawing)
    marked = [each for each in root.iter(f"{SVG}g") if "search-taken" in each.attrib["class"]]
    assert len(marked) == 1
    assert marked[0].findtext(f"{SVG}text") == "3"
    assert "taken: 46.3 dB, 93 % in INT8" in texts(root)


def test_no_step_is_marked_when_int8_is_not_offered() -> None:
    root = ET.fromstring(search_chart(QUANTIZATION, taken=False))
    assert not [each for each in root.iter(f"{SVG}g") if "search-taken" in each.attrib["class"]]
    assert "last tried: 46.3 dB, 93 % in INT8" in texts(root)


def test_it_is_described_in_words() -> None:
    root = ET.fromstring(search_chart(QUANTIZATION))
    assert root.findtext(f"{SVG}desc") == (
        "3 placements tried. The first: 38.4 dB, 100 % in INT8. "
        "The last: 46.3 dB, 93 % in INT8. The last one was taken."
    )
    assert root.attrib["aria-labelledby"].split() == [
        root.find(f"{SVG}{each}").attrib["id"] for each in ("title", "desc")
    ]


@pytest.mark.parametrize(
    "steps",
    [
        (Step((), False, 1.0, 50.0),),
        (Step((), False, 1.0, None),),
        (Step((), False, 0.5, 12.0), Step(("a",), False, 0.02, None)),
        tuple(Step(("a",) * i, False, 1 - i / 60, 20 + i) for i in range(30)),
        (Step((), False, 1.0, 31.234), Step(("a",), False, 0.99999, 31.235)),
    ],
    ids=["one", "equal", "wide", "many", "close"],
)
def test_every_search_stays_inside_the_picture(steps: tuple[Step, ...]) -> None:
    root = ET.fromstring(search_chart(replace(QUANTIZATION, steps=steps)))
    found = points(root)
    assert len(found) == len(steps)
    assert all(10 <= x <= WIDTH - 10 and 10 <= y <= HEIGHT - 10 for x, y in found)
    for each in root.iter(f"{SVG}text"):
        if "text-anchor" in each.attrib and each.text:
            left = float(each.attrib["x"])
            # System fonts are about 0.6 of their size wide, bold ones included: 8 units a letter.
            width = 8 * len(each.text)
            left -= {"start": 0, "middle": width / 2, "end": width}[each.attrib["text-anchor"]]
            assert -2 <= left <= left + width <= WIDTH + 2, each.text


def test_a_search_without_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match="no step"):
        search_chart(replace(QUANTIZATION, steps=()))


def test_a_share_is_never_rounded_up_to_100_percent() -> None:
    # 1000 * 0.29 is a little below 290 in binary.
    found = [percent(each) for each in (1.0, 0.9999, 0.29, 0.5)]
    assert found == ["100 %", "99.9 %", "29 %", "50 %"]
