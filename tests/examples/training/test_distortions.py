"""Blur kernels and filtering, downscaling like MATLAB's, noise, and JPEG like Pillow's."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import conv2d

from examples.training import distortions
from examples.training.distortions import (
    add_noise,
    downscale,
    filter_image,
    jpeg_round_trip,
    mirror_pad,
    normalize_kernel,
    quantize_levels,
    random_jpeg,
    random_kernel,
    random_resize,
    random_sinc_kernel,
    sinc_kernel,
    squared_distances,
)
from tests import imresize
from tests.conftest import ROOT


def kernels(count: int) -> list[Tensor]:
    random = np.random.default_rng(0)
    return [random_kernel(random, (0.2, 3.0)) for _ in range(count)]


def test_kernels_sum_to_one_and_are_odd_squares() -> None:
    drawn = kernels(200)
    for kernel in drawn:
        assert kernel.dtype == torch.float32
        assert kernel.shape == (len(kernel), len(kernel))
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
        # Kernels are symmetric, so they do not shift the image.
        torch.testing.assert_close(kernel, kernel.flip(0, 1), rtol=0, atol=1e-6)
    assert {len(kernel) for kernel in drawn} == set(range(7, 22, 2))


def test_kernels_are_reproducible() -> None:
    assert all(torch.equal(one, other) for one, other in zip(kernels(20), kernels(20), strict=True))


def spread(kernel: Tensor) -> Tensor:
    """Return the covariance of x and y."""
    radius = len(kernel) // 2
    at = torch.arange(-radius, radius + 1.0, dtype=torch.float64)
    y, x = torch.meshgrid(at, at, indexing="ij")
    moments = [(kernel * one * other).sum() for one in (x, y) for other in (x, y)]
    return torch.stack(moments).view(2, 2)


def test_gaussians_have_the_given_covariance() -> None:
    kernel = normalize_kernel(np.exp(-0.5 * squared_distances(10, 2.0, 1.0, 0.0)))
    # 10 pixels are 5 standard deviations, so truncation is negligible.
    wanted = torch.tensor([[4.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(spread(kernel), wanted, rtol=0, atol=1e-3)
    turned = normalize_kernel(np.exp(-0.5 * squared_distances(10, 2.0, 1.0, math.pi / 4)))
    wanted = torch.tensor([[2.5, 1.5], [1.5, 2.5]], dtype=torch.float64)
    torch.testing.assert_close(spread(turned), wanted, rtol=0, atol=1e-3)


@pytest.mark.parametrize("profile", distortions.PROFILES)
def test_kernel_profiles(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distortions, "PROFILES", {profile: 1.0})
    monkeypatch.setattr(distortions, "SINC_PROBABILITY", 0.0)
    monkeypatch.setattr(distortions, "ISOTROPIC_PROBABILITY", 1.0)
    monkeypatch.setattr(distortions, "HEAVY_TAILS", (0.5, 0.5))
    monkeypatch.setattr(distortions, "LIGHT_TAILS", (0.5, 0.5))
    monkeypatch.setattr(distortions, "PLATEAU_EXPONENTS", (2.0, 2.0))
    monkeypatch.setattr(distortions, "RADII", (10, 10))
    kernel = random_kernel(np.random.default_rng(0), (2.0, 2.0))
    row = (kernel[10, 10:] / kernel[10, 10]).double()
    r = torch.arange(11, dtype=torch.float64) / 2
    shapes = {
        "gaussian": torch.exp(-0.5 * r**2),
        "generalized": torch.exp(-0.5 * r),
        "plateau": 1 / (1 + r**4),
    }
    torch.testing.assert_close(row, shapes[profile], rtol=1e-5, atol=1e-6)


def test_a_sinc_kernel_is_a_low_pass() -> None:
    response = torch.fft.rfft2(sinc_kernel(10, math.pi / 2), (64, 64)).abs()
    # Bin 16 on the x axis is the cutoff, with half of the response. A truncated sinc falls slowly
    # and ripples by some percent.
    assert float(response[0, 16]) == pytest.approx(0.5, abs=0.1)
    assert response[0, :8].sub(1).abs().max() < 0.1
    assert response[0, 22:].max() < 0.1
    assert float(sinc_kernel(10, math.pi / 2).min()) < 0
    random = np.random.default_rng(0)
    for _ in range(50):
        kernel = random_sinc_kernel(random)
        assert float(kernel.sum()) == pytest.approx(1, abs=1e-5)
        assert bool(kernel.isfinite().all())


@pytest.mark.parametrize("size", [(64, 50), (5, 33)])
def test_filtering_is_convolution_with_mirrored_borders(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    image, kernel = torch.rand(3, *size), torch.rand(13, 13)
    kernel /= kernel.sum()
    padded = np.pad(image.numpy(), ((0, 0), (6, 6), (6, 6)), mode="symmetric")
    # torch's conv2d does not flip the kernel; a convolution does.
    wanted = conv2d(torch.from_numpy(padded)[:, None], kernel.flip(0, 1)[None, None])[:, 0]
    torch.testing.assert_close(filter_image(image, kernel), wanted, rtol=0, atol=1e-5)


def photo_like(channels: int, height: int, width: int) -> Tensor:
    """Return a smooth image with a little noise."""
    torch.manual_seed(0)
    coarse = torch.rand(1, channels, height // 8 + 2, width // 8 + 2)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return quantize_levels(smooth + 0.02 * torch.randn(channels, height, width), 255)


@pytest.mark.parametrize("scale", [2, 4])
def test_downscaling_equals_that_of_matlab_in_every_pixel(scale: int) -> None:
    with Image.open(ROOT / "examples" / "original" / "cat.png") as image:
        high = np.asarray(image)[: 300 // scale * scale, : 450 // scale * scale]
    low = downscale(torch.from_numpy(high / np.float32(255)).permute(2, 0, 1), scale, 255)
    expected = imresize.shrunk(high, scale)
    assert np.array_equal(low.mul(255).round().permute(1, 2, 0).numpy(), expected)


def test_downscaling_by_two_uses_the_antialiased_cubic() -> None:
    row = torch.full((1, 2, 32), 0.25)
    row[..., 16] = 0.75
    # Pixel 16 is 7/4, 3/4, 1/4 and 5/4 output pixels from the centers of output pixels 6 to 9. The
    # cubic with a = -0.5, halved, has these values there:
    weights = torch.tensor([-3.0, 29, 111, -9]) / 256
    wanted = torch.full((16,), 0.25)
    wanted[6:10] += 0.5 * weights
    # Two roundings to 65535 levels, each by at most half a level.
    torch.testing.assert_close(downscale(row, 2, 65535)[0, 0], wanted, rtol=0, atol=1.01 / 65535)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_constant_images_stay_constant(scale: int) -> None:
    image = torch.full((3, 3 * scale, 5 * scale), 77 / 255)
    assert torch.equal(downscale(image, scale, 255), image[:, :3, :5])


def test_downscaling_by_one_is_the_identity() -> None:
    image = photo_like(3, 16, 24)
    assert torch.equal(downscale(image, 1, 255), image)


def test_padding_may_exceed_the_image() -> None:
    row = torch.arange(3.0).view(1, 1, 3)
    assert mirror_pad(row, 2, 5, 2).flatten().tolist() == [1, 2, 2, 1, 0, 0, 1, 2, 2, 1]


@pytest.mark.parametrize("levels", [255, 65535])
def test_rounding_to_levels(levels: int) -> None:
    values = torch.tensor([-0.1, 0.0, 0.4 / levels, 0.5 / levels, 0.6 / levels, 1.0, 1.1])
    wanted = torch.tensor([0.0, 0, 0, 1, 1, levels, levels])
    assert torch.equal(quantize_levels(values, levels) * levels, wanted)


@pytest.mark.parametrize("kernel", distortions.INTERPOLATIONS)
def test_resizing_does_not_shift_the_image(
    kernel: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distortions, "INTERPOLATIONS", (kernel,))
    ramp = torch.linspace(0, 1, 48).expand(1, 32, 48)
    for size in ((16, 24), (10, 17), (40, 61)):
        small = random_resize(ramp, size, np.random.default_rng(0))
        assert small.shape[1:] == size
        # The center of a ramp stays in the center, and its halves are symmetric.
        torch.testing.assert_close(small + small.flip(2), torch.ones(1, *size), rtol=0, atol=1e-5)


def test_noise_has_the_given_sigma_and_is_independent_per_channel() -> None:
    gray = torch.full((3, 200, 200), 0.5)
    noise = add_noise(gray, 0.1, np.random.default_rng(0)) - gray
    # Four times the standard error of 40000 values, 0.35 %.
    assert noise.std(dim=(1, 2)).tolist() == pytest.approx([0.1] * 3, rel=0.015)
    assert abs(noise.mean().item()) < 4 * 0.1 / 120000**0.5
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 4 / 200
    noise = add_noise(gray, 0.1, np.random.default_rng(0), gray=True) - gray
    assert torch.equal(noise[0], noise[1])
    assert noise.std().item() == pytest.approx(0.1, rel=0.015)


def test_noise_with_a_sigma_per_pixel() -> None:
    deviation = torch.tensor([0.0, 0.2]).repeat(100).expand(1, 200, 200)
    noise = add_noise(torch.zeros(1, 200, 200), deviation, np.random.default_rng(0))
    assert float(noise[..., 0::2].abs().max()) == 0
    assert noise[..., 1::2].std().item() == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_equals_pillows(channels: int, subsampling: str) -> None:
    image = photo_like(channels, 40, 56)
    pixels = (image * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    picture.save(file, format="JPEG", quality=35, subsampling=subsampling)
    decoded = np.array(Image.open(file)).reshape(40, 56, channels)
    got = (jpeg_round_trip(image, 35, subsampling) * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(got, decoded)
    assert not np.array_equal(got, pixels)


def test_jpeg_blocks_have_random_positions() -> None:
    image = photo_like(1, 64, 64)
    phases = set()
    for seed in range(24):
        got = random_jpeg(image, np.random.default_rng(seed), (5, 5))
        assert got.shape == image.shape
        # The image has jumps at block borders.
        jumps = (got[0, :, 1:] - got[0, :, :-1]).abs().sum(0)
        phases.add(int(torch.stack([jumps[at::8].mean() for at in range(8)]).argmax()))
    assert len(phases) >= 6
    assert torch.equal(
        random_jpeg(image, np.random.default_rng(3), (5, 95)),
        random_jpeg(image, np.random.default_rng(3), (5, 95)),
    )


def test_all_qualities_are_drawn_including_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def spy(image: Tensor, quality: int, subsampling: str) -> Tensor:
        drawn.append((quality, subsampling))
        return image

    monkeypatch.setattr(distortions, "jpeg_round_trip", spy)
    random = np.random.default_rng(0)
    for _ in range(100):
        random_jpeg(torch.zeros(1, 8, 8), random, (30, 32))
    assert set(drawn) == {(q, s) for q in (30, 31, 32) for s in ("4:2:0", "4:4:4")}
