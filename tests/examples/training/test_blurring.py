"""Kernels keep the brightness and have the width asked for; filtering is plain convolution."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import conv2d

from examples.training import blurring
from examples.training.blurring import (
    blurred,
    distances,
    random_blur,
    random_sinc,
    sinc,
    summing_to_one,
)


def kernels(count: int) -> list[Tensor]:
    random = np.random.default_rng(0)
    return [random_blur(random, (0.2, 3.0)) for _ in range(count)]


def test_kernels_sum_to_one_and_are_odd_squares() -> None:
    drawn = kernels(200)
    for kernel in drawn:
        assert kernel.dtype == torch.float32
        assert kernel.shape == (len(kernel), len(kernel))
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
        # No kernel moves the image.
        torch.testing.assert_close(kernel, kernel.flip(0, 1), rtol=0, atol=1e-6)
    assert {len(kernel) for kernel in drawn} == set(range(7, 22, 2))


def test_the_same_generator_draws_the_same_kernels() -> None:
    assert all(torch.equal(one, other) for one, other in zip(kernels(20), kernels(20), strict=True))


def spread(kernel: Tensor) -> Tensor:
    """Return the covariance of x and y."""
    radius = len(kernel) // 2
    at = torch.arange(-radius, radius + 1.0, dtype=torch.float64)
    y, x = torch.meshgrid(at, at, indexing="ij")
    moments = [(kernel * one * other).sum() for one in (x, y) for other in (x, y)]
    return torch.stack(moments).view(2, 2)


def test_a_gaussian_is_as_wide_as_it_says_in_the_direction_that_it_says() -> None:
    kernel = summing_to_one(np.exp(-0.5 * distances(10, 2.0, 1.0, 0.0)))
    # 10 pixels are 5 deviations: next to nothing is cut off.
    wanted = torch.tensor([[4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(spread(kernel), wanted, rtol=0, atol=1e-3)
    turned = summing_to_one(np.exp(-0.5 * distances(10, 2.0, 1.0, math.pi / 4)))
    wanted = torch.tensor([[2.5, 1.5], [1.5, 2.5]], dtype=torch.float64)
    torch.testing.assert_close(spread(turned), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("profile", blurring.PROFILES)
def test_each_profile_has_its_shape(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blurring, "PROFILES", {profile: 1.0})
    monkeypatch.setattr(blurring, "SINC_SHARE", 0.0)
    monkeypatch.setattr(blurring, "ROUND_SHARE", 1.0)
    monkeypatch.setattr(blurring, "HEAVY", (0.5, 0.5))
    monkeypatch.setattr(blurring, "LIGHT", (0.5, 0.5))
    monkeypatch.setattr(blurring, "FLATNESS", (2.0, 2.0))
    monkeypatch.setattr(blurring, "RADII", (10, 10))
    kernel = random_blur(np.random.default_rng(0), (2.0, 2.0))
    row = (kernel[10, 10:] / kernel[10, 10]).double()
    r = torch.arange(11, dtype=torch.float64) / 2
    shapes = {
        "gaussian": torch.exp(-0.5 * r**2),
        "tails": torch.exp(-0.5 * r),
        "plateau": 1 / (1 + r**4),
    }
    torch.testing.assert_close(row, shapes[profile], rtol=1e-5, atol=1e-6)


def test_a_sinc_filter_leaves_low_frequencies_and_no_high_ones() -> None:
    response = torch.fft.rfft2(sinc(10, math.pi / 2), (64, 64)).abs()
    # Along the x axis bin 16 is the cutoff: half of the response is left there. A sinc that is cut
    # off falls gradually, and ripples by some per cent.
    assert float(response[0, 16]) == pytest.approx(0.5, abs=0.1)
    assert response[0, :8].sub(1).abs().max() < 0.1
    assert response[0, 22:].max() < 0.1
    assert float(sinc(10, math.pi / 2).min()) < 0
    random = np.random.default_rng(0)
    for _ in range(50):
        kernel = random_sinc(random)
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
        assert bool(kernel.isfinite().all())


@pytest.mark.parametrize("size", [(64, 50), (5, 33)])
def test_filtering_is_convolution_with_mirrored_borders(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image, kernel = torch.rand(3, *size), torch.rand(13, 13)
    kernel /= kernel.sum()
    padded = np.pad(image.numpy(), ((0, 0), (6, 6), (6, 6)), mode="symmetric")
    # torch's convolution does not flip the kernel, as a convolution does.
    wanted = conv2d(torch.from_numpy(padded)[:, None], kernel.flip(0, 1)[None, None])[:, 0]
    torch.testing.assert_close(blurred(image, kernel), wanted, rtol=0, atol=1e-5)
