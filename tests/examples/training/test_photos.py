"""Which photos a training finds, and what they are when read."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from examples.training.photos import Library, gather, hold_out
from sr_deploy.errors import InvalidInputError, NotFoundError
from tests.examples.training.conftest import drawing, save


def test_a_folder_with_its_sub_folders(folder: Path) -> None:
    save(folder / "more" / "deep.png", drawing(5).astype(np.uint16) * 257)
    found = gather([str(folder)], 4)
    assert [photo.high.name for photo in found] == ["0.png", "1.png", "2.png", "3.png", "deep.png"]
    assert [photo.bits for photo in found] == [8, 8, 8, 8, 16]
    assert {(photo.low, photo.share, photo.side) for photo in found} == {(None, 1.0, 96)}


def test_shares_of_folders(folder: Path, tmp_path: Path) -> None:
    save(tmp_path / "a=b" / "x.png", drawing(9))
    found = gather([f"{folder}=2.5", str(tmp_path / "a=b")], 2)
    assert [photo.share for photo in found] == [2.5, 2.5, 2.5, 2.5, 1.0]


@pytest.mark.parametrize("share", ["", "no", "0", "-1", "inf", "nan"])
def test_a_share_that_is_none(folder: Path, share: str) -> None:
    with pytest.raises(InvalidInputError, match="is no share"):
        gather([f"{folder}={share}"], 2)


@pytest.mark.parametrize("scale", [2, 4])
def test_div2k_as_it_lies(tmp_path: Path, scale: int) -> None:
    for number in ("0001", "0002"):
        save(tmp_path / "DIV2K_train_HR" / f"{number}.png", drawing(0))
        for each in (2, 4):
            low = tmp_path / "DIV2K_train_LR_bicubic" / f"X{each}" / f"{number}x{each}.png"
            save(low, drawing(0)[::each, ::each])
    found = gather([str(tmp_path)], scale)
    assert [photo.high.name for photo in found] == ["0001.png", "0002.png"]
    lows = [photo.low.name for photo in found if photo.low]
    assert lows == [f"0001x{scale}.png", f"0002x{scale}.png"]


def test_at_scale_1_photos_are_the_truth(folder: Path) -> None:
    assert {photo.low for photo in gather([str(folder)], 1)} == {None}


def test_what_cannot_be_read_is_left_out(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "9.png").write_bytes(b"\x89PNG and no more")
    with caplog.at_level(logging.WARNING):
        assert len(gather([str(folder)], 2)) == 4
    assert "9.png" in caplog.text


def test_nothing_to_train_on(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nowhere"):
        gather([str(tmp_path / "nowhere")], 2)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    with pytest.raises(InvalidInputError, match="no photo can be read"):
        gather([str(tmp_path / "bad")], 2)


@pytest.mark.parametrize(("count", "held"), [(2, 1), (4, 1), (10, 1), (30, 3)])
def test_some_are_held_out(folder: Path, count: int, held: int) -> None:
    photos = (gather([str(folder)], 2) * 8)[:count]
    named = [photo.__class__(Path(str(i)), None, 1.0, 9, 8, 9) for i, photo in enumerate(photos)]
    training, validation = hold_out(named)
    assert len(validation) == held
    assert sorted(training + validation, key=named.index) == named


def test_one_photo_is_too_few(folder: Path) -> None:
    with pytest.raises(InvalidInputError, match="--validation"):
        hold_out(gather([str(folder)], 2)[:1])


def test_kinds_of_pixels(tmp_path: Path) -> None:
    colours = drawing(0)
    alpha = np.dstack([colours, colours[..., :1]])
    deep = colours.astype(np.uint16) * 257
    gray = colours[..., 0]
    rgb, one = Library(3), Library(1)
    assert np.array_equal(rgb.read(save(tmp_path / "a.png", alpha)), colours)
    assert np.array_equal(rgb.read(save(tmp_path / "d.png", deep)), deep)
    assert np.array_equal(rgb.read(save(tmp_path / "g.png", gray)), np.dstack([gray] * 3))
    assert np.array_equal(one.read(tmp_path / "g.png"), gray[..., None])
    luma = colours @ np.array([0.299, 0.587, 0.114])
    # Half a level of rounding.
    assert np.abs(one.read(tmp_path / "a.png")[..., 0] - luma).max() <= 0.5


def test_a_library_keeps_what_fits(folder: Path) -> None:
    paths = sorted(folder.iterdir())
    library = Library(3, limit=2 * drawing(0).nbytes)
    first = library.read(paths[0])
    assert library.read(paths[0]) is first
    for path in paths[1:]:
        library.read(path)
    assert library.read(paths[3]) is library.read(paths[3])
    assert library.read(paths[0]) is not first
