"""Degradations have the right size, levels and strength, and are reproducible; the command."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from examples.training import degradation
from examples.training.dataset import to_tensor
from examples.training.degradation import (
    DEGRADATIONS,
    Bicubic,
    Degradation,
    Jpeg,
    Noise,
    Real,
    main,
)
from examples.training.distortions import downscale, jpeg_round_trip, quantize_levels
from sr_deploy import images
from sr_deploy.errors import InvalidInputError
from tests.examples.training.conftest import drawing, save

SCALES = {"bicubic": (1, 2, 3, 4, 8), "real": (1, 2, 3, 4, 8), "noise": (1,), "jpeg": (1,)}


def photo_like(channels: int, height: int, width: int, levels: int = 255) -> Tensor:
    """Return a smooth image with a little noise."""
    torch.manual_seed(0)
    coarse = torch.rand(1, channels, height // 8 + 2, width // 8 + 2)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return quantize_levels(smooth + 0.02 * torch.randn(channels, height, width), levels)


@pytest.mark.parametrize(("channels", "levels"), [(1, 255), (3, 255), (1, 65535)])
@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_size_and_levels(kind: str, channels: int, levels: int) -> None:
    degrade = DEGRADATIONS[kind](levels)
    for scale in SCALES[kind]:
        high = photo_like(channels, 12 * scale, 20 * scale, levels)
        before = high.clone()
        low = degrade(high, scale, np.random.default_rng(1))
        assert (low.shape, low.dtype) == ((channels, 12, 20), torch.float32)
        assert torch.equal(quantize_levels(low, levels), low)
        assert torch.equal(high, before)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_images_are_reproducible(kind: str) -> None:
    degrade, scale = DEGRADATIONS[kind](255), SCALES[kind][-1]
    high = photo_like(3, 16 * scale, 16 * scale)

    def low(number: int) -> Tensor:
        return degrade(high, scale, np.random.default_rng((7, number)))

    assert all(torch.equal(low(number), low(number)) for number in range(5))
    assert torch.equal(low(0), low(1)) == (kind == "bicubic")


def test_bicubic_downscales() -> None:
    high = photo_like(3, 32, 48)
    assert torch.equal(Bicubic()(high, 4, np.random.default_rng(0)), downscale(high, 4, 255))


@pytest.mark.parametrize(
    ("degrade", "scale"), [(Bicubic(), 2), (Bicubic(), 4), (Jpeg(qualities=(20, 20)), 1)]
)
def test_inside_the_margin_crops_equal_a_crop_of_the_degraded_photo(
    degrade: Degradation, scale: int
) -> None:
    photo = photo_like(3, 160 * scale, 160 * scale)
    # 32 pixels, so JPEG blocks have the same positions in crop and photo.
    crop = photo[:, 32 * scale : 128 * scale, 32 * scale : 128 * scale]
    inner = slice(degrade.margin, 96 - degrade.margin)
    for seed in range(8):
        whole = degrade(photo, scale, np.random.default_rng(seed))[:, 32:128, 32:128]
        alone = degrade(crop, scale, np.random.default_rng(seed))
        assert torch.equal(alone[:, inner, inner], whole[:, inner, inner])
        assert not torch.equal(alone, whole)


@pytest.mark.parametrize("levels", [255, 65535])
def test_noise_has_the_given_sigma(levels: int) -> None:
    gray = quantize_levels(torch.full((1, 200, 200), 0.5), levels)
    for sigma in (5.0, 25.0):
        degrade = Noise(levels, (sigma, sigma))
        noise = degrade(gray, 1, np.random.default_rng(0)) - gray
        # Standard error of 40000 values: 0.35 %; rounding adds less at sigma 5.
        assert noise.std().item() * 255 == pytest.approx(sigma, rel=0.015)


def test_noise_covers_the_whole_range() -> None:
    gray = torch.full((1, 64, 64), 128 / 255)
    degrade = Noise(sigmas=(10.0, 30.0))
    drawn = [
        float((degrade(gray, 1, np.random.default_rng(seed)) - gray).std()) * 255
        for seed in range(60)
    ]
    # The extremes of 60 draws from a range of 20 are within 2 of its ends, except for a chance of 1
    # in 500; the standard error of 4096 values is below 3 %.
    assert 9 < min(drawn) < 12.5
    assert 27 < max(drawn) < 31.5


def test_jpeg_has_the_given_quality(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "examples.training.distortions.JPEG_BLOCK", 1
    )  # the same block positions as Pillow
    high = photo_like(3, 48, 48)
    got = Jpeg(qualities=(40, 40))(high, 1, np.random.default_rng(0))
    candidates = [jpeg_round_trip(high, 40, subsampling) for subsampling in ("4:4:4", "4:2:0")]
    assert any(torch.equal(got, candidate) for candidate in candidates)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("twice", [True, False])
def test_real_keeps_position_and_brightness(scale: int, *, twice: bool) -> None:
    high = photo_like(1, 48 * scale, 48 * scale)
    clean = downscale(high, scale, 255)
    degrade = Real(twice=twice)
    lows = torch.stack([degrade(high, scale, np.random.default_rng(n)) for n in range(60)])
    errors = (lows - clean).square().mean((1, 2, 3)).sqrt()
    # Noise alone is up to 30 levels, twice, but the image is still recognizable.
    assert 0.01 < float(errors.median()) < 0.15
    average = lows.mean(0)
    assert abs(float(average.mean() - clean.mean())) < 0.01

    def distance(down: int, right: int) -> float:
        moved = clean.roll((down, right), (1, 2))
        return float((average - moved)[:, 4:-4, 4:-4].square().mean())

    # The minimum of a parabola through the distances is the shift of the image.
    for one, other in (((-1, 0), (1, 0)), ((0, -1), (0, 1))):
        before, here, after = distance(*one), distance(0, 0), distance(*other)
        shift = (before - after) / (2 * (before - 2 * here + after))
        assert abs(shift) < 0.1


def test_two_rounds_degrade_more_than_one() -> None:
    high = photo_like(3, 96, 96)
    clean = downscale(high, 2, 255)

    def error(*, twice: bool) -> float:
        lows = [Real(twice=twice)(high, 2, np.random.default_rng(n)) for n in range(40)]
        return float((torch.stack(lows) - clean).square().mean().sqrt())

    assert error(twice=True) > 1.1 * error(twice=False)


def test_shot_noise_is_weaker_in_the_dark(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(degradation, "GAUSSIAN_NOISE", (0.0, 0.0))
    monkeypatch.setattr(degradation, "SHOT_NOISE", (2.0, 2.0))
    image = torch.tensor([0.1, 0.9]).repeat_interleave(2000).expand(1, 10, 4000)
    random = np.random.default_rng(0)
    noise = next(
        made
        for made in (degradation.add_camera_noise(image, random) - image for _ in range(100))
        if bool(made.any())
    )
    dark, light = noise[..., :2000].std().item(), noise[..., 2000:].std().item()
    # Sigma grows with the root of brightness: 0.1 and 0.9 give a ratio of 3. Standard error: 0.5 %.
    assert light / dark == pytest.approx(3, rel=0.03)
    assert light * 255 == pytest.approx(2 * (0.9 * 255) ** 0.5, rel=0.02)


@pytest.mark.parametrize("kind", ["noise", "jpeg"])
def test_degradations_for_scale_1_only(kind: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{kind}.*scale 1.*2.*bicubic.*real"):
        DEGRADATIONS[kind](255)(torch.zeros(1, 8, 8), 2, np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["bicubic", "real"])
def test_sizes_must_be_multiples_of_the_scale(kind: str) -> None:
    with pytest.raises(InvalidInputError, match=r"10x8.*4"):
        DEGRADATIONS[kind](255)(torch.zeros(1, 8, 10), 4, np.random.default_rng(0))


def test_the_command_adds_noise(tmp_path: Path) -> None:
    gray = np.full((64, 80, 3), 128, np.uint8)
    save(tmp_path / "in" / "a.png", gray)
    save(tmp_path / "in" / "g.png", gray[..., 0].astype(np.uint16) * 257)
    options = ["--degradation", "noise", "--sigma", "20"]
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    for name, white in (("a.png", 255), ("g.png", 65535)):
        before = images.read(tmp_path / "in" / name).pixels
        found = images.read(tmp_path / "out" / name).pixels
        assert (found.shape, found.dtype) == (before.shape, before.dtype)
        # Standard error of 5120 values: 1 %; 5 of them.
        deviation = (found.astype(float) - before).std() / white * 255
        assert deviation == pytest.approx(20, rel=0.05)


def test_the_command_downscales(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", drawing(0, 97, 121))
    options = ["--degradation", "bicubic", "--scale", "4"]
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    found = images.read(tmp_path / "out" / "a.png").pixels
    wanted = Bicubic()(to_tensor(drawing(0, 97, 121)[:96, :120]), 4, np.random.default_rng())
    assert np.array_equal(found, wanted.mul(255).round().byte().permute(1, 2, 0).numpy())


def test_the_command_overwrites_nothing(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(folder), str(folder), "--degradation", "noise"]
    before = (folder / "0.png").read_bytes()
    assert main(command) == 1
    assert str(folder / "0.png") in capsys.readouterr().err
    assert (folder / "0.png").read_bytes() == before
    assert main([str(folder), str(tmp_path / "x"), "--degradation", "jpeg", "--sigma", "3"]) == 1
    error = capsys.readouterr().err
    assert "--sigma" in error
    assert "noise" in error
