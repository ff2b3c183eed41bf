"""Scores of networks, and sample images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from examples.training.dataset import find_photos
from examples.training.degradation import Bicubic, Noise
from examples.training.validation import SAMPLE_SIDE, Validation
from sr_deploy import images
from tests.examples.training.conftest import drawing, save


class Upscale(nn.Module):
    """Interpolation as a network."""

    def __init__(self, scale: int, mode: str) -> None:
        super().__init__()
        self.scale, self.mode = float(scale), mode
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.interpolate(x, scale_factor=self.scale, mode=self.mode)


def validation(folder: Path, scale: int = 2, channels: int = 3) -> Validation:
    photos = find_photos([str(folder)], scale)
    degradation = Bicubic() if scale > 1 else Noise()
    return Validation(photos, scale=scale, channels=channels, degradation=degradation)


@pytest.mark.parametrize("channels", [1, 3])
def test_better_networks_have_better_scores(folder: Path, channels: int) -> None:
    scorer = validation(folder, channels=channels)
    nearest, bicubic = scorer.score(Upscale(2, "nearest")), scorer.score(Upscale(2, "bicubic"))
    assert bicubic.psnr > nearest.psnr + 0.3
    assert bicubic.ssim > nearest.ssim
    assert scorer.score(Upscale(2, "nearest")).psnr == nearest.psnr


def test_the_identity_scores_the_noise(tmp_path: Path) -> None:
    save(tmp_path / "gray" / "a.png", np.full((128, 128, 3), 128, np.uint8))
    result = validation(tmp_path / "gray", 1).score(Upscale(1, "nearest"))
    sigma = np.random.default_rng(0).uniform(0, 50)  # drawn like for photo 0
    weights = np.array([65.481, 128.553, 24.966]) / 255
    expected = 20 * np.log10(255 / (sigma * np.linalg.norm(weights)))
    # 0.5 dB for clipping, rounding, and randomness in 128x128 pixels.
    assert result.psnr == pytest.approx(expected, abs=0.5)


def test_pairs_are_used_unchanged(tmp_path: Path) -> None:
    save(tmp_path / "HR" / "a.png", np.repeat(np.repeat(drawing(1), 2, 0), 2, 1))
    save(tmp_path / "LRx2" / "a.png", drawing(1))
    assert validation(tmp_path).score(Upscale(2, "nearest")).psnr == np.inf


def test_samples_show_low_resolution_output_and_truth(folder: Path, tmp_path: Path) -> None:
    result = validation(folder).score(Upscale(2, "bicubic"))
    assert result.samples.shape == (4 * SAMPLE_SIDE, 3 * SAMPLE_SIDE, 3)
    low, _, truth = np.split(result.samples[:96, :], 3, axis=1)
    photo = images.read(min(folder.iterdir())).pixels
    assert np.array_equal(truth[:, :96], photo[:, 12:108])  # the center square
    assert np.array_equal(low[::2, ::2], low[1::2, 1::2])
    result.save_samples(tmp_path / "s.png")
    assert np.array_equal(images.read(tmp_path / "s.png").pixels, result.samples)


def test_samples_of_one_channel_are_gray_files(folder: Path, tmp_path: Path) -> None:
    result = validation(folder, 2, 1).score(Upscale(2, "nearest"))
    result.save_samples(tmp_path / "s.png")
    assert images.inspect(tmp_path / "s.png").channels == 1


@pytest.mark.parametrize("size", [(203, 135), (135, 203), (601, 547)])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pairs_of_any_size_are_aligned(tmp_path: Path, size: tuple[int, int], scale: int) -> None:
    low = drawing(1, *size)
    save(tmp_path / "HR" / "a.png", np.repeat(np.repeat(low, scale, 0), scale, 1))
    save(tmp_path / f"LRx{scale}" / "a.png", low)
    assert validation(tmp_path, scale).score(Upscale(scale, "nearest")).psnr == np.inf
