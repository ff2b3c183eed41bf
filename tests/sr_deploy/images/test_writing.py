"""What the formats cannot hold is said, and nothing is lost when writing fails."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

from sr_deploy import images
from sr_deploy.errors import ImageError, NotFoundError, SrDeployError
from sr_deploy.images import Metadata, Picture

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_deploy.images.picture import AnyPixels

    Pixels = Callable[..., AnyPixels]


def test_transparent_parts_become_white_where_there_is_no_alpha(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for dtype, white in ((np.uint8, 255), (np.uint16, 65535)):
        half = white // 2 + 1
        pixel = np.array([[[white, half, 0, 0], [white, half, 0, half], [white, half, 0, white]]])
        tiled = np.repeat(np.repeat(pixel, 16, 0), 16, 1).astype(dtype)
        for suffix in (".jpg", ".bmp"):
            caplog.clear()
            images.write(tmp_path / f"a{suffix}", Picture(tiled), quality=100)
            assert "white" in caplog.text
            found = images.read(tmp_path / f"a{suffix}").pixels[8, 8::16]
            expected = [[255, 255, 255], [255, 191, 127], [255, 128, 0]]
            # JPEG rounds once more, in YCbCr.
            np.testing.assert_allclose(found, expected, atol=1 if suffix == ".jpg" else 0)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("a.gif", SrDeployError, ".png"),
        ("a", SrDeployError, ".png"),
        ("none/a.png", NotFoundError, "none"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, pixels: Pixels, name: str, error: type[SrDeployError], message: str
) -> None:
    with pytest.raises(error, match=message):
        images.write(tmp_path / name, Picture(pixels("RGB")))
    assert not list(tmp_path.iterdir())


def test_too_large_for_the_format(tmp_path: Path) -> None:
    wide = Picture(np.zeros((1, 16384), np.uint8))
    with pytest.raises(ImageError, match=r"16384x1.*WebP.*16383"):
        images.write(tmp_path / "a.webp", wide)
    images.write(tmp_path / "a.jpg", wide)
    with pytest.raises(ImageError, match=r"JPEG.*65500"):
        images.check_fits(tmp_path / "a.jpg", 65501, 1)
    images.check_fits(tmp_path / "a.png", 65501, 100_000)


@pytest.mark.parametrize("quality", [0, 101])
def test_quality_out_of_range(tmp_path: Path, pixels: Pixels, quality: int) -> None:
    with pytest.raises(SrDeployError, match="1 to 100"):
        images.write(tmp_path / "a.jpg", Picture(pixels("RGB")), quality=quality)


def test_what_was_there_stays_when_writing_fails(
    tmp_path: Path, pixels: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.png"
    images.write(path, Picture(pixels("RGB")))
    before = path.read_bytes()

    def fail(*_: object) -> bytes:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sr_deploy.images.png.deflated", fail)
    with pytest.raises(ImageError, match=r"a\.png.*No space left"):
        images.write(path, Picture(pixels("L")))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_metadata_that_a_format_cannot_hold(
    tmp_path: Path, pixels: Pixels, metadata: Metadata, caplog: pytest.LogCaptureFixture
) -> None:
    images.write(tmp_path / "a.bmp", Picture(pixels("RGB"), metadata))
    assert "BMP" in caplog.text
    exif = Image.Exif()
    exif[0x8769] = {0x927C: bytes(70_000)}
    images.write(tmp_path / "a.jpg", Picture(pixels("RGB"), Metadata(exif=exif.tobytes())))
    assert "70" in caplog.text
    assert images.read(tmp_path / "a.jpg").metadata.exif is None


def test_a_gray_profile_does_not_go_into_webp(tmp_path: Path, pixels: Pixels) -> None:
    """WebP turns gray into RGB, for which the profile would be wrong."""
    gray = bytearray(200)
    gray[16:20] = b"GRAY"
    images.write(tmp_path / "a.webp", Picture(pixels("L"), Metadata(icc_profile=bytes(gray))))
    assert images.read(tmp_path / "a.webp").metadata.icc_profile is None


def test_a_thumbnail_is_dropped(tmp_path: Path, pixels: Pixels) -> None:
    """It would show the picture as it was, and not turned."""
    small = io.BytesIO()
    Image.fromarray(pixels("RGB")[:16, :16]).save(small, "JPEG")
    entries = [(0x0201, 4, 1, 56), (0x0202, 4, 1, len(small.getvalue()))]
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + struct.pack("<HHII", 0x0112, 3, 1, 1)
    exif += struct.pack("<IH", 26, len(entries))
    exif += b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    path = tmp_path / "a.jpg"
    Image.fromarray(pixels("RGB")).save(path, exif=exif + small.getvalue())
    assert path.read_bytes().count(b"\xff\xd8\xff") == 2
    images.write(tmp_path / "b.jpg", images.read(path))
    assert (tmp_path / "b.jpg").read_bytes().count(b"\xff\xd8\xff") == 1


def test_formats_differ_in_the_memory_that_writing_takes() -> None:
    def needed(name: str, *, alpha: bool = False, quality: int = 95) -> int:
        return images.writing_memory(name, 1 << 30, alpha=alpha, quality=quality)

    # PNG, JPEG and TIFF are written in strips: it does not depend on the size.
    assert needed("a.png") == images.writing_memory("a.jpg", 1, alpha=True, quality=100)
    assert needed("a.png") < needed("a.bmp") < needed("a.webp")
    assert needed("a.webp") < needed("a.webp", alpha=True) == needed("a.webp", quality=100)
