"""Calibration is done once: what it found is kept, and made again when it cannot be used."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from sr_deploy.errors import ExportError
from sr_export import photos
from sr_export.quantize import calibration_cache
from sr_export.quantize.activations import Histogram
from tests.sr_export.quantize.nets import Net, compact

NAMES = ["input", "prelu_1"]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sr-deploy" / "calibration"


class _Told(list[str]):
    """What was reported; nothing, where all came from the cache."""

    def __call__(self, text: str) -> None:
        self.append(text)


def _tiles(first: int = 0) -> list[NDArray[np.uint8]]:
    return list(photos.batch(2, 16, 16, 3, first=first))


def _assert_equal(
    one: tuple[dict[str, float], dict[str, Histogram]],
    other: tuple[dict[str, float], dict[str, Histogram]],
) -> None:
    assert one[0] == other[0]
    assert list(one[1]) == list(other[1])
    for a, b in zip(one[1].values(), other[1].values(), strict=True):
        assert a.largest == b.largest
        assert a.counts.dtype == b.counts.dtype
        assert np.array_equal(a.counts, b.counts)


def test_the_second_time_it_is_read(place: Path) -> None:
    first, second = _Told(), _Told()
    made = calibration_cache.statistics(compact(), NAMES, _tiles(), first)
    assert first
    assert [path.suffix for path in place.iterdir()] == [".npz"]
    kept = calibration_cache.statistics(compact(), NAMES, _tiles(), second)
    assert not second
    _assert_equal(made, kept)


def test_without_names_the_largest_are_kept(place: Path) -> None:
    made = calibration_cache.statistics(compact(), [], _tiles(), _Told())
    told = _Told()
    _assert_equal(made, calibration_cache.statistics(compact(), [], _tiles(), told))
    assert not told
    assert made[1] == {}
    assert len(list(place.iterdir())) == 1


def test_another_network_or_image_or_name_is_another_entry(place: Path) -> None:
    reshaped = [tile.reshape(8, 32, 3) for tile in _tiles()]
    calls = [
        (compact(), NAMES, _tiles()),
        (compact(features=8), NAMES, _tiles()),
        (compact(), NAMES[:1], _tiles()),
        (compact(), NAMES[::-1], _tiles()),
        (compact(), NAMES, _tiles(first=1)),
        (compact(), NAMES, _tiles()[::-1]),
        (compact(), NAMES, reshaped),
    ]
    for count, call in enumerate(calls, 1):
        told = _Told()
        calibration_cache.statistics(*call, told)
        assert told
        assert len(list(place.iterdir())) == count


def _no_archive(path: Path) -> None:
    path.write_bytes(b"damaged")


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def _empty(path: Path) -> None:
    path.write_bytes(b"")


def _flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 20] = bytes(20)
    path.write_bytes(content)


def _other_content(path: Path) -> None:
    np.savez(path, names=np.array(["input"]))


def _pickled(path: Path) -> None:
    np.savez(path, names=np.array([None]), largest=np.zeros(1), counts=np.zeros((2, 4096)))


def _other_tensors(path: Path) -> None:
    counts = np.zeros((2, 4096), np.int64)
    np.savez(path, names=np.array(["other"]), largest=np.zeros(1), counts=counts)


def _other_bins(path: Path) -> None:
    counts = np.zeros((2, 2048), np.int64)
    np.savez(path, names=np.array(NAMES), largest=np.zeros(2), counts=counts)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage",
    [
        _no_archive,
        _cut,
        _empty,
        _flipped,
        _other_content,
        _pickled,
        _other_tensors,
        _other_bins,
        _folder,
    ],
)
def test_what_is_damaged_is_made_again(place: Path, damage: Callable[[Path], None]) -> None:
    made = calibration_cache.statistics(compact(), NAMES, _tiles(), _Told())
    (path,) = place.iterdir()
    damage(path)
    told = _Told()
    _assert_equal(made, calibration_cache.statistics(compact(), NAMES, _tiles(), told))
    assert told
    if damage is not _folder:
        again = _Told()
        calibration_cache.statistics(compact(), NAMES, _tiles(), again)
        assert not again


def test_a_cache_that_cannot_be_written_is_done_without(place: Path) -> None:
    place.parent.write_text("a file where a folder should be")
    for _ in range(2):
        told = _Told()
        largest, histograms = calibration_cache.statistics(compact(), NAMES, _tiles(), told)
        assert told
        assert histograms.keys() <= largest.keys()


def test_only_the_latest_are_kept(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration_cache, "_MOST_FILES", 3)
    models = [compact(features=features) for features in (4, 8, 12, 16)]
    for age, model in enumerate(models[:3]):
        before = set(place.glob("*"))
        calibration_cache.statistics(model, NAMES, _tiles(), _Told())
        (path,) = set(place.glob("*")) - before
        os.utime(path, (1000 + age, 1000 + age))
    # The oldest is needed again, so that another is the one that was not for longest.
    calibration_cache.statistics(models[0], NAMES, _tiles(), _Told())
    calibration_cache.statistics(models[3], NAMES, _tiles(), _Told())
    assert len(list(place.iterdir())) == 3
    for model, kept in zip(models, (True, False, True, True), strict=True):
        before = set(place.iterdir())
        told = _Told()
        monkeypatch.setattr(calibration_cache, "_store", lambda path, found: None)
        calibration_cache.statistics(model, NAMES, _tiles(), told)
        assert (not told) == kept
        assert set(place.iterdir()) == before


def test_a_failure_leaves_nothing(place: Path) -> None:
    model = Net().add("Mul", np.array(3e38, np.float32)).conv(3, gain=1e6).model()
    with pytest.raises(ExportError, match="'output'"):
        calibration_cache.statistics(model, ["output"], _tiles(), _Told())
    assert not place.exists()


def test_the_place_without_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert calibration_cache.folder() == tmp_path / ".cache" / "sr-deploy" / "calibration"
