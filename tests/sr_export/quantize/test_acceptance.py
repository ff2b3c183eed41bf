"""The check: what is measured, and what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sr_deploy.bundle.manifest import Quality
from sr_export import photos
from sr_export.quantize.acceptance import MOST_LOST, AcceptanceCheck, decibels, shortfall
from sr_export.quantize.calibration_data import Example

PHOTOS = photos.batch(3, 48, 64, 3)


def _double(frames: np.ndarray) -> np.ndarray:
    return frames.repeat(2, axis=1).repeat(2, axis=2)


def _exam(truth: bool = False) -> list[Example]:
    return [
        Example(f"{i}", low, _double(low[None])[0] if truth else None)
        for i, low in enumerate(PHOTOS)
    ]


def _flipped(frames: np.ndarray) -> np.ndarray:
    result: np.ndarray = _double(frames) ^ 1
    return result


def _brighter(frames: np.ndarray, levels: int) -> np.ndarray:
    return np.clip(_double(frames), 0, 255 - levels) + np.uint8(levels)


def test_equal_frames_have_no_decibels() -> None:
    quality = AcceptanceCheck(_exam(), _double).measure(_double)
    assert quality == Quality(None, 1.0, 0, None, 3)
    assert decibels(quality) == math.inf
    assert shortfall(quality, 99.0) is None


def test_the_worst_image_counts() -> None:
    def other(frames: np.ndarray) -> np.ndarray:
        result: np.ndarray = _double(frames)
        if (frames[0] == PHOTOS[1]).all():
            result = np.where(result < 128, result + 4, result - 4).astype(np.uint8)
        return result

    quality = AcceptanceCheck(_exam(), _double).measure(other)
    assert quality.psnr == pytest.approx(10 * math.log10(255**2 / 16), abs=0.01)
    assert quality.largest_difference == 4
    assert quality.ssim < 1


def test_loss_is_measured_against_the_originals() -> None:
    """FP32 is 2 levels off everywhere, the other 4: four times the squared error, 6.02 dB."""
    low = np.full((16, 16, 3), 100, np.uint8)
    held_out = [Example("flat", low, _double(low[None])[0])]
    check = AcceptanceCheck(held_out, lambda frames: _brighter(frames, 2))
    assert check.measure(lambda frames: _brighter(frames, 4)).loss == pytest.approx(
        6.021, abs=0.001
    )
    # Closer to the original than FP32 is no loss.
    assert check.measure(lambda frames: _brighter(frames, 1)).loss == pytest.approx(
        -6.021, abs=0.001
    )


def test_without_originals_or_with_a_perfect_network_there_is_no_loss() -> None:
    assert AcceptanceCheck(_exam(), _double).measure(_flipped).loss is None
    assert AcceptanceCheck(_exam(truth=True), _double).measure(_flipped).loss is None


def test_gray_and_tiny_images_can_be_measured() -> None:
    held_out = [Example("tiny", PHOTOS[0, :3, :4, :1], None)]
    quality = AcceptanceCheck(held_out, _double).measure(_flipped)
    assert quality.largest_difference == 1
    assert 0 < quality.ssim <= 1


@pytest.mark.parametrize(
    ("quality", "budget", "reason"),
    [
        (Quality(44.9, 0.9, 9, None, 1), 45, "44.9 dB against FP32"),
        (Quality(45.0, 0.9, 9, None, 1), 45, None),
        (Quality(60.0, 0.9, 9, MOST_LOST + 0.01, 1), 45, "0.11 dB lost against the originals"),
        (Quality(60.0, 0.9, 9, MOST_LOST, 1), 45, None),
    ],
)
def test_reasons(quality: Quality, budget: float, reason: str | None) -> None:
    found = shortfall(quality, budget)
    assert found is None if reason is None else found is not None and found.startswith(reason)
