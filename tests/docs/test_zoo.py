"""The zoo: its page shows its record, and references treat values as scripts do."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from zoo import catalogue, colors, origin, page


def test_the_page_shows_the_record() -> None:
    assert page.PAGE.read_text(encoding="utf-8") == page.text(page.read())


def test_the_record_belongs_to_the_catalogue() -> None:
    entries = {entry.name: entry for entry in catalogue.entries()}
    files = [file for o in json.loads(catalogue.FILE.read_text())["origins"] for file in o["files"]]
    assert len(entries) == len(files)
    for name, row in page.read().items():
        assert row["sha256"] == entries[name].sha256


@pytest.mark.parametrize("color", ["rgb", "bgr", "ycbcr", "ycbcr_studio", "y", "y_studio"])
def test_a_network_that_does_nothing_returns_the_image(color: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (6, 7, 3), np.uint8)
    exact, rounded = colors.run(image, lambda x: x, {"color": color, "input": [-1, 1]})
    assert np.abs(exact - image).max() <= 0.01
    # scripts convert to YCbCr in 8 bits, and round twice
    assert np.abs(rounded.astype(int) - image).max() <= (3 if color == "y" else 0)


def test_enlargement_residual_and_range_are_the_scripts() -> None:
    image = np.random.default_rng(1).integers(0, 256, (6, 7, 3), np.uint8)
    spec = {"enlarge": ["bicubic", 2], "residual": "minus", "input": [0, 255]}
    exact, _ = colors.run(image, lambda x: np.full_like(x, 10), spec)
    enlarged = np.asarray(Image.fromarray(image).resize((14, 12), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(exact, np.clip(enlarged.astype(float) - 10, 0, 255), atol=1e-3)


def test_definitions_of_a_script_run_nothing_else() -> None:
    code = "import nothing_of_this_name\n!pip install x\nclass Net:\n    a = 1\nNet.a = 1 / 0\n"
    names: dict[str, object] = {}
    exec(compile(origin.definitions(code), "script", "exec"), names)
    assert vars(names["Net"])["a"] == 1


def test_verdicts() -> None:
    assert page.verdict({"exit": 0, "max": 2.0}) == "right"
    assert page.verdict({"exit": 0, "max": 3.0, "assumed": []}) == "wrong"
    assert page.verdict({"exit": 0, "max": 3.0, "assumed": ["assumed: RGB"]}) == "assumed"
    assert page.verdict({"exit": 1, "error": "unknown"}) == "refused"
