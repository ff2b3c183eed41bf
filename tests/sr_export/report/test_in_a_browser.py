"""The report in a browser: it loads offline, and its controls work."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from sr_export.report import page, search_chart
from tests.sr_export.report.browser import Browser, started
from tests.sr_export.report.samples import QUANTIZATION, colored, manifest, only_fp32, refusing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

GRAY, RED, GREEN, BLUE = (128, 128, 128), (200, 0, 0), (0, 200, 0), (0, 0, 200)
LEFT, RIGHT = (0.02, 0.8), (0.98, 0.8)
"""Positions in the image, relative to its width and height, away from all labels."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    yield from started(tmp_path_factory.mktemp("chromium"))


@pytest.fixture
def report(browser: Browser, tmp_path: Path) -> Browser:
    """The report on one scene, opened and scrolled to it."""
    return opened(browser, tmp_path, page(manifest(), [colored()]))


def opened(browser: Browser, folder: Path, source: str, width: int = 1280) -> Browser:
    path = folder / "report.html"
    path.write_text(source, encoding="utf-8")
    browser.resize(width, 900, touch=width < 500)
    browser.open(path.as_uri())
    browser.evaluate("document.querySelector('.scene')?.scrollIntoView()")
    return browser


def place(browser: Browser, across: float, down: float) -> tuple[float, float]:
    """Return the window coordinates of a position in the image."""
    box = browser.evaluate(
        "(({x, y, width, height}) => [x, y, width, height])"
        "(document.querySelector('.layers').getBoundingClientRect())"
    )
    return box[0] + across * box[2], box[1] + down * box[3]


def color(browser: Browser, across: float, down: float) -> tuple[int, ...]:
    """Return the visible color at a position in the image."""
    seen = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))
    x, y = place(browser, across, down)
    return tuple(map(int, seen[int(y), int(x)]))


def split(browser: Browser) -> float:
    """Return the position of the divider, from the clipping of the left image."""
    clipped = browser.evaluate("getComputedStyle(document.querySelector('.left')).clipPath")
    found = re.fullmatch(r"inset\(0px ([\d.]+)% 0px 0px\)", clipped)
    assert found is not None, clipped
    return 100 - float(found[1])


def choose(browser: Browser, select: int, name: str) -> None:
    browser.evaluate(
        f"((select) => {{ select.value = '{name}';"
        " select.dispatchEvent(new Event('input', {bubbles: true})); })"
        f"(document.querySelectorAll('.scene select')[{select}])"
    )


def complaints(browser: Browser) -> list[dict[str, Any]]:
    """Return all errors since the page was opened."""
    kinds = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
    return [each for kind in (*kinds, "Network.loadingFailed") for each in browser.told(kind)]


@pytest.mark.parametrize(
    "source",
    [
        page(manifest(), [colored()]),
        page(refusing("too far"), [colored()]),
        page(only_fp32(), []),
    ],
    ids=["all", "refused", "FP32"],
)
def test_it_loads_offline_and_without_errors(browser: Browser, tmp_path: Path, source: str) -> None:
    opened(browser, tmp_path, source)
    assert complaints(browser) == []
    asked = [each["request"]["url"] for each in browser.told("Network.requestWillBeSent")]
    assert [each for each in asked if not each.startswith("data:")] == [
        (tmp_path / "report.html").as_uri()
    ]
    assert browser.evaluate("[...document.images].every((each) => each.naturalWidth > 0)")


def test_the_policy_forbids_the_network(report: Browser) -> None:
    refused = report.evaluate("""new Promise((resolve) => {
        document.addEventListener("securitypolicyviolation", (event) =>
            resolve(event.effectiveDirective));
        new Image().src = "http://127.0.0.1:9/pixel.png";
    })""")
    assert refused == "img-src"


def test_a_hostile_name_is_shown_and_not_run(browser: Browser, tmp_path: Path) -> None:
    name = "<img src=x onerror='window.ran = true'><script>window.ran = true</script>"
    opened(browser, tmp_path, page(manifest(name), [colored(name)]))
    assert browser.evaluate("[document.querySelector('h1').innerText, document.title]") == [
        name,
        f"{name}: quality report",
    ]
    assert browser.evaluate("document.querySelector('.scene h3').innerText") == name
    assert browser.evaluate("window.ran") is None
    assert complaints(browser) == []


def test_it_begins_with_bicubic_beside_the_smallest_precision(report: Browser) -> None:
    assert split(report) == 50
    assert (color(report, *LEFT), color(report, *RIGHT)) == (GRAY, BLUE)


def test_the_mouse_moves_the_divider(report: Browser) -> None:
    assert color(report, 0.35, 0.8) == GRAY
    report.drag(place(report, 0.5, 0.6), place(report, 0.2, 0.6))
    assert split(report) == pytest.approx(20, abs=0.5)  # half a percent is three pixels
    assert color(report, 0.35, 0.8) == BLUE
    assert color(report, 0.1, 0.8) == GRAY


def test_a_click_moves_the_divider(report: Browser) -> None:
    there = place(report, 0.75, 0.9)
    report.drag(there, there)
    assert split(report) == pytest.approx(75, abs=0.5)
    assert color(report, 0.7, 0.8) == GRAY


def test_a_finger_moves_the_divider(browser: Browser, tmp_path: Path) -> None:
    opened(browser, tmp_path, page(manifest(), [colored()]), width=390)
    browser.swipe(place(browser, 0.5, 0.6), place(browser, 0.8, 0.6))
    assert split(browser) == pytest.approx(80, abs=2)
    assert color(browser, 0.7, 0.8) == GRAY


def test_keys_move_the_divider(report: Browser) -> None:
    report.evaluate("document.querySelector('.divider').focus()")
    report.press("ArrowRight", 39)
    assert split(report) == pytest.approx(51, abs=0.01)
    report.press("Home", 36)
    assert split(report) == 0
    assert color(report, 0.1, 0.8) == BLUE
    said = report.evaluate("document.querySelector('.divider').getAttribute('aria-valuetext')")
    assert said == "0 % Bicubic, the rest INT8"


def test_selects_change_the_images(report: Browser) -> None:
    choose(report, 0, "FP32")
    choose(report, 1, "FP16")
    assert (color(report, *LEFT), color(report, *RIGHT)) == (RED, GREEN)
    shown = report.evaluate(
        "[...document.querySelectorAll('.left figcaption, .right figcaption')]"
        ".map((each) => each.innerText).join()"
    )
    assert shown == "FP32,FP16"
    choose(report, 0, "FP16")
    assert (color(report, *LEFT), color(report, *RIGHT)) == (GREEN, GREEN)


@pytest.mark.parametrize("width", [320, 390, 600, 770, 820, 1280])
def test_nothing_overflows_at_the_side(browser: Browser, tmp_path: Path, width: int) -> None:
    opened(browser, tmp_path, page(refusing("word " * 40), [colored("w" * 90)]), width)
    assert browser.evaluate("document.documentElement.scrollWidth") == width


def test_it_is_dark_if_preferred(report: Browser) -> None:
    paper = "getComputedStyle(document.body).backgroundColor"
    report.prefer("light")
    light = report.evaluate(paper)
    report.prefer("dark")
    assert (light, report.evaluate(paper)) == ("rgb(255, 255, 255)", "rgb(18, 22, 27)")


def test_on_paper_all_versions_stand_side_by_side(report: Browser) -> None:
    report.ask("Emulation.setEmulatedMedia", media="print")
    try:
        seen = report.evaluate(
            "[...document.querySelectorAll('.layer')]"
            ".map((each) => getComputedStyle(each).visibility + getComputedStyle(each).clipPath)"
        )
        assert seen == ["visiblenone"] * 5
        assert report.evaluate("getComputedStyle(document.querySelector('.divider')).display") == (
            "none"
        )
    finally:
        report.ask("Emulation.setEmulatedMedia", media="")


def test_without_scripts_all_versions_stand_side_by_side(browser: Browser, tmp_path: Path) -> None:
    browser.ask("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened(browser, tmp_path, page(manifest(), [colored()]))
        boxes = browser.evaluate(
            "[...document.querySelectorAll('.layer, .divider, .controls')]"
            ".map((each) => each.getClientRects().length)"
        )
        assert boxes == [0, 1, 1, 1, 1, 1, 0]
    finally:
        browser.ask("Emulation.setScriptExecutionDisabled", value=False)


def test_the_chart_is_a_standalone_image(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "search.svg"
    path.write_text(search_chart(QUANTIZATION), encoding="utf-8")
    browser.resize(960, 620)
    browser.prefer("light")
    browser.open(path.as_uri())
    assert complaints(browser) == []
    seen = np.asarray(Image.open(io.BytesIO(browser.screenshot())).convert("RGB"))
    assert (seen == (0x0B, 0x6B, 0xCB)).all(axis=2).sum() > 100  # the mark of the taken step
