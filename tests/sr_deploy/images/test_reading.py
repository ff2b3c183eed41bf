"""Files of every kind that people have, and files that are damaged."""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps
from PIL.PngImagePlugin import PngInfo

from sr_deploy import images
from sr_deploy.errors import ImageError, NotFoundError, SrDeployError
from sr_deploy.images import Metadata, Picture, decoding

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_deploy.images.picture import AnyPixels

    Pixels = Callable[..., AnyPixels]


def _saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def _converted(path: Path, mode: str) -> AnyPixels:
    with Image.open(path) as image:
        return np.asarray(image.convert(mode))


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_one_bit_becomes_gray(tmp_path: Path, pixels: Pixels, suffix: str) -> None:
    path = _saved(tmp_path / f"a{suffix}", Image.fromarray(pixels("L")).convert("1"))
    found = images.read(path).pixels
    assert found.ndim == 2
    assert np.unique(found).tolist() == [0, 255]


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_a_palette_becomes_rgb(tmp_path: Path, pixels: Pixels, suffix: str) -> None:
    path = _saved(tmp_path / f"a{suffix}", Image.fromarray(pixels("RGB")).quantize(32))
    np.testing.assert_array_equal(images.read(path).pixels, _converted(path, "RGB"))


@pytest.mark.parametrize("transparency", [3, bytes(range(0, 256, 8))])
def test_a_palette_with_transparency_becomes_rgba(
    tmp_path: Path, pixels: Pixels, transparency: int | bytes
) -> None:
    palette = Image.fromarray(pixels("RGB")).quantize(32)
    path = _saved(tmp_path / "a.png", palette, transparency=transparency)
    found = images.read(path).pixels
    np.testing.assert_array_equal(found, _converted(path, "RGBA"))
    assert found[..., 3].min() == 0


@pytest.mark.parametrize("kind", ["L", "RGB"])
def test_one_transparent_colour_becomes_alpha(tmp_path: Path, pixels: Pixels, kind: str) -> None:
    original = pixels(kind)
    key = original[5, 5].tolist()
    transparency = tuple(key) if kind == "RGB" else key
    path = _saved(tmp_path / "a.png", Image.fromarray(original), transparency=transparency)
    found = images.read(path).pixels
    np.testing.assert_array_equal(found[..., :-1], original.reshape(*original.shape[:2], -1))
    same = (original.reshape(*original.shape[:2], -1) == key).all(axis=2)
    np.testing.assert_array_equal(found[..., -1] == 0, same)


def test_a_transparent_colour_in_four_bits(tmp_path: Path) -> None:
    """The key counts to 15, the pixels that come out to 255."""
    chunks = [
        b"IHDR" + struct.pack(">IIBBBBB", 2, 1, 4, 0, 0, 0, 0),
        b"tRNS" + struct.pack(">H", 9),
        b"IDAT" + zlib.compress(bytes([0, 0x39])),
        b"IEND",
    ]
    framed = (
        struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each))
        for each in chunks
    )
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))
    assert images.read(tmp_path / "a.png").pixels.tolist() == [[[51, 255], [153, 0]]]


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_without_a_profile(
    tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    path = _saved(tmp_path / f"a{suffix}", Image.fromarray(pixels("RGB")).convert("CMYK"))
    with caplog.at_level(logging.WARNING):
        found = images.read(path).pixels
    assert "CMYK" in caplog.text
    np.testing.assert_array_equal(found, _converted(path, "RGB"))


def _cmyk_profile(lab: tuple[int, int, int]) -> bytes:
    """Return a printer profile in which every ink gives one colour (Lab, in bytes)."""
    ramp = bytes(range(256))
    identity = struct.pack(">9i", *(0x10000 * (i % 4 == 0) for i in range(9)))
    table = b"mft1" + bytes(4) + bytes([4, 3, 2, 0]) + identity
    table += ramp * 4 + bytes(lab) * 16 + ramp * 3
    tags = struct.pack(">I4sII", 1, b"A2B0", 144, len(table))
    head = struct.pack(
        ">I4sI4s4s4s", 144 + len(table), b"lcms", 0x2400000, b"prtr", b"CMYK", b"Lab "
    )
    head += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3I", 0xF6D6, 0x10000, 0xD32D)
    return head.ljust(128, b"\0") + tags + table


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_goes_through_its_profile(
    tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    profile = _cmyk_profile((255 * 53 // 100, 128 + 80, 128 + 67))  # Lab of sRGB's red
    inks = Image.fromarray(pixels("RGB")).convert("CMYK")
    path = _saved(tmp_path / f"a{suffix}", inks, icc_profile=profile)
    picture = images.read(path)
    assert not caplog.records
    # Eight bits of Lab are a few levels of RGB.
    np.testing.assert_allclose(picture.pixels[0, 0], [255, 0, 0], atol=8)
    assert picture.metadata.icc_profile is None  # the pixels are sRGB now


def test_cmyk_with_a_damaged_profile(
    tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture
) -> None:
    inks = Image.fromarray(pixels("RGB")).convert("CMYK")
    path = _saved(tmp_path / "a.jpg", inks, icc_profile=b"nothing of the kind")
    assert images.read(path).pixels.shape == (100, 103, 3)
    assert "damaged CMYK profile" in caplog.text


def test_lab_is_refused(tmp_path: Path, pixels: Pixels) -> None:
    transform = ImageCms.buildTransform(
        ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB"
    )
    lab = ImageCms.applyTransform(Image.fromarray(pixels("RGB")), transform)
    assert lab is not None
    with pytest.raises(ImageError, match="Lab"):
        images.read(_saved(tmp_path / "a.tif", lab))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(
    tmp_path: Path, pixels: Pixels, orientation: int, suffix: str
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "Camera"
    options = {"lossless": True} if suffix == ".webp" else {}
    path = tmp_path / f"a{suffix}"
    _saved(path, Image.fromarray(pixels("RGB")), exif=exif, dpi=(300, 150), **options)
    picture = images.read(path)
    with Image.open(path) as image:
        np.testing.assert_array_equal(picture.pixels, np.asarray(ImageOps.exif_transpose(image)))
    images.write(tmp_path / "b.png", picture)
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[0x0112] == 1
        assert image.size == picture.pixels.shape[1::-1]
        if suffix in (".jpg", ".png"):
            expected = (150, 300) if orientation > 4 else (300, 150)
            assert image.info["dpi"] == pytest.approx(expected, abs=0.02)


def test_exif_at_the_end_of_a_png_counts(tmp_path: Path, pixels: Pixels) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = _saved(tmp_path / "a.png", Image.fromarray(pixels("RGB")), exif=exif)
    raw = path.read_bytes()
    start = raw.index(b"eXIf") - 4
    end = start + 12 + struct.unpack(">I", raw[start : start + 4])[0]
    path.write_bytes(raw[:start] + raw[end:-12] + raw[start:end] + raw[-12:])
    assert images.read(path).pixels.shape == (103, 100, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_damaged_exif_is_left_out(
    tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    exif = b"Exif\0\0" + b"nothing of the kind"
    path = _saved(tmp_path / f"a{suffix}", Image.fromarray(pixels("RGB")), exif=exif)
    picture = images.read(path)
    assert picture.pixels.shape == (100, 103, 3)
    assert picture.metadata.exif is None
    # Pillow keeps it to itself in a JPEG.
    assert ("EXIF" in caplog.text) == (suffix != ".jpg")


def test_png_color_chunks_are_kept(tmp_path: Path, pixels: Pixels) -> None:
    """A PNG in HDR says so in cICP; without it, it would look washed out."""
    chunks = ((b"cICP", bytes([9, 16, 0, 1])), (b"gAMA", struct.pack(">I", 45455)))
    images.write(tmp_path / "a.png", Picture(pixels("RGB", 16), Metadata(png_color=chunks)))
    assert images.read(tmp_path / "a.png").metadata.png_color == chunks


@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_of_several_images_the_first_is_read(
    tmp_path: Path, pixels: Pixels, caplog: pytest.LogCaptureFixture, suffix: str
) -> None:
    first = pixels("RGB")
    frames = {"save_all": True, "append_images": [Image.fromarray(first[::-1])]}
    frames |= {"lossless": True} if suffix == ".webp" else {}
    path = _saved(tmp_path / f"a{suffix}", Image.fromarray(first), **frames)
    np.testing.assert_array_equal(images.read(path).pixels[..., :3], first)
    assert "first" in caplog.text


def test_the_content_counts_not_the_name(tmp_path: Path, pixels: Pixels) -> None:
    path = _saved(tmp_path / "a.png", Image.fromarray(pixels("RGB")), format="JPEG")
    assert images.read(path).pixels.shape == (100, 103, 3)


@pytest.mark.parametrize("kind", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("bits", [8, 16])
def test_the_header_tells_the_size(tmp_path: Path, pixels: Pixels, kind: str, bits: int) -> None:
    original = pixels(kind, bits)
    for suffix in (".png", ".tif"):
        images.write(tmp_path / f"a{suffix}", Picture(original))
        header = images.inspect(tmp_path / f"a{suffix}")
        assert (header.height, header.width, header.bits) == (100, 103, bits)
        assert header.channels == (original.shape[2] if original.ndim == 3 else 1)
        assert header.bytes == original.nbytes


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize("name", ["8.png", "8.jpg", "8.webp", "8.bmp", "16.png", "16.tif"])
def test_reading_takes_no_more_than_the_header_says(tmp_path: Path, name: str) -> None:
    dtype = np.uint16 if name.startswith("16") else np.uint8
    noise = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (50, 50, 3), dtype)
    images.write(tmp_path / f"small{name}", Picture(noise))
    # Repeated noise is compressed faster than noise.
    images.write(tmp_path / name, Picture(np.tile(noise, (40, 60, 1))))
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from sr_deploy import images\n"
        "def status(name):\n"
        "    text = Path('/proc/self/status').read_text()\n"
        "    return int(re.search(name + r':\\s+(\\d+)', text)[1]) * 1024\n"
        "images.read(sys.argv[1])\n"  # so that the decoder is loaded
        "before = status('VmRSS')\n"
        "images.read(sys.argv[2])\n"
        "print(status('VmHWM') - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / f"small{name}"), str(tmp_path / name)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    header = images.inspect(tmp_path / name)
    # Beside the pixels, there are the strips in which they are copied.
    assert header.bytes < int(done.stdout) <= header.bytes + header.decoding + (8 << 20)


def _broken(kind: str, path: Path) -> Path:
    if kind == "missing":
        return path.with_name("missing.png")
    if kind == "folder":
        path.mkdir()
    elif kind == "locked":
        path.touch()
        path.chmod(0)
    else:
        content = {"empty": b"", "text": b"hello, world", "gif": b"GIF89a" + bytes(20)}
        path.write_bytes(content[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("missing", NotFoundError, "no such file"),
        ("folder", ImageError, "Is a directory"),
        ("empty", ImageError, "empty"),
        ("text", ImageError, "PNG, JPEG, WebP, TIFF or BMP"),
        ("gif", ImageError, "PNG, JPEG, WebP, TIFF or BMP"),
        ("locked", ImageError, "Permission denied"),
    ],
)
def test_what_is_no_image(
    tmp_path: Path, kind: str, error: type[SrDeployError], message: str
) -> None:
    if kind == "locked" and os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = _broken(kind, tmp_path / "a.png")
    for function in (images.read, images.inspect):
        with pytest.raises(error, match=message) as caught:
            function(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_header_that_promises_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _saved(tmp_path / "a.png", Image.new("L", (50, 40)))
    monkeypatch.setattr(decoding, "LARGEST_PIXELS", 1999)
    with pytest.raises(ImageError, match="50x40 pixels"):
        images.read(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", images.SUFFIXES)
def test_large_photographs_are_no_bombs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    """Pillow's own limit, which is for the whole process, stays out of the way."""
    images.write(tmp_path / f"a{suffix}", Picture(np.zeros((1500, 2000), np.uint8)))
    # Pillow refuses above twice its limit; only for WebP that cannot be helped.
    limit = 1_600_000 if suffix == ".webp" else 1_400_000
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert images.read(tmp_path / f"a{suffix}").pixels.shape[:2] == (1500, 2000)


@pytest.mark.parametrize(
    ("suffix", "bits"),
    [(".png", 8), (".jpg", 8), (".webp", 8), (".tif", 8), (".bmp", 8), (".png", 16), (".tif", 16)],
)
def test_truncated_files(tmp_path: Path, pixels: Pixels, suffix: str, bits: int) -> None:
    path = tmp_path / f"a{suffix}"
    images.write(path, Picture(pixels("RGB", bits)))
    whole = path.read_bytes()
    for tenths in range(10):
        path.write_bytes(whole[: len(whole) * tenths // 10])
        with pytest.raises(ImageError):
            images.read(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp", ".tif", ".bmp"])
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_files_give_our_errors(
    tmp_path: Path, pixels: Pixels, metadata: Metadata, suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    images.write(path, Picture(pixels("RGB")[:40, :40], metadata))
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(200):
        damaged = bytearray(whole)
        for at in random.integers(0, len(whole), 5):
            damaged[at] = random.integers(256)
        path.write_bytes(damaged)
        try:
            images.read(path)
        except SrDeployError:
            refused += 1
    assert refused > 0 or suffix == ".bmp"  # a BMP has little that could be wrong


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_png_keeps_a_large_profile(tmp_path: Path, dtype: type) -> None:
    pixels: AnyPixels = np.arange(48, dtype=dtype).reshape(4, 4, 3)
    profile = np.random.default_rng(0).bytes(10 << 20)
    images.write(tmp_path / "a.png", Picture(pixels, Metadata(icc_profile=profile)))
    found = images.read(tmp_path / "a.png")
    assert found.metadata.icc_profile == profile
    np.testing.assert_array_equal(found.pixels, pixels)


def test_a_png_without_a_profile_that_unpacks_to_gigabytes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    images.write(tmp_path / "a.png", Picture(pixels, Metadata(icc_profile=bytes((64 << 20) + 1))))
    found = images.read(tmp_path / "a.png")
    assert found.metadata.icc_profile is None
    assert "64 MiB" in caplog.text
    np.testing.assert_array_equal(found.pixels, pixels)


def test_a_png_with_texts_that_pillow_refuses(tmp_path: Path) -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    texts = PngInfo()
    texts.add_text("packed", "x" * (2 << 20), zip=True)
    texts.add_itxt("international", "x" * (2 << 20), zip=True)
    for number in range(66):
        texts.add_text(f"plain{number}", "x" * (1 << 20))
    Image.fromarray(pixels).save(tmp_path / "a.png", pnginfo=texts)
    np.testing.assert_array_equal(images.read(tmp_path / "a.png").pixels, pixels)
