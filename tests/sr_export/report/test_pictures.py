"""The shown parts of images."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_export.report import Scene
from sr_export.report.pictures import (
    CropWindow,
    amplified,
    as_png,
    bicubic,
    difference,
    largest_square,
    most_changed,
)
from tests.sr_export.report.samples import noise, plain


def test_a_scene_needs_fp32() -> None:
    with pytest.raises(ValueError, match="FP32"):
        Scene("cat.png", plain(0), {"int8": plain(0)}, None)


@pytest.mark.parametrize(
    ("outputs", "truth"),
    [
        ({"fp32": plain(0, 8, 8), "int8": plain(0, 8, 6)}, None),
        ({"fp32": plain(0, 8, 8)}, plain(0, 9, 8)),
        ({"fp32": plain(0, 8, 9)}, None),
        ({"fp32": plain(0, 3, 3)}, None),
        ({"fp32": plain(0, 8, 8)[..., :1]}, None),
    ],
    ids=["precision", "original", "uneven scale", "smaller", "channels"],
)
def test_shapes_must_fit(outputs: Any, truth: Any) -> None:
    with pytest.raises(ValueError, match=r"\(4, 4, 3\)"):
        Scene("cat.png", plain(0, 4, 4), outputs, truth)


def test_the_square_with_the_largest_sum_is_found() -> None:
    values = np.zeros((30, 40))
    values[12:15, 33:36] = 2.0
    values[3, 5] = 10.0  # one strong value is less than nine weak ones
    assert largest_square(values, 3) == (CropWindow(12, 33, 3, 3), 18.0)


def test_an_image_smaller_than_the_square_is_shown_whole() -> None:
    window, total = largest_square(np.ones((5, 70)), 48)
    assert (window.height, window.width, total) == (5, 48, 5 * 48.0)


def test_the_shown_part_is_where_the_network_changes_most() -> None:
    low = plain(100, 60, 60)
    output = plain(100, 120, 120)
    output[70:100, 80:110] = 160
    window = most_changed(Scene("a", low, {"fp32": output}, None), 30)
    assert window == CropWindow(70, 80, 30, 30)


def test_differences_have_no_sign_and_do_not_wrap() -> None:
    assert difference(plain(250), plain(3)).max() == 247
    assert difference(plain(3), plain(250)).max() == 247


@pytest.mark.parametrize(("largest", "gain"), [(0, 64), (1, 64), (5, 51), (100, 2), (200, 1)])
def test_differences_are_amplified_up_to_white(largest: int, gain: int) -> None:
    shown, found = amplified(plain(largest))
    assert found == gain
    assert shown.max() == largest * gain


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_is_exact(channels: int) -> None:
    image = noise(20, 30, channels)
    head, _, data = as_png(image).partition(",")
    assert head == "data:image/png;base64"
    decoded = np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))
    np.testing.assert_array_equal(decoded.reshape(image.shape), image)


@pytest.mark.parametrize("channels", [1, 3])
def test_bicubic_has_the_shape_of_the_output(channels: int) -> None:
    output = np.zeros((40, 60, channels), np.uint8)
    ramp = np.broadcast_to(np.arange(30, dtype=np.uint8)[:, None] * 4, (20, 30, channels))
    found = bicubic(Scene("a", np.ascontiguousarray(ramp), {"fp32": output}, None))
    assert found.shape == output.shape
    assert np.abs(np.diff(found[20, 10:50, 0].astype(int)) - 2).max() <= 1  # a ramp of half a step


def test_closeness_is_that_of_the_worst_precision() -> None:
    outputs = {"fp32": plain(100), "fp16": plain(101), "int8": plain(110)}
    scene = Scene("a", plain(100, 40, 60), outputs, None)
    assert scene.closeness() == pytest.approx(28.13, abs=0.01)  # 20 lg(255 / 10)
