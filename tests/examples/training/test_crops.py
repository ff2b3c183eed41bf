"""Crops: always the same, and low resolution that belongs to the high one."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.training.crops import Crops, batches
from examples.training.degradation import Bicubic, Noise
from examples.training.photos import Photo, gather
from sr_deploy.errors import InvalidInputError
from tests.examples.training.conftest import drawing, save


def crops(photos: Sequence[Photo], scale: int = 2, patch: int = 12, **options: int) -> Crops:
    channels = options.pop("channels", 3)
    return Crops(
        photos,
        scale=scale,
        channels=channels,
        patch=patch,
        degradation=Bicubic(),
        seed=options.pop("seed", 0),
        **options,
    )


def same(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_low_is_what_the_degradation_makes_of_high(folder: Path, scale: int, channels: int) -> None:
    made = crops(gather([str(folder)], scale), scale, 10, channels=channels)
    for number in range(20):
        low, high = made[number]
        assert low.shape == (channels, 10, 10)
        assert high.shape == (channels, 10 * scale, 10 * scale)
        again = Bicubic()(high, scale, np.random.default_rng())
        inner = (slice(None), slice(3, -3), slice(3, -3))  # what the crop's border does not reach
        # The same sum in float32, but of another piece: a value at the edge between two levels may
        # be rounded to either.
        assert (again[inner] - low[inner]).abs().max() <= 1.01 / 255


def test_sample_n_is_always_the_same_and_others_differ(folder: Path) -> None:
    photos = gather([str(folder)], 2)
    one, other, seeded = crops(photos), crops(photos), crops(photos, seed=1)
    other[3]
    assert same(one[7], other[7])
    assert not same(one[7], one[8])
    assert not same(one[7], seeded[7])


def test_batches_go_on_where_they_were_asked_to(folder: Path) -> None:
    made = crops(gather([str(folder)], 2))
    whole = list(batches(made, 0, 5, 3, workers=0))
    rest = list(batches(made, 3, 5, 3, workers=0))
    assert [low.shape for low, _ in whole] == [(3, 3, 12, 12)] * 5
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


@pytest.fixture
def children_end_quietly() -> Iterator[None]:
    """Take PyTorch's handler of ended processes away again, which it leaves behind.

    pytest's faulthandler gives handlers a stack of their own. Once OpenVINO has used AMX, what the
    kernel saves there is larger than that: the next child that ends would end pytest as well.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("children_end_quietly")
def test_worker_processes_make_the_same(folder: Path) -> None:
    made = crops(gather([str(folder)], 2))
    alone = list(batches(made, 0, 2, 3, workers=0))
    helped = list(batches(made, 0, 2, 3, workers=1))
    assert all(same(a, b) for a, b in zip(alone, helped, strict=True))


def test_pairs_are_cut_at_the_same_place(tmp_path: Path) -> None:
    high = drawing(1)
    save(tmp_path / "HR" / "a.png", high)
    save(tmp_path / "LRx2" / "ax2.png", high[::2, ::2])
    made = crops(gather([str(tmp_path)], 2))
    for number in range(10):
        low, large = made[number]
        # One of the four corners of each block, by how the crop was turned.
        corners = [large[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        assert any(torch.equal(low, corner) for corner in corners)


def test_pairs_that_do_not_fit(tmp_path: Path) -> None:
    save(tmp_path / "HR" / "a.png", drawing(1))
    save(tmp_path / "LRx2" / "ax2.png", drawing(1)[::3, ::3])
    with pytest.raises(InvalidInputError, match="40x32 is not 1/2 of its original, 120x96"):
        crops(gather([str(tmp_path)], 2))[0]


def test_photos_that_are_too_small_are_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(folder / "tiny.png", drawing(0, 20, 20))
    photos = gather([str(folder)], 2)
    with caplog.at_level(logging.WARNING):
        made = crops(photos, patch=30)
    assert "1 of 5 photos are too small" in caplog.text
    for number in range(30):
        assert made[number][0].shape == (3, 30, 30)
    with pytest.raises(InvalidInputError, match=r"5 of 5 photos are too small.*--patch"):
        crops(photos, patch=200)


def test_16_bit_photos_keep_their_depth(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    save(tmp_path / "p" / "a.png", random.integers(0, 65536, (64, 64, 3)).astype(np.uint16))
    _, high = crops(gather([str(tmp_path / "p")], 2))[0]
    levels = high.double() * 65535
    # float32 keeps a level of 65535 to 0.004.
    assert (levels - levels.round()).abs().max() < 0.02
    assert len(torch.unique(high)) > 256


def test_with_little_memory_few_photos_are_read_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.training.crops.SAMPLES_PER_SHELF", 10)
    for number in range(4):  # one colour each, to know them by
        save(folder / f"{number}.png", np.full((96, 120, 3), 40 * number + 20, np.uint8))
    photos = gather([str(folder)], 2)
    made = crops(photos, limit=2 * photos[0].bytes)
    seen = [round(float(made[number][1].min()), 3) for number in range(60)]
    kinds = [
        {min(value, round(1 - value, 3)) for value in seen[at : at + 10]} for at in range(0, 60, 10)
    ]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(set.union(*kinds)) > 1


def test_shares_decide_how_often(tmp_path: Path) -> None:
    save(tmp_path / "dark" / "a.png", np.zeros((64, 64, 3), np.uint8))
    save(tmp_path / "gray" / "a.png", np.full((64, 64, 3), 128, np.uint8))
    made = crops(gather([f"{tmp_path / 'dark'}=9", str(tmp_path / "gray")], 2))
    gray = sum(0.2 < float(made[number][1].mean()) < 0.8 for number in range(400))
    assert 20 <= gray <= 62  # 40 are expected; 3.6 standard deviations


def test_noise_is_only_in_low(folder: Path) -> None:
    made = Crops(
        gather([str(folder)], 1), scale=1, channels=3, patch=16, degradation=Noise(), seed=0
    )
    low, high = made[1]
    assert not torch.equal(low, high)
    assert (low - high).abs().mean() < 0.3
