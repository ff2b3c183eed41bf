"""The content of the report, parsed as HTML."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from sr_deploy.bundle.manifest import Quality, Step
from sr_export.report import Scene, page
from sr_export.report.chart import NOTHING
from sr_export.report.page import MINUS, change
from tests.sr_export.report.samples import (
    QUANTIZATION,
    colored,
    manifest,
    noise,
    only_fp32,
    plain,
    refusing,
    variant,
)

HOSTILE = "\"'></script></title><script>alert(1)</script><img src=x onerror=alert(1)>$style.png"


class Elements(HTMLParser):
    """Collects elements and text of a page."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if not self.found or self.found[-1][0] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.found if name == tag]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(*arguments: Any) -> Elements:
    return Elements(page(*arguments))


def test_the_table_has_the_figures_of_every_precision() -> None:
    found = read(manifest(), [], {"fp32.onnx": 2_430_000, "int8.onnx": 712_345})
    for expected in (
        f"FP32 reference {NOTHING} {NOTHING} {NOTHING} 2.4 MB",
        f"FP16 61.2 dB 0.9998 2 levels of 255 0.00 dB {NOTHING}",
        f"INT8 46.3 dB 0.9931 14 levels of 255 {MINUS}0.02 dB 712 kB",
        "on 5 held-out images",
    ):
        assert expected in found.text


def test_an_equal_precision_has_no_decibels() -> None:
    given = manifest()
    equal = variant("bf16", Quality(None, 1.0, 0, None, 1))
    found = read(replace(given, variants=(given.variants[0], equal)), [])
    assert f"BF16 equal 1.0000 0 levels of 255 {NOTHING} {NOTHING}" in found.text


def test_a_refused_precision_has_its_reason() -> None:
    found = read(refusing("44.7 dB is <all> it reaches"), [colored()])
    assert "INT8 Not offered: 44.7 dB is <all> it reaches" in found.text
    assert "None was taken: INT8 is not offered." in found.text
    assert "INT8 (refused)" in found.text


def test_the_versions_of_an_image_can_be_selected() -> None:
    found = read(manifest(), [colored()])
    names = ["Bicubic", "FP32", "FP16", "INT8", "Original"]
    assert [each["data-picture"] for each in found.all("figure") if "data-picture" in each] == names
    assert len(found.all("option")) == 2 * len(names)


def test_fp32_alone_is_compared_with_bicubic_and_the_original() -> None:
    outputs = {"fp32": plain(90)}
    found = read(only_fp32(), [Scene("a", plain(100, 40, 60), outputs, plain(100))])
    layers = [each["data-picture"] for each in found.all("figure")]
    assert layers == ["Bicubic", "FP32", "Original"]
    assert "This bundle has no other precision." in found.text
    for absent in ("Largest differences", "INT8 placement search", "reference"):
        assert absent not in found.text


def test_without_images_the_tables_remain() -> None:
    found = read(manifest(), [])
    assert not found.all("img")
    assert "See for yourself" not in found.text
    assert "INT8 placement search" in found.text


def test_gray_images_are_shown() -> None:
    low, output = noise(30, 30, 1), noise(60, 60, 1, seed=1)
    found = read(manifest(), [Scene("a", low, {"fp32": output, "int8": noise(60, 60, 1)}, None)])
    assert len(found.all("img")) == 3 + 3


def test_the_worst_place_is_found_in_all_images() -> None:
    good, bad = plain(100, 100, 100), plain(100, 100, 100)
    bad[60:90, 40:70] = 105
    scenes = [
        Scene(name, plain(100, 50, 50), {"fp32": good, "int8": output}, None)
        for name, output in (("one.png", good), ("two.png", bad))
    ]
    found = read(manifest(), scenes)
    place = re.search(
        r"In two.png, at (\d+) from the left and (\d+) from the top: up to 5", found.text
    )
    assert place is not None
    left, top = map(int, place.groups())
    assert 22 <= left <= 40  # 48 pixels from there hold the 30 that differ
    assert 42 <= top <= 60
    assert "Difference, 51 times as large" in found.text


def test_a_precision_without_differences_is_equal() -> None:
    outputs = {"fp32": plain(9), "fp16": plain(9)}
    found = read(manifest(), [Scene("a", plain(9, 40, 60), outputs, None)])
    assert "All values equal those of FP32." in found.text


def test_each_step_of_the_search_shows_its_changes() -> None:
    steps = (*QUANTIZATION.steps, Step(("last",), True, 0.95, None))
    found = read(replace(manifest(), int8=replace(QUANTIZATION, steps=steps)), [])
    table = found.text.partition("Kept in half precision")[2]
    assert table.startswith(
        " 1 38.4 dB 100 % nothing 2 43.9 dB 98 % first 3 46.3 dB 93 % + last"
        f" 4 equal 95 % {MINUS} first; rounding optimized"
    )


def test_names_from_untrusted_files_stay_text() -> None:
    given = manifest(HOSTILE)
    steps = (Step((HOSTILE,), False, 1.0, 38.4),)
    given = replace(
        given,
        source=replace(given.source, name=HOSTILE, taken=HOSTILE),
        model=replace(given.model, architecture=HOSTILE),
        int8=replace(QUANTIZATION, calibration=HOSTILE, steps=steps),
        refused={"bf16": HOSTILE},
        tools={HOSTILE: HOSTILE},
    )
    hostile, tame = read(given, [colored(HOSTILE)]), read(manifest(), [colored()])
    assert len(hostile.all("script")) == len(tame.all("script")) == 1
    assert len(hostile.all("img")) == len(tame.all("img"))
    assert not [each for _, each in hostile.found if "onerror" in each]
    assert hostile.text.count(HOSTILE) >= 8


def test_a_name_that_is_not_utf8_can_be_written() -> None:
    page(manifest("caf\udce9"), [colored("caf\udce9.png")]).encode()


def test_the_policy_allows_this_style_and_this_script_only() -> None:
    source = page(manifest(), [colored()])
    policy = Elements(source).all("meta")[1]["content"]
    rules = {name: rule for name, _, rule in (each.partition(" ") for each in policy.split("; "))}
    assert rules.pop("default-src") == rules.pop("base-uri") == rules.pop("form-action") == "'none'"
    assert rules.pop("img-src") == "data:"
    for element in ("style", "script"):
        contents = re.findall(f"<{element}>(.*?)</{element}>", source, re.DOTALL)
        digests = [hashlib.sha256(each.encode()).digest() for each in contents]
        hashes = [f"'sha256-{base64.b64encode(each).decode()}'" for each in digests]
        assert rules.pop(f"{element}-src").split() == hashes
    assert not rules


def test_nothing_is_loaded_from_elsewhere() -> None:
    found = read(manifest(), [colored()])
    addresses = [
        value
        for _, attributes in found.found
        for name, value in attributes.items()
        if name in ("src", "href", "srcset", "action", "xlink:href")
    ]
    assert len(addresses) > 10
    assert {each.partition(":")[0] for each in addresses} == {"data"}


def test_the_page_is_limited_in_size_and_reports_omissions() -> None:
    # Noise is what PNG cannot compress; the largest amounts of it in the last scenes.
    scenes = []
    for i in range(1, 7):
        outputs = {"fp32": noise(256, 256, seed=i), "int8": noise(256, 256, seed=i) // 10 * i}
        scenes.append(Scene(f"image {i}", noise(128, 128), outputs, noise(256, 256)))
    source = page(manifest(), scenes)
    assert len(source.encode()) < 2_000_000
    shown = re.findall(r'<h3 dir="auto">(image \d)</h3>', source)
    assert 1 < len(shown) < len(scenes)
    assert f"the {len(shown)} of 6 images that differ most" in source
    ordered = sorted(scenes, key=Scene.closeness)
    assert shown == [each.name for each in ordered[: len(shown)]]


@pytest.mark.parametrize(
    ("decibels", "expected"),
    [(0.004, "0.00 dB"), (-0.004, "0.00 dB"), (0.1, "+0.10 dB"), (-0.1, f"{MINUS}0.10 dB")],
)
def test_a_change_has_a_sign_unless_it_rounds_to_zero(decibels: float, expected: str) -> None:
    assert change(decibels) == expected
