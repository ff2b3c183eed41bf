"""The page of a record: complete, offline and readable on a phone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from sr_bench import record_files, tables
from sr_bench.page import page
from sr_export.report import Scene
from tests.sr_bench.examples import FULL, PRECISIONS, QUALITY, SPEED
from tests.sr_export.report.browser import Browser, started

NOISE = np.random.default_rng(0).integers(0, 256, (64, 48, 3), np.uint8)
SCENE = Scene("noise.png", NOISE[::2, ::2].copy(), {"fp32": NOISE, "int8": NOISE // 2}, NOISE)
PAGES = {
    "full": page(FULL),
    "older": page(SPEED),
    "several": page(record_files.merged([SPEED, FULL])),
    "quality": page(QUALITY),
    "pictures": page(PRECISIONS, [SCENE]),
}


def test_everything_measured_is_on_the_page() -> None:
    text = PAGES["full"]
    for heading in (
        "64x32, frame in to frame out",
        "Speedup",
        "Distribution of times",
        "Throughput by size",
        "Quality by speed",
        "Stages of a call",
        "Ceilings of the machine",
    ):
        assert f"<h2>{heading}</h2>" in text
    assert "PyTorch compiled FP32: no compiler" in text
    assert "A CPU, 2 cores" in text
    assert "28 %" in text  # of its ceiling


def test_missing_values_have_no_chart() -> None:
    assert "Stages of a call" not in PAGES["older"]
    assert "Ceilings of the machine" not in PAGES["older"]


def test_rounds_that_disagree_are_a_warning() -> None:
    assert '<p class="warning">' in PAGES["older"]
    assert '<td data-label="Speedup">2.00*</td>' in PAGES["older"]


def test_a_quick_run_is_labelled() -> None:
    (benchmark,) = SPEED.series
    options = dataclasses.replace(benchmark.options, quick=True)
    quick = dataclasses.replace(benchmark, options=options)
    assert tables.QUICK in page(dataclasses.replace(SPEED, series=(quick,)))
    assert tables.QUICK not in PAGES["older"]


def test_images_are_side_by_side() -> None:
    text = PAGES["pictures"]
    assert [text.count(f"<figcaption>{name}<") for name in ("Bicubic", "FP32", "INT8")] == [1, 1, 1]
    assert "51.2 dB" in text


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from started(tmp_path_factory.mktemp("chromium"))


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("width", [1280, 390])
def test_it_loads_offline_and_fits(name: str, width: int, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES[name], encoding="utf-8")
    browser.resize(width, 900, touch=width < 500)
    browser.open(path.as_uri())
    asked = [each["request"]["url"] for each in browser.told("Network.requestWillBeSent")]
    assert [each for each in asked if not each.startswith("data:")] == [path.as_uri()]
    for trouble in ("Log.entryAdded", "Runtime.exceptionThrown", "Network.loadingFailed"):
        assert browser.told(trouble) == []
    assert browser.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [1280, 390])
def test_no_letter_of_a_chart_is_cut_off(width: int, browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "page.html"
    path.write_text(PAGES["full"], encoding="utf-8")
    browser.resize(width, 900, touch=width < 500)
    browser.open(path.as_uri())
    outside = browser.evaluate("""[...document.querySelectorAll("svg")].flatMap((svg) => {
        const {left, right, top, bottom} = svg.getBoundingClientRect();
        return [...svg.querySelectorAll("text")].filter((each) => {
            const box = each.getBoundingClientRect();
            return box.left < left || box.right > right || box.top < top || box.bottom > bottom;
        }).map((each) => each.textContent);
    })""")
    assert outside == []
