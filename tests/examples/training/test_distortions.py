"""Shrinking is MATLAB's, JPEG is Pillow's, and noise is as strong as asked for."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from examples.training import distortions
from examples.training.distortions import (
    as_jpeg,
    compressed,
    mirrored,
    resized,
    rounded,
    shrunk,
    with_noise,
)


def load(path: Path) -> Tensor:
    with Image.open(path) as image:
        pixels = np.array(image.convert("RGB"), np.float32)
    return torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)


def photo_like(channels: int, height: int, width: int) -> Tensor:
    """Return a smooth image with some grain."""
    torch.manual_seed(0)
    coarse = torch.rand(1, channels, height // 8 + 2, width // 8 + 2)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return rounded(smooth + 0.02 * torch.randn(channels, height, width), 255)


@pytest.mark.parametrize("scale", [2, 4])
def test_official_low_resolution_files_are_made_again_in_every_pixel(
    scale: int, shared_data: Path
) -> None:
    paths = sorted((shared_data / "images" / "set5" / "HR").iterdir())
    assert len(paths) == 5
    for path in paths:
        low = load(path.parents[1] / f"LRx{scale}" / f"{path.stem}x{scale}.png")
        high = load(path)[:, : scale * low.shape[1], : scale * low.shape[2]]
        assert torch.equal(shrunk(high, scale, 255), low), path.name


def test_shrinking_by_two_has_the_weights_of_the_antialiased_cubic() -> None:
    row = torch.full((1, 2, 32), 0.25)
    row[..., 16] = 0.75
    # Pixel 16 lies 7/4, 3/4, 1/4 and 5/4 of the smaller image's pixels from the middles of its
    # pixels 6 to 9: the cubic of a = -0.5 is there, halved,
    weights = torch.tensor([-3.0, 29, 111, -9]) / 256
    wanted = torch.full((16,), 0.25)
    wanted[6:10] += 0.5 * weights
    # Two roundings to one of 65535 levels, each by up to half a level.
    torch.testing.assert_close(shrunk(row, 2, 65535)[0, 0], wanted, rtol=0, atol=1.01 / 65535)


@pytest.mark.parametrize("scale", [1, 2, 3, 4, 8])
def test_a_plain_image_stays_plain_up_to_its_border(scale: int) -> None:
    image = torch.full((3, 3 * scale, 5 * scale), 77 / 255)
    assert torch.equal(shrunk(image, scale, 255), image[:, :3, :5])


def test_one_is_the_image_itself() -> None:
    image = photo_like(3, 16, 24)
    assert torch.equal(shrunk(image, 1, 255), image)


def test_mirrors_go_on_where_the_image_is_smaller_than_they_are() -> None:
    row = torch.arange(3.0).view(1, 1, 3)
    assert mirrored(row, 2, 5, 2).flatten().tolist() == [1, 2, 2, 1, 0, 0, 1, 2, 2, 1]


@pytest.mark.parametrize("levels", [255, 65535])
def test_rounding_leaves_whole_levels(levels: int) -> None:
    values = torch.tensor([-0.1, 0.0, 0.4 / levels, 0.5 / levels, 0.6 / levels, 1.0, 1.1])
    wanted = torch.tensor([0.0, 0, 0, 1, 1, levels, levels])
    assert torch.equal(rounded(values, levels) * levels, wanted)


@pytest.mark.parametrize("kernel", distortions.KERNELS)
def test_resizing_does_not_move_the_image(
    kernel: tuple[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distortions, "KERNELS", (kernel,))
    ramp = torch.linspace(0, 1, 48).expand(1, 32, 48)
    for size in ((16, 24), (10, 17), (40, 61)):
        small = resized(ramp, size, np.random.default_rng(0))
        assert small.shape[1:] == size
        # A ramp's middle stays in the middle, and its two halves are alike.
        torch.testing.assert_close(small + small.flip(2), torch.ones(1, *size), rtol=0, atol=1e-5)


def test_noise_is_as_strong_as_asked_for_and_of_each_channel_its_own() -> None:
    grey = torch.full((3, 200, 200), 0.5)
    noise = with_noise(grey, 0.1, np.random.default_rng(0)) - grey
    # The deviation of 40000 values is known within 0.35 %; four times that.
    assert noise.std(dim=(1, 2)).tolist() == pytest.approx([0.1] * 3, rel=0.015)
    assert abs(noise.mean().item()) < 4 * 0.1 / 120000**0.5
    assert abs(float(torch.corrcoef(noise.flatten(1))[0, 1])) < 4 / 200
    noise = with_noise(grey, 0.1, np.random.default_rng(0), gray=True) - grey
    assert torch.equal(noise[0], noise[1])
    assert noise.std().item() == pytest.approx(0.1, rel=0.015)


def test_noise_may_be_another_at_each_pixel() -> None:
    deviation = torch.tensor([0.0, 0.2]).repeat(100).expand(1, 200, 200)
    noise = with_noise(torch.zeros(1, 200, 200), deviation, np.random.default_rng(0))
    assert float(noise[..., 0::2].abs().max()) == 0
    assert noise[..., 1::2].std().item() == pytest.approx(0.2, rel=0.02)


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_that_of_pillow(channels: int, subsampling: str) -> None:
    image = photo_like(channels, 40, 56)
    pixels = (image * 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
    file = io.BytesIO()
    picture = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    picture.save(file, format="JPEG", quality=35, subsampling=subsampling)
    decoded = np.array(Image.open(file)).reshape(40, 56, channels)
    got = (compressed(image, 35, subsampling) * 255).round().permute(1, 2, 0).numpy()
    assert np.array_equal(got, decoded)
    assert not np.array_equal(got, pixels)


def test_the_blocks_of_jpeg_lie_anywhere() -> None:
    image = photo_like(1, 64, 64)
    phases = set()
    for seed in range(24):
        got = as_jpeg(image, np.random.default_rng(seed), (5, 5))
        assert got.shape == image.shape
        # Where blocks meet, the image jumps.
        jumps = (got[0, :, 1:] - got[0, :, :-1]).abs().sum(0)
        phases.add(int(torch.stack([jumps[at::8].mean() for at in range(8)]).argmax()))
    assert len(phases) >= 6
    assert torch.equal(
        as_jpeg(image, np.random.default_rng(3), (5, 95)),
        as_jpeg(image, np.random.default_rng(3), (5, 95)),
    )


def test_all_qualities_are_drawn_the_last_included(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def spy(image: Tensor, quality: int, subsampling: str) -> Tensor:
        drawn.append((quality, subsampling))
        return image

    monkeypatch.setattr(distortions, "compressed", spy)
    random = np.random.default_rng(0)
    for _ in range(100):
        as_jpeg(torch.zeros(1, 8, 8), random, (30, 32))
    assert set(drawn) == {(q, s) for q in (30, 31, 32) for s in ("4:2:0", "4:4:4")}
