"""Finding photos, the photo cache, and crops that are the same in every process."""

from __future__ import annotations

import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from examples.training.dataset import (
    Crops,
    Photo,
    PhotoCache,
    batches,
    find_photos,
    hold_out,
)
from examples.training.degradation import Bicubic, Noise
from sr_deploy.errors import InvalidInputError, NotFoundError
from tests.examples.training.conftest import drawing, save


def test_subfolders_are_searched(folder: Path) -> None:
    save(folder / "more" / "deep.png", drawing(5).astype(np.uint16) * 257)
    found = find_photos([str(folder)], 4)
    assert [photo.high.name for photo in found] == ["0.png", "1.png", "2.png", "3.png", "deep.png"]
    assert [photo.bits for photo in found] == [8, 8, 8, 8, 16]
    assert {(photo.low, photo.share, photo.side) for photo in found} == {(None, 1.0, 96)}


def test_shares_of_folders(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "a=b" / "x.png", drawing(9))
    found = find_photos([f"{folder}=2.5", str(tmp_path / "a=b")], 2)
    assert [photo.share for photo in found] == [2.5, 2.5, 2.5, 2.5, 1.0]


@pytest.mark.parametrize("share", ["", "no", "0", "-1", "inf", "nan"])
def test_invalid_shares(folder: Path, share: str) -> None:
    with pytest.raises(InvalidInputError, match="photos=.*" + re.escape(repr(share))):
        find_photos([f"{folder}={share}"], 2)


@pytest.mark.parametrize("scale", [2, 4])
def test_div2k_layout(tmp_path: Path, scale: int) -> None:
    for number in ("0001", "0002"):
        save(tmp_path / "DIV2K_train_HR" / f"{number}.png", drawing(0))
        for each in (2, 4):
            low = tmp_path / "DIV2K_train_LR_bicubic" / f"X{each}" / f"{number}x{each}.png"
            save(low, drawing(0)[::each, ::each])
    found = find_photos([str(tmp_path)], scale)
    assert [photo.high.name for photo in found] == ["0001.png", "0002.png"]
    lows = [photo.low.name for photo in found if photo.low]
    assert lows == [f"0001x{scale}.png", f"0002x{scale}.png"]


def test_at_scale_1_photos_are_targets(folder: Path) -> None:
    assert {photo.low for photo in find_photos([str(folder)], 1)} == {None}


def test_unreadable_files_are_skipped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "9.png").write_bytes(b"\x89PNG and no more")
    with caplog.at_level(logging.WARNING):
        assert len(find_photos([str(folder)], 2)) == 4
    assert "9.png" in caplog.text


def test_folders_without_photos(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        find_photos([str(tmp_path / "nowhere")], 2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    with pytest.raises(InvalidInputError, match="bad"):
        find_photos([str(tmp_path / "bad")], 2)


@pytest.mark.parametrize(("count", "held"), [(2, 1), (4, 1), (10, 1), (30, 3)])
def test_held_out_photos(folder: Path, count: int, held: int) -> None:
    photos = (find_photos([str(folder)], 2) * 8)[:count]
    named = [photo.__class__(Path(str(i)), None, 1.0, 9, 8, 9) for i, photo in enumerate(photos)]
    training, validation = hold_out(named)
    assert len(validation) == held
    assert sorted(training + validation, key=named.index) == named


def test_one_photo_is_too_few(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="--validation"):
        hold_out(find_photos([str(folder)], 2)[:1])


def test_channel_conversion(tmp_path: Path) -> None:
    colors = drawing(0)
    alpha = np.dstack([colors, colors[..., :1]])
    deep = colors.astype(np.uint16) * 257
    gray = colors[..., 0]
    rgb, one = PhotoCache(3), PhotoCache(1)
    assert np.array_equal(rgb.read(save(tmp_path / "a.png", alpha)), colors)
    assert np.array_equal(rgb.read(save(tmp_path / "d.png", deep)), deep)
    assert np.array_equal(rgb.read(save(tmp_path / "g.png", gray)), np.dstack([gray] * 3))
    assert np.array_equal(one.read(tmp_path / "g.png"), gray[..., None])
    luma = colors @ np.array([0.299, 0.587, 0.114])
    # Rounding: half a level.
    assert np.abs(one.read(tmp_path / "a.png")[..., 0] - luma).max() <= 0.5


def test_the_cache_keeps_recent_photos(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    cache = PhotoCache(3, limit=2 * drawing(0).nbytes)
    first = cache.read(paths[0])
    assert cache.read(paths[0]) is first
    for path in paths[1:]:
        cache.read(path)
    assert cache.read(paths[3]) is cache.read(paths[3])
    assert cache.read(paths[0]) is not first


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
def test_low_is_the_degraded_high(folder: Path, scale: int, channels: int) -> None:
    made = crops(find_photos([str(folder)], scale), scale, 10, channels=channels)
    for number in range(20):
        low, high = made[number]
        assert low.shape == (channels, 10, 10)
        assert high.shape == (channels, 10 * scale, 10 * scale)
        again = Bicubic()(high, scale, np.random.default_rng())
        # Without the crop's border, which degrades differently.
        inner = (slice(None), slice(3, -3), slice(3, -3))
        # Float32 sums in another order: a value between two levels may be rounded to either.
        assert (again[inner] - low[inner]).abs().max() <= 1.01 / 255


def test_sample_n_is_reproducible_and_others_differ(folder: Path) -> None:
    photos = find_photos([str(folder)], 2)
    one, other, seeded = crops(photos), crops(photos), crops(photos, seed=1)
    other[3]
    assert same(one[7], other[7])
    assert not same(one[7], one[8])
    assert not same(one[7], seeded[7])


def test_batches_start_at_a_step(folder: Path) -> None:
    made = crops(find_photos([str(folder)], 2))
    whole = list(batches(made, 0, 5, 3, workers=0))
    rest = list(batches(made, 3, 5, 3, workers=0))
    assert [low.shape for low, _ in whole] == [(3, 3, 12, 12)] * 5
    assert all(same(a, b) for a, b in zip(whole[3:], rest, strict=True))


@pytest.fixture
def _restored_sigchld() -> Iterator[None]:
    """Remove the SIGCHLD handler that PyTorch leaves behind.

    pytest's faulthandler makes signal handlers run on a small alternate stack. After OpenVINO has
    used AMX, the kernel saves more state than fits there, so the next child that ends would crash
    pytest.
    """
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("_restored_sigchld")
def test_worker_processes_return_the_same_crops(folder: Path) -> None:
    """In a process of its own: the loader forks, which a process with many threads cannot do."""
    program = (
        "import sys, torch\n"
        "from tests.examples.training.test_dataset import batches, crops, find_photos, same\n"
        "made = crops(find_photos([sys.argv[1]], 2))\n"
        "alone, helped = (list(batches(made, 0, 2, 3, workers=count)) for count in (0, 1))\n"
        "sys.exit(not all(same(a, b) for a, b in zip(alone, helped, strict=True)))\n"
    )
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", program, str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_pairs_are_cut_at_the_same_place(tmp_path: Path) -> None:
    high = drawing(1)
    save(tmp_path / "HR" / "a.png", high)
    save(tmp_path / "LRx2" / "ax2.png", high[::2, ::2])
    made = crops(find_photos([str(tmp_path)], 2))
    for number in range(10):
        low, large = made[number]
        # One of the four corners of each 2x2 block, depending on the rotation.
        corners = [large[:, i::2, j::2] for i in (0, 1) for j in (0, 1)]
        assert any(torch.equal(low, corner) for corner in corners)


def test_pairs_with_wrong_sizes(tmp_path: Path) -> None:
    save(tmp_path / "HR" / "a.png", drawing(1))
    save(tmp_path / "LRx2" / "ax2.png", drawing(1)[::3, ::3])
    with pytest.raises(InvalidInputError, match=r"ax2\.png.*40x32.*1/2.*120x96"):
        crops(find_photos([str(tmp_path)], 2))[0]


def test_small_photos_are_skipped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(folder / "tiny.png", drawing(0, 20, 20))
    photos = find_photos([str(folder)], 2)
    with caplog.at_level(logging.WARNING):
        made = crops(photos, patch=30)
    assert "1 of 5" in caplog.text
    assert "68x68" in caplog.text
    for number in range(30):
        assert made[number][0].shape == (3, 30, 30)
    with pytest.raises(InvalidInputError, match=r"5 of 5.*--patch"):
        crops(photos, patch=200)


def test_16_bit_photos_keep_their_depth(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    save(tmp_path / "p" / "a.png", random.integers(0, 65536, (64, 64, 3)).astype(np.uint16))
    _, high = crops(find_photos([str(tmp_path / "p")], 2))[0]
    levels = high.double() * 65535
    # float32 represents levels of 65535 with an error of 0.004.
    assert (levels - levels.round()).abs().max() < 0.02
    assert len(torch.unique(high)) > 256


def test_a_small_cache_reads_a_subset_at_a_time(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("examples.training.dataset.SAMPLES_PER_SUBSET", 10)
    for number in range(4):  # one color each, to identify them
        save(folder / f"{number}.png", np.full((96, 120, 3), 40 * number + 20, np.uint8))
    photos = find_photos([str(folder)], 2)
    made = crops(photos, limit=2 * photos[0].bytes)
    seen = [round(float(made[number][1].min()), 3) for number in range(60)]
    kinds = [
        {min(value, round(1 - value, 3)) for value in seen[at : at + 10]} for at in range(0, 60, 10)
    ]
    assert all(len(kind) == 1 for kind in kinds)
    assert len(set.union(*kinds)) > 1


def test_shares_set_the_frequency(tmp_path: Path) -> None:
    save(tmp_path / "dark" / "a.png", np.zeros((64, 64, 3), np.uint8))
    save(tmp_path / "gray" / "a.png", np.full((64, 64, 3), 128, np.uint8))
    made = crops(find_photos([f"{tmp_path / 'dark'}=9", str(tmp_path / "gray")], 2))
    gray = sum(0.2 < float(made[number][1].mean()) < 0.8 for number in range(400))
    assert 20 <= gray <= 62  # expected: 40; 3.6 standard deviations


def test_noise_is_in_low_only(folder: Path) -> None:
    made = Crops(
        find_photos([str(folder)], 1), scale=1, channels=3, patch=16, degradation=Noise(), seed=0
    )
    low, high = made[1]
    assert not torch.equal(low, high)
    assert (low - high).abs().mean() < 0.3
