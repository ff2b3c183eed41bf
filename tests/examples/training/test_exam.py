"""Figures and pictures of an exam."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from examples.training.degradation import Bicubic, Noise
from examples.training.exam import SAMPLE_SIDE, Exam, save_samples
from examples.training.photos import gather
from sr_deploy import images
from tests.examples.training.conftest import drawing, save


class Enlarge(nn.Module):
    """Bicubic, or repeated pixels."""

    def __init__(self, scale: int, mode: str) -> None:
        super().__init__()
        self.scale, self.mode = float(scale), mode
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=self.scale, mode=self.mode)


def exam(folder: Path, scale: int = 2, channels: int = 3) -> Exam:
    photos = gather([str(folder)], scale)
    degradation = Bicubic() if scale > 1 else Noise()
    return Exam(photos, scale=scale, channels=channels, degradation=degradation)


@pytest.mark.parametrize("channels", [1, 3])
def test_better_networks_get_better_figures(folder: Path, channels: int) -> None:
    taken = exam(folder, channels=channels)
    nearest, bicubic = taken.take(Enlarge(2, "nearest")), taken.take(Enlarge(2, "bicubic"))
    assert bicubic.psnr > nearest.psnr + 0.3
    assert bicubic.ssim > nearest.ssim
    assert taken.take(Enlarge(2, "nearest")).psnr == nearest.psnr


def test_doing_nothing_to_noise_gives_the_noise(tmp_path: Path) -> None:
    save(tmp_path / "gray" / "a.png", np.full((128, 128, 3), 128, np.uint8))
    result = exam(tmp_path / "gray", 1).take(Enlarge(1, "nearest"))
    sigma = np.random.default_rng(0).uniform(0, 50)  # of photo 0, as the exam draws it
    weights = np.array([65.481, 128.553, 24.966]) / 255
    expected = 20 * np.log10(255 / (sigma * np.linalg.norm(weights)))
    # Half a decibel for what is clipped, rounded, and random in 128x128 pixels.
    assert result.psnr == pytest.approx(expected, abs=0.5)


def test_pairs_are_taken_as_they_are(tmp_path: Path) -> None:
    save(tmp_path / "HR" / "a.png", np.repeat(np.repeat(drawing(1), 2, 0), 2, 1))
    save(tmp_path / "LRx2" / "a.png", drawing(1))
    assert exam(tmp_path).take(Enlarge(2, "nearest")).psnr == np.inf


def test_samples_are_low_output_and_truth_side_by_side(folder: Path, tmp_path: Path) -> None:
    result = exam(folder).take(Enlarge(2, "bicubic"))
    assert result.samples.shape == (4 * SAMPLE_SIDE, 3 * SAMPLE_SIDE, 3)
    low, _, truth = np.split(result.samples[:96, :], 3, axis=1)
    photo = images.read(min(folder.iterdir())).pixels
    assert np.array_equal(truth[:, :96], photo[:, 12:108])  # the square in its middle
    assert np.array_equal(low[::2, ::2], low[1::2, 1::2])
    save_samples(tmp_path / "s.png", result.samples)
    assert np.array_equal(images.read(tmp_path / "s.png").pixels, result.samples)


def test_samples_of_one_channel_are_gray_files(folder: Path, tmp_path: Path) -> None:
    save_samples(tmp_path / "s.png", exam(folder, 2, 1).take(Enlarge(2, "nearest")).samples)
    assert images.inspect(tmp_path / "s.png").channels == 1


@pytest.mark.parametrize("size", [(203, 135), (135, 203), (601, 547)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pairs_of_any_size_line_up(tmp_path: Path, size: tuple[int, int], scale: int) -> None:
    low = drawing(1, *size)
    save(tmp_path / "HR" / "a.png", np.repeat(np.repeat(low, scale, 0), scale, 1))
    save(tmp_path / f"LRx{scale}" / "a.png", low)
    assert exam(tmp_path, scale).take(Enlarge(scale, "nearest")).psnr == np.inf
