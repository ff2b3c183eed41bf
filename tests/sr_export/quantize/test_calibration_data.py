"""What calibration is given: tiles of some images, others to judge by, and clear words."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from sr_bench.quality import FILTERS, resize
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_export import photos
from sr_export.quantize.calibration_data import CalibrationData, gather
from sr_export.quantize.image_folder import FolderImage


def _gather(folder: Path | None, **options: Any) -> CalibrationData:
    settings: dict[str, Any] = {
        "channels": 3,
        "scale": 2,
        "minimum": 1,
        "fixed_size": None,
        "low_resolution": False,
        "seed": 0,
        "report": lambda text: None,
    }
    return gather(folder, **(settings | options))


def _photo(shade: int, height: int = 150, width: int = 170) -> NDArray[np.uint8]:
    """Return noise on one shade, by which the image can be told."""
    noise = np.random.default_rng(shade).integers(0, 4, (height, width, 3))
    return (shade + noise).astype(np.uint8)


def _save(path: Path, pixels: NDArray[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def photos_by_shade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photos, which differ in shade by ten each."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(12):
        _save(folder / f"{i:02}.png", _photo(10 * i))
    return folder


@pytest.fixture
def folder(photos_by_shade: Path, tmp_path: Path) -> Path:
    """A copy of the photos, which a test may change."""
    return Path(shutil.copytree(photos_by_shade, tmp_path / "photos"))


def _shades(images: Any) -> set[int]:
    return {int(round(float(np.mean(each)) - 1.5, -1)) for each in images}


def test_no_tile_is_of_a_held_out_image(folder: Path) -> None:
    calibration = _gather(folder)
    held_out = [each for each in calibration.held_out if each.name != "retina"]
    assert len(held_out) == 2  # a fifth of twelve
    calibrated, judged = _shades(calibration.tiles), _shades(each.low for each in held_out)
    assert len(calibrated) == 10
    assert calibrated.isdisjoint(judged)
    assert {f"{shade // 10:02}.png" for shade in judged} == {each.name for each in held_out}


def test_it_says_where_the_tiles_are_from(folder: Path) -> None:
    assert _gather(folder).text == "96 tiles of 10 images in photos, seed 0"
    assert _gather(None, seed=3).text == "96 tiles of 8 photos that ship with sr-export, seed 3"


def test_the_seed_makes_it_reproducible(folder: Path) -> None:
    first, same, other = (_gather(folder, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.tiles, same.tiles)
    assert [each.name for each in first.held_out] == [each.name for each in same.held_out]
    assert not np.array_equal(first.tiles, other.tiles)


def test_the_smooth_photo_is_always_judged_by(folder: Path) -> None:
    assert [each.name for each in _gather(folder).held_out].count("retina") == 1
    names = [each.name for each in _gather(None).held_out]
    assert names == ["astronaut", "cat", "cup", "retina"]


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_originals_are_reduced_as_the_benchmark_does_it(folder: Path, scale: int) -> None:
    example = _gather(folder, scale=scale).held_out[0]
    original = np.asarray(Image.open(folder / example.name))
    height, width = 150 // scale, 170 // scale
    original = original[: height * scale, : width * scale]
    assert example.truth is not None
    # What is smaller than a tile is reflected.
    low, truth = example.low[:height, :width], example.truth[: height * scale, : width * scale]
    assert np.array_equal(truth, original)
    assert np.array_equal(low, resize(original, (width, height), FILTERS["bicubic"]))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_a_piece_is_what_it_would_be_of_the_whole(scale: int) -> None:
    truth = np.random.default_rng(0).integers(0, 256, (40 * scale, 50 * scale, 3), np.uint8)
    picture = FolderImage(scale, None, truth)
    whole = resize(truth, (50, 40), FILTERS["bicubic"])
    for top, left, size in ((0, 0, (40, 50)), (13, 7, (11, 20)), (30, 35, (10, 15))):
        expected = whole[top : top + size[0], left : left + size[1]]
        assert np.array_equal(picture.piece(top, left, size), expected)


def test_low_resolution_is_taken_as_it_is(folder: Path) -> None:
    example = _gather(folder, low_resolution=True).held_out[0]
    assert np.array_equal(example.low, np.asarray(Image.open(folder / example.name)))
    assert example.truth is None


def test_a_restorer_sees_images_as_they_are(folder: Path) -> None:
    for example in _gather(folder, scale=1).held_out:
        assert example.truth is None
    assert all(example.truth is None for example in _gather(None, scale=1).held_out)


@pytest.mark.parametrize(
    ("high", "low", "suffix"),
    [
        ("HR", "LRx2", "x2"),
        ("HR", "LR", ""),
        ("HR", "LR_bicubic/X2", "x2"),
        ("DIV2K_train_HR", "DIV2K_train_LR_bicubic/X2", "x2"),
        ("DIV2K_valid_HR", "DIV2K_valid_LR_bicubic_X2", ""),
    ],
)
def test_pairs_are_used_as_they_are(tmp_path: Path, high: str, low: str, suffix: str) -> None:
    for i in range(3):
        _save(tmp_path / high / f"{i}.png", _photo(50 * i, 141, 161))
        # Not what reducing the original would give.
        _save(tmp_path / low / f"{i}{suffix}.png", _photo(50 * i + 20, 70, 80))
        _save(tmp_path / Path(low).parent / "LR_x4" / f"{i}x4.png", _photo(200, 35, 40))
    calibration = _gather(tmp_path)
    assert _shades(calibration.tiles) < {20, 70, 120}
    example = calibration.held_out[0]
    assert example.truth is not None
    assert example.low.shape == (70, 80, 3)
    assert example.truth.shape == (140, 160, 3)
    assert float(example.low.mean() - example.truth.mean()) == pytest.approx(20, abs=1)


def test_without_pairs_of_this_scale_the_originals_are_reduced(tmp_path: Path) -> None:
    for i in range(3):
        _save(tmp_path / "HR" / f"{i}.png", _photo(50 * i))
        _save(tmp_path / "LRx4" / f"{i}x4.png", _photo(200))
    assert _shades(_gather(tmp_path).tiles) < {0, 50, 100}


def test_tiles_are_flat_as_well_as_textured(tmp_path: Path) -> None:
    pixels = np.full((600, 600, 3), 128, np.uint8)
    pixels[:, :300] = np.random.default_rng(0).integers(0, 256, (600, 300, 3))
    _save(tmp_path / "half.png", pixels)
    spread = np.array([tile.std() for tile in _gather(tmp_path).tiles])
    # Of the 237 columns of low resolution at which a tile may begin, 87 have no noise, and 87 no
    # flat part: 37 % each.
    assert np.mean(spread == 0) == pytest.approx(0.37, abs=0.05)
    assert np.mean(spread > 0.95 * spread.max()) == pytest.approx(0.37, abs=0.05)


def test_every_image_has_its_share(folder: Path) -> None:
    shades = [int(round(float(tile.mean()) - 1.5, -1)) for tile in _gather(folder).tiles]
    counts = np.bincount(np.array(shades) // 10)
    assert set(counts[counts > 0]) <= {9, 10}  # 96 tiles of 10 images


@pytest.mark.parametrize("size", [(5, 90), (90, 5), (3, 3)])
def test_images_smaller_than_a_tile_are_reflected(tmp_path: Path, size: tuple[int, int]) -> None:
    for i in range(3):
        _save(tmp_path / f"{i}.png", _photo(80 * i, *size))
    calibration = _gather(tmp_path)
    assert {tile.shape for tile in calibration.tiles} == {(64, 64, 3)}
    example = calibration.held_out[0]
    assert example.low.shape == (64, 64, 3)
    assert example.truth is not None
    assert example.truth.shape == (128, 128, 3)


def test_a_network_gets_the_size_that_it_takes(folder: Path) -> None:
    fixed = _gather(folder, fixed_size=(48, 200))
    assert {tile.shape for tile in fixed.tiles} == {(48, 200, 3)}
    assert {example.low.shape for example in fixed.held_out} == {(48, 200, 3)}
    large = _gather(folder, minimum=300)
    assert {tile.shape for tile in large.tiles} == {(300, 300, 3)}
    assert {example.low.shape for example in large.held_out} == {(300, 300, 3)}


def test_of_large_tiles_there_are_fewer(tmp_path: Path) -> None:
    _save(tmp_path / "one.png", _photo(100, 700, 700))
    # As many pixels as 384 usual tiles have, or 16 tiles.
    for side, count in ((64, 96), (128, 96), (256, 24), (600, 16)):
        assert len(_gather(tmp_path, minimum=side, low_resolution=True).tiles) == count


def test_of_big_images_the_middle_is_judged_by(tmp_path: Path) -> None:
    for i in range(2):
        _save(tmp_path / f"{i}.png", _photo(40, 700, 900))
    example = _gather(tmp_path).held_out[0]
    whole = np.asarray(Image.open(tmp_path / example.name))
    assert example.low.shape == (192, 192, 3)
    assert example.truth is not None
    assert np.array_equal(example.truth, whole[158 : 158 + 384, 258 : 258 + 384])


def test_one_image_is_calibrated_on_and_our_photos_judge(tmp_path: Path) -> None:
    _save(tmp_path / "one.png", _photo(100))
    calibration = _gather(tmp_path)
    assert _shades(calibration.tiles) == {100}
    assert [each.name for each in calibration.held_out] == ["astronaut", "cat", "cup", "retina"]


def test_two_images_are_divided(tmp_path: Path) -> None:
    for i in range(2):
        _save(tmp_path / f"{i}.png", _photo(100 * i))
    calibration = _gather(tmp_path)
    assert len(_shades(calibration.tiles)) == 1
    assert len(calibration.held_out) == 2  # the other, and the smooth photo


def _all_kinds(folder: Path) -> None:
    gray = np.full((80, 80), 100, np.uint8)
    rgb = np.repeat(gray[..., None], 3, axis=2)
    _save(folder / "gray.png", gray)
    _save(folder / "rgba.png", np.dstack([rgb, np.zeros_like(gray)]))
    _save(folder / "deep.png", np.full((80, 80), 100 * 257, np.uint16))
    Image.fromarray(rgb).quantize(4).save(folder / "palette.png")
    cmyk = np.dstack([np.zeros((80, 80, 3), np.uint8), np.full_like(gray, 155)])
    Image.fromarray(cmyk, "CMYK").save(folder / "cmyk.tif")


@pytest.mark.parametrize("channels", [1, 3])
def test_all_kinds_of_files_become_bytes(
    tmp_path: Path, channels: int, caplog: pytest.LogCaptureFixture
) -> None:
    _all_kinds(tmp_path)
    calibration = _gather(tmp_path, channels=channels, low_resolution=True)
    images = [
        *calibration.tiles,
        *(each.low for each in calibration.held_out if each.name != "retina"),
    ]
    assert {image.shape[2] for image in images} == {channels}
    assert all(image.dtype == np.uint8 for image in images)
    assert {value for image in images for value in np.unique(image)} == {100}
    assert "skipped" not in caplog.text


def test_one_channel_is_green(tmp_path: Path) -> None:
    _save(tmp_path / "one.png", np.full((80, 80, 3), (10, 20, 30), np.uint8))
    tiles = _gather(tmp_path, channels=1, low_resolution=True).tiles
    assert np.unique(tiles).tolist() == [20]


def test_images_in_sub_folders_count_and_hidden_ones_do_not(tmp_path: Path) -> None:
    _save(tmp_path / "a" / "b" / "deep.png", _photo(100))
    _save(tmp_path / ".hidden.png", _photo(200))
    _save(tmp_path / ".thumbnails" / "c.png", _photo(200))
    assert _shades(_gather(tmp_path).tiles) == {100}


def test_damaged_images_are_named_once_and_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "bad.png").write_bytes(b"not an image")
    whole = (folder / "05.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    _save(folder / "dot.png", _photo(0, 1, 1))
    # Those that are read after the last damaged one make up for all before it.
    assert len(_gather(folder).tiles) > 80
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    text = record.getMessage()
    assert text.startswith("skipped 4 images: ")
    assert all(text.count(name) == 1 for name in ("bad.png", "cut.png", "empty.jpg", "dot.png"))


def test_only_damaged_images_are_an_error(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes(b"not an image")
    with pytest.raises(InvalidInputError, match=r"2 .*a\.png"):
        _gather(tmp_path)


def test_pairs_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    _save(tmp_path / "HR" / "a.png", _photo(0))
    _save(tmp_path / "LR" / "a.png", _photo(0))
    with pytest.raises(InvalidInputError, match=r"170x150 .* 85x75"):
        _gather(tmp_path)
    (tmp_path / "LR" / "a.png").rename(tmp_path / "LR" / "b.png")
    with pytest.raises(InvalidInputError, match=r"LR and HR"):
        _gather(tmp_path)


def test_without_images_it_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(InvalidInputError, match=r"\.png .*\.tif"):
        _gather(tmp_path)


def test_no_folder_and_a_file_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such folder"):
        _gather(tmp_path / "nowhere")
    with pytest.raises(InvalidInputError, match="is a file"):
        _gather(_save(tmp_path / "one.png", _photo(0)))


def test_nothing_is_written(folder: Path) -> None:
    before = sorted(folder.parent.rglob("*"))
    _gather(folder)
    assert sorted(folder.parent.rglob("*")) == before


def test_progress_is_told(folder: Path) -> None:
    told: list[str] = []
    _gather(folder, report=told.append)
    assert told[0] == "reading images: 1, 0 of 96 tiles cut"
    assert len(told) == 12


def test_our_calibration_set_is_small_varied_and_not_the_exam() -> None:
    paths = sorted(photos.CALIBRATION_FOLDER.glob("*.jpg"))
    assert 5 <= len(paths) <= 8
    assert sum(path.stat().st_size for path in paths) < 350_000
    assert not {path.stem for path in paths} & {path.stem for path in photos.FOLDER.glob("*.jpg")}
    described = (photos.CALIBRATION_FOLDER / "README.md").read_text(encoding="utf-8")
    assert all(f"`{path.name}`" in described for path in paths)
    tiles = np.stack(_gather(None).tiles).astype(float)
    detail = np.abs(np.diff(tiles, axis=2)).mean(axis=(1, 2, 3))
    colour = np.ptp(tiles.mean(axis=(1, 2)), axis=1)
    brightness = tiles.mean(axis=(1, 2, 3))
    # In levels of 255: flat and detailed, gray and colourful, dark and bright tiles are all there.
    for values, low, high in ((detail, 2, 15), (colour, 5, 90), (brightness, 30, 150)):
        assert np.mean(values < low) > 0.05
        assert np.mean(values > high) > 0.05
