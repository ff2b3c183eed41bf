"""PSNR and SSIM: by hand, by their definitions, and against scikit-image."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from skimage import color
from skimage import metrics as reference

from sr_export.metrics import luma, psnr, ssim, y_psnr, y_ssim
from tests import imresize
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def noise(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    """Return reproducible noise over the whole range."""
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def load_rgb(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def enlarge(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Upscale bicubically on float planes, rounded once at the end as in MATLAB's imresize."""
    size = (image.shape[1] * scale, image.shape[0] * scale)
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BICUBIC))
        for plane in np.moveaxis(image.astype(np.float32), -1, 0)
    ]
    return np.asarray(np.stack(planes, axis=-1).round().clip(0, 255), dtype=np.uint8)


def direct_ssim(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Compute Wang's definition directly: one 11x11 window at a time, with weighted moments."""
    taps = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    window = np.outer(taps, taps) / np.outer(taps, taps).sum()
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for top in range(a.shape[0] - 10):
        for left in range(a.shape[1] - 10):
            x, y = (plane[top : top + 11, left : left + 11] for plane in (a, b))
            mean_x, mean_y = (window * x).sum(), (window * y).sum()
            var_x = (window * (x - mean_x) ** 2).sum()
            var_y = (window * (y - mean_y) ** 2).sum()
            covariance = (window * (x - mean_x) * (y - mean_y)).sum()
            brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
            values.append(brightness * (2 * covariance + c2) / (var_x + var_y + c2))
    return float(np.mean(values))


class TestPsnr:
    def test_of_equal_arrays_is_infinite(self) -> None:
        assert psnr(noise(4, 5), noise(4, 5)) == math.inf

    def test_by_hand(self) -> None:
        # One of four values is off by 10: the mean squared error is 25.
        a = np.array([[0, 10], [20, 30]], np.uint8)
        b = np.array([[0, 10], [20, 40]], np.uint8)
        assert psnr(a, b) == pytest.approx(10 * math.log10(65025 / 25), abs=1e-12)
        assert psnr(a, b) == pytest.approx(34.1514, abs=1e-4)

    def test_does_not_wrap_around_in_uint8(self) -> None:
        black, white = np.zeros(3, np.uint8), np.full(3, 255, np.uint8)
        assert psnr(black, white) == psnr(white, black) == 0.0

    def test_peak_of_one(self) -> None:
        a, b = np.zeros((2, 2), np.float32), np.full((2, 2), 0.1)
        assert psnr(a, b, peak=1.0) == pytest.approx(20.0, abs=1e-9)

    @pytest.mark.parametrize(
        ("a", "b", "peak", "fact"),
        [
            (np.zeros(3), np.zeros(4), 255.0, r"\(3,\) and \(4,\)"),
            (np.zeros((0, 3)), np.zeros((0, 3)), 255.0, "empty"),
            (np.zeros(3), np.zeros(3), 0.0, r"peak is 0\.0"),
            (np.zeros(3), np.zeros(3), math.nan, "peak is nan"),
        ],
    )
    def test_refuses(
        self, a: NDArray[np.float64], b: NDArray[np.float64], peak: float, fact: str
    ) -> None:
        with pytest.raises(ValueError, match=fact):
            psnr(a, b, peak)


class TestLuma:
    def test_known_colors(self) -> None:
        # Rounded, these are MATLAB's: rgb2ycbcr of black, white, red, green, blue.
        colors = np.array(
            [[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8
        )
        expected = [[16.0, 235.0, 81.481, 144.553, 40.966]]
        np.testing.assert_allclose(luma(colors), expected, atol=1e-9)
        assert luma(colors).dtype == np.float64

    @pytest.mark.parametrize("shape", [(4, 4), (4, 4, 4), (1, 4, 4, 3)])
    def test_refuses_other_shapes(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(ValueError, match=re.escape(str(shape))):
            luma(np.zeros(shape, np.uint8))

    def test_refuses_other_dtypes(self) -> None:
        with pytest.raises(ValueError, match="float32"):
            luma(np.zeros((4, 4, 3), np.float32))


class TestSsim:
    def test_of_equal_planes_is_one(self) -> None:
        plane = noise(16, 20)
        assert ssim(plane, plane) == pytest.approx(1.0, abs=1e-12)

    def test_follows_the_definition(self) -> None:
        a = noise(14, 17).astype(np.float64)
        b = np.clip(a + noise(14, 17, seed=1) / 4.0, 0, 255)
        # The moments are computed differently (E[x^2] - E[x]^2), hence not to the last bit.
        assert ssim(a, b) == pytest.approx(direct_ssim(a, b), abs=1e-9)

    def test_of_flat_planes_is_the_brightness_term(self) -> None:
        a, b, c1 = 100.0, 120.0, 2.55**2
        expected = (2 * a * b + c1) / (a * a + b * b + c1)
        assert ssim(np.full((11, 11), a), np.full((11, 11), b)) == pytest.approx(expected, abs=1e-9)

    def test_peak_scales_with_the_values(self) -> None:
        a, b = noise(16, 16), noise(16, 16, seed=1)
        assert ssim(a / 255.0, b / 255.0, peak=1.0) == pytest.approx(ssim(a, b), abs=1e-9)

    @pytest.mark.parametrize(
        ("a_shape", "b_shape", "fact"),
        [
            ((12, 12), (12, 13), r"\(12, 12\) and \(12, 13\)"),
            ((12, 12, 3), (12, 12, 3), r"\(12, 12, 3\)"),
            ((12, 10), (12, 10), r"\(12, 10\).*11"),
        ],
    )
    def test_refuses_shapes(
        self, a_shape: tuple[int, ...], b_shape: tuple[int, ...], fact: str
    ) -> None:
        with pytest.raises(ValueError, match=fact):
            ssim(np.zeros(a_shape), np.zeros(b_shape))

    def test_refuses_a_negative_peak(self) -> None:
        with pytest.raises(ValueError, match=r"-1\.0"):
            ssim(np.zeros((11, 11)), np.zeros((11, 11)), peak=-1.0)


class TestShave:
    def test_ignores_the_border(self) -> None:
        image = noise(20, 24, 3)
        framed = image.copy()
        framed[:2] = framed[-2:] = 0
        framed[:, :2] = framed[:, -2:] = 0
        assert y_psnr(image, framed, 2) == math.inf
        assert y_ssim(image, framed, 2) == pytest.approx(1.0, abs=1e-12)
        assert y_psnr(image, framed, 1) < 30
        assert y_ssim(image, framed, 1) < 0.9999

    def test_zero_is_the_whole_image(self) -> None:
        a, b = noise(12, 13, 3), noise(12, 13, 3, seed=1)
        assert y_psnr(a, b, 0) == psnr(luma(a), luma(b))
        assert y_ssim(a, b, 0) == ssim(luma(a), luma(b))

    @pytest.mark.parametrize("shave", [-1, 4])
    def test_refuses_a_border_of_the_whole_image(self, shave: int) -> None:
        image = noise(8, 9, 3)
        with pytest.raises(ValueError, match=rf"{shave}.* 3 .*9x8"):
            y_psnr(image, image, shave)

    def test_refuses_planes_and_other_sizes(self) -> None:
        with pytest.raises(ValueError, match=r"\(8, 8\)"):
            y_psnr(noise(8, 8), noise(8, 8), 1)
        with pytest.raises(ValueError, match=r"\(8, 8, 3\) and \(8, 9, 3\)"):
            y_ssim(noise(8, 8, 3), noise(8, 9, 3), 1)


@pytest.mark.parametrize("scale", [2, 4])
def test_agrees_with_scikit_image(scale: int) -> None:
    truth = load_rgb(ROOT / "examples" / "original" / "cat.png")[:256, :384]
    candidate = enlarge(imresize.shrunk(truth, scale), scale)
    inner = np.s_[scale:-scale, scale:-scale]
    first, second = (color.rgb2ycbcr(each)[inner][..., 0] for each in (truth, candidate))
    peak_ratio: Any = reference.peak_signal_noise_ratio  # not typed
    similar: Any = reference.structural_similarity
    decibels = peak_ratio(first, second, data_range=255)
    assert y_psnr(truth, candidate, scale) == pytest.approx(decibels, abs=1e-3)
    similarity = similar(
        *(first, second),
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert y_ssim(truth, candidate, scale) == pytest.approx(similarity, abs=1e-5)
