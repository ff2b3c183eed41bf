"""Sixteen bits: files of other programs, in every filter, order and layout."""

from __future__ import annotations

import logging
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from sr_deploy import images
from sr_deploy.errors import ImageError
from sr_deploy.images import Picture

tifffile = pytest.importorskip("tifffile")

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_deploy.images.picture import AnyPixels

    Pixels = Callable[..., AnyPixels]

COLOUR_TYPES = {"L": 0, "LA": 4, "RGB": 2, "RGBA": 6}
# Adam7: first row, first column, step of rows, step of columns.
PASSES = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2)]
PASSES += [(1, 0, 2, 1)]


def _filtered(rows: AnyPixels, kind: int) -> bytes:
    """Filter rows as the PNG specification says, byte by byte, to check the reader against."""
    size = rows[:1, :1].nbytes
    lines = [line.tobytes() for line in rows.astype(">u2")]
    above = bytes(len(lines[0]))
    out = bytearray()
    for line in lines:
        out.append(kind)
        for i, value in enumerate(line):
            left, corner = (line[i - size], above[i - size]) if i >= size else (0, 0)
            upper = above[i]
            estimate = left + upper - corner
            by_distance = sorted((left, upper, corner), key=lambda each: abs(estimate - each))
            predictions = (0, left, upper, (left + upper) // 2, by_distance[0])
            out.append((value - predictions[kind]) % 256)
        above = line
    return bytes(out)


def _png(pixels: AnyPixels, kind: str, filters: int, interlaced: bool, *extra: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(name + content)
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", checksum)

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, COLOUR_TYPES[kind], 0, 0, interlaced)
    parts = [pixels[y::dy, x::dx] for y, x, dy, dx in PASSES] if interlaced else [pixels]
    data = b"".join(_filtered(part, filters) for part in parts if part.size)
    return b"".join(
        [
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", header),
            *(chunk(each[:4], each[4:]) for each in extra),
            chunk(b"IDAT", zlib.compress(data)),
            chunk(b"IEND", b""),
        ]
    )


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("filters", range(5))
@pytest.mark.parametrize("kind", COLOUR_TYPES)
def test_png(tmp_path: Path, pixels: Pixels, kind: str, filters: int, interlaced: bool) -> None:
    original = pixels(kind, 16)[:21, :19]
    (tmp_path / "a.png").write_bytes(_png(original, kind, filters, interlaced))
    found = images.read(tmp_path / "a.png").pixels
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, original)


@pytest.mark.parametrize("kind", ["L", "RGB"])
def test_png_with_one_transparent_colour(tmp_path: Path, pixels: Pixels, kind: str) -> None:
    original = pixels(kind, 16)[:9, :9]
    original[2, 3] = original[5, 5]
    key = original[5:6, 5].astype(">u2").tobytes()
    (tmp_path / "a.png").write_bytes(_png(original, kind, 1, False, b"tRNS" + key))
    found = images.read(tmp_path / "a.png").pixels
    np.testing.assert_array_equal(found[..., :-1], original.reshape(9, 9, -1))
    transparent = np.argwhere(found[..., -1] == 0).tolist()
    assert transparent == [[2, 3], [5, 5]]
    assert np.unique(found[..., -1]).tolist() == [0, 65535]


LAYOUTS = [
    {"byteorder": order, **layout}
    for order in "<>"
    for layout in (
        {},
        {"rowsperstrip": 16},
        {"tile": (32, 16)},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True, "rowsperstrip": 7},
        {"compression": "zlib", "tile": (32, 16)},
    )
]
LAYOUTS.append({"byteorder": "<", "bigtiff": True})  # Pillow does not read them big-endian


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", COLOUR_TYPES)
def test_tiff(tmp_path: Path, pixels: Pixels, kind: str, layout: dict[str, Any]) -> None:
    original = pixels(kind, 16)
    tifffile.imwrite(
        tmp_path / "a.tif",
        original,
        photometric="rgb" if "RGB" in kind else "minisblack",
        planarconfig="contig" if kind != "L" else None,
        extrasamples=["unassalpha"] if kind.endswith("A") else None,
        **layout,
    )
    found = images.read(tmp_path / "a.tif").pixels
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, original)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", COLOUR_TYPES)
def test_others_read_our_tiff(tmp_path: Path, pixels: Pixels, kind: str, bits: int) -> None:
    original = pixels(kind, bits)
    images.write(tmp_path / "a.tif", Picture(original))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), original)


def test_tiff_with_multiplied_alpha(tmp_path: Path, pixels: Pixels) -> None:
    original = pixels("RGBA", 16)
    alpha = original[..., 3:].astype(np.float64) / 65535
    multiplied = original.copy()
    multiplied[..., :3] = np.rint(original[..., :3] * alpha)
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, multiplied, photometric="rgb", extrasamples=["assocalpha"])
    found = images.read(path).pixels.astype(np.float64)
    np.testing.assert_array_equal(found[..., 3], original[..., 3])
    # Half a level was lost by rounding what had been multiplied, and half by rounding now.
    error = np.abs(found[..., :3] - original[..., :3])
    assert (error <= 0.5 / np.maximum(alpha, 1 / 65535) + 0.5)[alpha[..., 0] > 0].all()


def test_tiff_where_white_is_zero(tmp_path: Path, pixels: Pixels) -> None:
    original = pixels("L", 16)
    tifffile.imwrite(tmp_path / "a.tif", 65535 - original, photometric="miniswhite")
    np.testing.assert_array_equal(images.read(tmp_path / "a.tif").pixels, original)


def test_separate_planes_are_refused(tmp_path: Path, pixels: Pixels) -> None:
    planes = np.ascontiguousarray(np.moveaxis(pixels("RGB", 16), 2, 0))
    tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate")
    with pytest.raises(ImageError, match=r"a\.tif.*planes"):
        images.read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("dtype", "message"),
    [(np.float32, "floating-point"), (np.int32, "32-bit"), (np.int16, "signed")],
)
def test_other_numbers_are_refused(tmp_path: Path, dtype: type, message: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.ones((4, 4), dtype))
    with pytest.raises(ImageError, match=message):
        images.read(tmp_path / "a.tif")


@pytest.mark.parametrize(("suffix", "mode"), [(".jpg", "RGB"), (".webp", "RGB"), (".bmp", "RGB")])
def test_into_8_bit_formats_it_is_rounded_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str, mode: str
) -> None:
    levels = np.array([0, 128, 129, 257 * 100 + 128, 257 * 100 + 129, 65535], np.uint16)
    flat = np.broadcast_to(levels[:, None, None, None], (6, 16, 16, 3)).reshape(96, 16, 3)
    with caplog.at_level(logging.WARNING):
        images.write(tmp_path / f"a{suffix}", Picture(flat), quality=100)
    assert len(caplog.records) == 1
    assert "16 bits" in caplog.text
    found = images.read(tmp_path / f"a{suffix}").pixels
    assert found.dtype == np.uint8
    # Blocks of one colour: their centres are exact in every format.
    assert found[8::16, 8, 0].tolist() == [0, 0, 1, 100, 101, 255]
