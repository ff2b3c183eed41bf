"""Each degradation gives whole levels of the right size, always the same for the same generator."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from examples.training import degradation
from examples.training.degradation import DEGRADATIONS, Bicubic, Degradation, Jpeg, Noise, Real
from examples.training.distortions import compressed, rounded, shrunk
from sr_deploy.errors import InvalidInputError

SCALES = {"bicubic": (1, 2, 3, 4, 8), "real": (1, 2, 3, 4, 8), "noise": (1,), "jpeg": (1,)}


def photo_like(channels: int, height: int, width: int, levels: int = 255) -> Tensor:
    """Return a smooth image with some grain."""
    torch.manual_seed(0)
    coarse = torch.rand(1, channels, height // 8 + 2, width // 8 + 2)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")[0]
    return rounded(smooth + 0.02 * torch.randn(channels, height, width), levels)


@pytest.mark.parametrize(("channels", "levels"), [(1, 255), (3, 255), (1, 65535)])
@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_each_gives_whole_levels_of_the_right_size(kind: str, channels: int, levels: int) -> None:
    degrade = DEGRADATIONS[kind](levels)
    for scale in SCALES[kind]:
        high = photo_like(channels, 12 * scale, 20 * scale, levels)
        before = high.clone()
        low = degrade(high, scale, np.random.default_rng(1))
        assert (low.shape, low.dtype) == ((channels, 12, 20), torch.float32)
        assert torch.equal(rounded(low, levels), low)
        assert torch.equal(high, before)


@pytest.mark.parametrize("kind", DEGRADATIONS)
def test_the_same_generator_makes_the_same_image_and_another_one_does_not(kind: str) -> None:
    degrade, scale = DEGRADATIONS[kind](255), SCALES[kind][-1]
    high = photo_like(3, 16 * scale, 16 * scale)

    def low(number: int) -> Tensor:
        return degrade(high, scale, np.random.default_rng((7, number)))

    assert all(torch.equal(low(number), low(number)) for number in range(5))
    assert torch.equal(low(0), low(1)) == (kind == "bicubic")


def test_bicubic_is_the_shrinking_of_data_sets() -> None:
    high = photo_like(3, 32, 48)
    assert torch.equal(Bicubic()(high, 4, np.random.default_rng(0)), shrunk(high, 4, 255))


@pytest.mark.parametrize(
    ("degrade", "scale"), [(Bicubic(), 2), (Bicubic(), 4), (Jpeg(qualities=(20, 20)), 1)]
)
def test_within_the_margin_a_crop_is_as_if_cut_from_a_degraded_photo(
    degrade: Degradation, scale: int
) -> None:
    photo = photo_like(3, 160 * scale, 160 * scale)
    # 32 pixels: the blocks of JPEG lie in the crop as in the photo.
    crop = photo[:, 32 * scale : 128 * scale, 32 * scale : 128 * scale]
    inner = slice(degrade.margin, 96 - degrade.margin)
    for seed in range(8):
        whole = degrade(photo, scale, np.random.default_rng(seed))[:, 32:128, 32:128]
        alone = degrade(crop, scale, np.random.default_rng(seed))
        assert torch.equal(alone[:, inner, inner], whole[:, inner, inner])
        assert not torch.equal(alone, whole)


@pytest.mark.parametrize("levels", [255, 65535])
def test_noise_has_the_sigma_asked_for(levels: int) -> None:
    grey = rounded(torch.full((1, 200, 200), 0.5), levels)
    for sigma in (5.0, 25.0):
        degrade = Noise(levels, (sigma, sigma))
        noise = degrade(grey, 1, np.random.default_rng(0)) - grey
        # The deviation of 40000 values is known within 0.35 %; rounding adds less at sigma 5.
        assert noise.std().item() * 255 == pytest.approx(sigma, rel=0.015)


def test_noise_is_drawn_from_the_whole_range() -> None:
    grey = torch.full((1, 64, 64), 128 / 255)
    degrade = Noise(sigmas=(10.0, 30.0))
    drawn = [
        float((degrade(grey, 1, np.random.default_rng(seed)) - grey).std()) * 255
        for seed in range(60)
    ]
    # Of 60 draws from a range of 20, the lowest and the highest are within 2 of its ends but for
    # a chance in 500; a deviation of 4096 values is known within 3 %.
    assert 9 < min(drawn) < 12.5
    assert 27 < max(drawn) < 31.5


def test_jpeg_is_a_jpeg_of_the_quality_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.training.distortions.JPEG_UNIT", 1)  # blocks where Pillow's are
    high = photo_like(3, 48, 48)
    got = Jpeg(qualities=(40, 40))(high, 1, np.random.default_rng(0))
    candidates = [compressed(high, 40, subsampling) for subsampling in ("4:4:4", "4:2:0")]
    assert any(torch.equal(got, candidate) for candidate in candidates)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("twice", [True, False])
def test_a_hard_life_moves_nothing_and_keeps_the_brightness(scale: int, *, twice: bool) -> None:
    high = photo_like(1, 48 * scale, 48 * scale)
    clean = shrunk(high, scale, 255)
    degrade = Real(twice=twice)
    lows = torch.stack([degrade(high, scale, np.random.default_rng(n)) for n in range(60)])
    errors = (lows - clean).square().mean((1, 2, 3)).sqrt()
    # Noise alone is up to 30 levels, twice; a degraded image still shows what the clean one does.
    assert 0.01 < float(errors.median()) < 0.15
    average = lows.mean(0)
    assert abs(float(average.mean() - clean.mean())) < 0.01

    def distance(down: int, right: int) -> float:
        moved = clean.roll((down, right), (1, 2))
        return float((average - moved)[:, 4:-4, 4:-4].square().mean())

    # A parabola through the distances has its lowest point where the image has moved to.
    for one, other in (((-1, 0), (1, 0)), ((0, -1), (0, 1))):
        before, here, after = distance(*one), distance(0, 0), distance(*other)
        shift = (before - after) / (2 * (before - 2 * here + after))
        assert abs(shift) < 0.1


def test_two_rounds_are_harder_than_one() -> None:
    high = photo_like(3, 96, 96)
    clean = shrunk(high, 2, 255)

    def error(*, twice: bool) -> float:
        lows = [Real(twice=twice)(high, 2, np.random.default_rng(n)) for n in range(40)]
        return float((torch.stack(lows) - clean).square().mean().sqrt())

    assert error(twice=True) > 1.1 * error(twice=False)


def test_noise_in_the_dark_is_weaker_where_it_is_of_photons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(degradation, "GAUSSIAN_NOISE", (0.0, 0.0))
    monkeypatch.setattr(degradation, "SHOT_NOISE", (2.0, 2.0))
    image = torch.tensor([0.1, 0.9]).repeat_interleave(2000).expand(1, 10, 4000)
    random = np.random.default_rng(0)
    noise = next(
        made
        for made in (degradation.noisy(image, random) - image for _ in range(100))
        if bool(made.any())
    )
    dark, light = noise[..., :2000].std().item(), noise[..., 2000:].std().item()
    # The root of the light: 0.1 and 0.9 differ by three. 20000 values each, known within 0.5 %.
    assert light / dark == pytest.approx(3, rel=0.03)
    assert light * 255 == pytest.approx(2 * (0.9 * 255) ** 0.5, rel=0.02)


@pytest.mark.parametrize("kind", ["noise", "jpeg"])
def test_what_keeps_the_size_is_for_scale_1(kind: str) -> None:
    with pytest.raises(
        InvalidInputError, match=f"'{kind}' keeps the size.*not 2.*bicubic and real"
    ):
        DEGRADATIONS[kind](255)(torch.zeros(1, 8, 8), 2, np.random.default_rng(0))


@pytest.mark.parametrize("kind", ["bicubic", "real"])
def test_a_size_that_does_not_divide_is_refused(kind: str) -> None:
    with pytest.raises(InvalidInputError, match=r"10x8: .* multiples of the scale, 4"):
        DEGRADATIONS[kind](255)(torch.zeros(1, 8, 10), 4, np.random.default_rng(0))
