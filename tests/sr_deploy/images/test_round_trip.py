"""What is written is what is read: every kind, every depth, every odd size."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from sr_deploy import images
from sr_deploy.images import Metadata, Picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_deploy.images.picture import AnyPixels

    Pixels = Callable[..., AnyPixels]

KINDS = ["L", "LA", "RGB", "RGBA"]


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", KINDS)
def test_lossless_formats_keep_kind_and_depth(
    tmp_path: Path, pixels: Pixels, kind: str, bits: int, suffix: str
) -> None:
    original = pixels(kind, bits)
    for part in (original, original[:1, :1], original[:1], original[:, :1], original[::-2, ::3]):
        images.write(tmp_path / f"a{suffix}", Picture(part))
        found = images.read(tmp_path / f"a{suffix}").pixels
        assert found.dtype == part.dtype
        np.testing.assert_array_equal(found, part)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_pictures_of_many_strips(tmp_path: Path, pixels: Pixels, suffix: str) -> None:
    original = np.tile(pixels("RGB"), (20, 10, 1))  # 6 MB
    images.write(tmp_path / f"a{suffix}", Picture(original), quality=100)
    found = images.read(tmp_path / f"a{suffix}").pixels
    # At quality 100, JPEG rounds the colour conversion and the transform: a few levels.
    tolerance = 6 if suffix == ".jpg" else 0
    assert np.abs(found.astype(int) - original).max() <= tolerance


def test_a_dark_16_bit_image_stays_16_bit(tmp_path: Path) -> None:
    dark = np.arange(60, dtype=np.uint16).reshape(4, 5, 3)
    for suffix in (".png", ".tiff"):
        images.write(tmp_path / f"a{suffix}", Picture(dark))
        found = images.read(tmp_path / f"a{suffix}").pixels
        assert found.dtype == np.uint16
        np.testing.assert_array_equal(found, dark)


@pytest.mark.parametrize("kind", KINDS)
def test_drawings_are_written_right_too(tmp_path: Path, pixels: Pixels, kind: str) -> None:
    """Flat pictures are compressed by another strategy than photographs."""
    flat = np.tile(pixels(kind)[:8, :8], (60, 60) + (1,) * (kind != "L"))
    images.write(tmp_path / "a.png", Picture(flat))
    np.testing.assert_array_equal(images.read(tmp_path / "a.png").pixels, flat)
    assert (tmp_path / "a.png").stat().st_size < flat.nbytes / 20


@pytest.mark.parametrize(("suffix", "kinds"), [(".webp", KINDS), (".bmp", ["L", "RGB"])])
def test_lossless_webp_and_bmp(
    tmp_path: Path, pixels: Pixels, suffix: str, kinds: list[str]
) -> None:
    for kind in kinds:
        original = pixels(kind)
        images.write(tmp_path / f"a{suffix}", Picture(original), quality=100)
        found = images.read(tmp_path / f"a{suffix}").pixels
        if suffix == ".webp" and kind in ("L", "LA"):  # WebP has no gray
            gray, rest = found[..., :1], found[..., 1:3]
            assert (gray == rest).all()
            found = gray[..., 0] if kind == "L" else found[..., [0, 3]]
        visible = found[..., -1:] > 0 if kind in ("LA", "RGBA") else True  # WebP drops what is not
        np.testing.assert_array_equal(found * visible, original * visible)


@pytest.mark.parametrize("kind", ["L", "RGB"])
@pytest.mark.parametrize("quality", [60, 95])
def test_a_jpeg_in_strips_is_a_jpeg(
    tmp_path: Path, pixels: Pixels, kind: str, quality: int
) -> None:
    original = np.tile(pixels(kind), (40, 8) + (1,) * (kind == "RGB"))
    images.write(tmp_path / "strips.jpg", Picture(original), quality=quality)
    Image.fromarray(original).save(tmp_path / "whole.jpg", quality=quality, subsampling=0)
    with (
        Image.open(tmp_path / "strips.jpg") as strips,
        Image.open(tmp_path / "whole.jpg") as whole,
    ):
        np.testing.assert_array_equal(np.asarray(strips), np.asarray(whole))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_metadata_is_kept(tmp_path: Path, pixels: Pixels, metadata: Metadata, suffix: str) -> None:
    images.write(tmp_path / f"a{suffix}", Picture(pixels("RGB"), metadata))
    found = images.read(tmp_path / f"a{suffix}").metadata
    assert found.icc_profile == metadata.icc_profile
    # PNG counts per metre, in whole numbers.
    assert found.dpi == pytest.approx(metadata.dpi, abs=0.02)
    exif = Image.Exif()
    exif.load(found.exif or b"")
    assert (exif[0x010F], exif[0x8298]) == ("Camera", "Somebody")
    detail, position = exif.get_ifd(0x8769), exif.get_ifd(0x8825)
    assert detail[0x9003] == "2024:05:01 10:00:00"
    assert detail[0x829A] == pytest.approx(1 / 250)
    assert detail[0x927C] == b"notes of the maker"
    assert exif.get_ifd(0xA005) == {1: "R98"}
    assert position == {1: "N", 2: (48.0, 30.0, 15.5)}
    # The size that EXIF states is the new one.
    assert (detail[0xA003], detail[0xA002]) == (100, 103)


def test_bmp_keeps_the_resolution(tmp_path: Path, pixels: Pixels) -> None:
    images.write(tmp_path / "a.bmp", Picture(pixels("RGB"), Metadata(dpi=(300.0, 300.0))))
    assert images.read(tmp_path / "a.bmp").metadata.dpi == pytest.approx((300, 300), abs=0.02)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_writing_takes_no_second_copy(tmp_path: Path, suffix: str) -> None:
    picture = Picture(np.zeros((4000, 6000, 3), np.uint8))  # 72 MB
    tracemalloc.start()
    try:
        images.write(tmp_path / f"a{suffix}", picture)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    # A strip of a megabyte takes about ten while it is filtered, and each of at most eight
    # threads holds one; a copy of the picture would be 72 MB, in Pillow 96.
    assert peak < 200 << 20
