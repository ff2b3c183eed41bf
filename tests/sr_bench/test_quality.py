"""The quality protocol: filters like Pillow's and MATLAB's, scores, unsuitable images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr_bench import quality
from sr_bench.quality import FILTERS
from sr_bench.records import Configuration, Method
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_export.report import Scene
from tests import imresize
from tests.conftest import ROOT

Pixels = NDArray[np.uint8]


FP32 = Configuration("sr-deploy", "openvino", "fp32")
INT8 = Configuration("sr-deploy", "openvino", "int8")


def _save(path: Path, height: int, width: int, mode: str = "RGB") -> None:
    path.parent.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def _double(image: Pixels) -> Pixels:
    return image.repeat(2, 0).repeat(2, 1)


def _measured(truth: Path, low: Path | None, scale: int = 2) -> dict[str, Method]:
    done: list[str] = []
    chosen = quality.pairs(truth, low, scale)
    methods = quality.measure({FP32: _double}, chosen, scale, "double", done.append)
    assert done == [each.truth.name for each in chosen]
    return {each.name: each for each in methods}


PHOTO = ROOT / "examples" / "original" / "cat.png"


@pytest.mark.parametrize("scale", [2, 4])
def test_the_bicubic_row_has_the_figures_of_pillows_filter(scale: int, tmp_path: Path) -> None:
    truth = np.asarray(Image.open(PHOTO))[:256, :384]
    for folder, image in (("hr", truth), ("lr", imresize.shrunk(truth, scale))):
        (tmp_path / folder).mkdir()
        Image.fromarray(image).save(tmp_path / folder / "a.png")
    chosen = quality.pairs(tmp_path / "hr", tmp_path / "lr", scale)
    bicubic = FILTERS["bicubic"]

    def upscale(image: Pixels) -> Pixels:
        size = scale * image.shape[1], scale * image.shape[0]
        return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))

    def upscale_float(image: Pixels) -> Pixels:
        return quality.resize(image, (scale * image.shape[1], scale * image.shape[0]), bicubic)

    pillow = quality.measure({FP32: upscale}, chosen, scale, "pillow", lambda _: None)
    same = quality.measure({FP32: upscale_float}, chosen, scale, "the same", lambda _: None)
    assert same[3].scores == same[2].scores
    # Pillow rounds to levels between its two passes.
    assert same[2].mean().psnr == pytest.approx(pillow[3].mean().psnr, abs=0.05)
    assert same[2].mean().ssim == pytest.approx(pillow[3].mean().ssim, abs=0.001)


def test_making_the_low_resolution_is_nearly_that_of_matlab() -> None:
    truth = np.asarray(Image.open(PHOTO))
    made = quality.resize(truth, (225, 150), FILTERS["bicubic"])
    inner = np.s_[4:-4, 4:-4]  # at the border, MATLAB and Pillow differ
    expected = imresize.shrunk(truth, 2)
    assert np.abs(made[inner].astype(int) - expected[inner]).max() <= 1  # ties may round apart


def test_interpolation_filters_come_first(tmp_path: Path) -> None:
    _save(tmp_path / "hr/a.png", 40, 30)
    methods = _measured(tmp_path / "hr", None)
    assert list(methods) == ["nearest", "bilinear", "bicubic", "double"]
    assert methods["double"].scores == methods["nearest"].scores


def test_an_equal_image_has_no_psnr(tmp_path: Path) -> None:
    _save(tmp_path / "lr/a.png", 20, 20)
    (tmp_path / "hr").mkdir()
    low = np.asarray(Image.open(tmp_path / "lr/a.png"))
    Image.fromarray(_double(low)).save(tmp_path / "hr/a.png")
    score = _measured(tmp_path / "hr", tmp_path / "lr")["double"].scores["a.png"]
    assert score.psnr is None
    assert score.ssim == pytest.approx(1.0)


def test_sides_are_cropped_to_a_multiple_of_the_scale(tmp_path: Path) -> None:
    _save(tmp_path / "hr/a.png", 41, 31)
    _save(tmp_path / "lr/ax2.bmp", 20, 15)
    assert _measured(tmp_path / "hr", tmp_path / "lr")["double"].scores.keys() == {"a.png"}


def test_gray_is_measured_as_three_equal_channels(tmp_path: Path) -> None:
    _save(tmp_path / "hr/a.png", 40, 30, "L")
    assert _measured(tmp_path / "hr", None)["double"].scores["a.png"].psnr


def test_the_same_name_goes_before_the_one_with_the_scale(tmp_path: Path) -> None:
    _save(tmp_path / "hr/a.png", 40, 30)
    for name in ("a.png", "ax2.png"):
        _save(tmp_path / "lr" / name, 20, 15)
    assert quality.pairs(tmp_path / "hr", tmp_path / "lr", 2)[0].low == tmp_path / "lr/a.png"


@pytest.mark.parametrize(
    ("low", "message"),
    [("b.png", "a.png.*ax2"), ("a.txt", "lr")],
)
def test_a_missing_low_resolution_file_is_named(low: str, message: str, tmp_path: Path) -> None:
    _save(tmp_path / "hr/a.png", 40, 30)
    _save(tmp_path / "lr/b.png", 20, 15)
    (tmp_path / "lr/b.png").rename(tmp_path / "lr" / low)
    with pytest.raises((NotFoundError, InvalidInputError), match=message):
        quality.pairs(tmp_path / "hr", tmp_path / "lr", 2)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        quality.pairs(tmp_path / "nowhere", None, 2)


@pytest.mark.parametrize(
    ("height", "width", "mode", "message"),
    [
        (14, 40, "RGB", "40x14.*15.*scale 2"),
        (40, 30, "RGBA", "4 channels of uint8"),
        (48, 30, "RGB", "15x20.*15x24"),
    ],
)
def test_an_unsuitable_image_is_refused(
    height: int, width: int, mode: str, message: str, tmp_path: Path
) -> None:
    _save(tmp_path / "hr/a.png", height, width, mode)
    _save(tmp_path / "lr/a.png", 20, 15)
    with pytest.raises(InvalidInputError, match=message):
        _measured(tmp_path / "hr", tmp_path / "lr")


def test_precisions_are_compared_with_fp32(tmp_path: Path) -> None:
    _save(tmp_path / "hr" / "a.png", 40, 30)
    chosen = quality.pairs(tmp_path / "hr", None, 2)
    networks = {FP32: _double, INT8: lambda image: _double(image) ^ 1}
    *_, exact, other = quality.measure(networks, chosen, 2, "double", lambda _: None)
    assert (exact.name, other.name) == ("double FP32", "double INT8")
    assert exact.against_fp32 is None
    # Every value is one level off.
    assert set(other.against_fp32 or {}) == {"a.png"}
    assert other.worst_against_fp32() == pytest.approx(20 * math.log10(255))


def test_luma_and_rgb_have_their_own_figures(tmp_path: Path) -> None:
    """A truth that is brighter by 10 levels everywhere, inside a border that is excluded."""
    truth = np.full((32, 32, 3), 100, np.uint8)
    candidate = truth + np.uint8(10)
    candidate[:2] = 0
    score = quality.score(truth, candidate, 2)
    assert score.rgb_mse == 100.0
    assert score.rgb_psnr == pytest.approx(10 * math.log10(255**2 / 100))
    luma = 10 * (65.481 + 128.553 + 24.966) / 255  # BT.601 squeezes 256 levels into 220
    assert score.mse == pytest.approx(luma**2)
    assert score.psnr == pytest.approx(20 * math.log10(255 / luma))
    assert score.rgb_ssim is not None
    assert 0.98 < score.rgb_ssim < 1.0


def test_a_page_gets_the_pictures(tmp_path: Path) -> None:
    _save(tmp_path / "hr/a.png", 40, 30)
    scenes: list[Scene] = []
    chosen = quality.pairs(tmp_path / "hr", None, 2)
    networks = {FP32: _double, INT8: lambda image: _double(image) // 2}
    quality.measure(networks, chosen, 2, "double", lambda _: None, scenes)
    (scene,) = scenes
    assert scene.name == "a.png"
    assert scene.precisions == ["fp32", "int8"]
    assert scene.truth is not None
    assert scene.truth.shape == (40, 30, 3)
