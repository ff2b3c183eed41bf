"""The command `sr-upscale` with the engine that it is for."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from sr_deploy import images, machine
from sr_deploy.cli import upscale
from sr_deploy.images import Picture
from tests.sr_deploy import networks

if TYPE_CHECKING:
    from pathlib import Path

    from sr_deploy.images.picture import AnyPixels


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle that doubles every pixel, so that every result is known."""
    folder = tmp_path_factory.mktemp("bundles") / "nearest.srd"
    return str(networks.bundle(folder, networks.nearest))


def _doubled(pixels: AnyPixels) -> AnyPixels:
    return pixels.repeat(2, axis=0).repeat(2, axis=1)


def test_every_kind_and_depth(repeating: str, tmp_path: Path) -> None:
    source, target = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    noise = np.random.default_rng(0)
    originals: dict[str, AnyPixels] = {}
    for dtype in (np.uint8, np.uint16):
        for shape in ((1, 1), (9, 7), (9, 7, 2), (9, 7, 3), (9, 7, 4)):
            name = f"{np.dtype(dtype).name}-{len(originals)}.png"
            originals[name] = noise.integers(0, np.iinfo(dtype).max + 1, shape, dtype)
            images.write(source / name, Picture(originals[name]))
    assert upscale.main([repeating, str(source), str(target)]) == 0
    for name, original in originals.items():
        found = images.read(target / name).pixels
        assert found.dtype == original.dtype
        np.testing.assert_array_equal(found, _doubled(original))


def test_files_of_other_programs(repeating: str, tmp_path: Path) -> None:
    """A folder of a gray JPEG and a PNG with alpha by Pillow, and 16 bits by tifffile."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    noise = np.random.default_rng(0)
    folder, target = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    gray = Image.fromarray(noise.integers(0, 256, (61, 47), np.uint8))
    gray.save(folder / "gray.jpg", icc_profile=profile, dpi=(72, 72))
    alpha = Image.fromarray(noise.integers(0, 256, (35, 56, 4), np.uint8))
    alpha.save(folder / "alpha.png", icc_profile=profile)
    deep = noise.integers(0, 65536, (25, 34, 4), np.uint16)
    tifffile.imwrite(folder / "deep.tif", deep, photometric="rgb", extrasamples=["unassalpha"])
    assert upscale.main([repeating, str(folder), str(target), "--format", "png"]) == 0
    for path in folder.iterdir():
        before = images.read(path)
        after = images.read(target / f"{path.stem}.png")
        np.testing.assert_array_equal(after.pixels, _doubled(before.pixels))
        assert after.metadata.icc_profile == before.metadata.icc_profile
        assert (after.metadata.icc_profile == profile) is (path.stem != "deep")
    np.testing.assert_array_equal(images.read(target / "deep.png").pixels, _doubled(deep))


@pytest.fixture(scope="module")
def skipping(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A bundle of a network with true convolutions, whose memory the exporter's figure fits."""
    folder = tmp_path_factory.mktemp("bundles") / "skipping.srd"
    bytes_per_pixel = networks.COMPACT_BYTES
    return str(networks.bundle(folder, networks.skipping, bytes_per_pixel=bytes_per_pixel))


LARGE, SMALLER = (4000, 6000), (2000, 3000)
PHOTOS: dict[str, tuple[Any, ...]] = {
    # The pictures alone take 360 and 720 MB when large; Python with OpenVINO some 120.
    "8 bits": (LARGE, np.uint8, "a.jpg", "b.jpg", "700MB"),
    "16 bits": (LARGE, np.uint16, "a.png", "b.png", "1000MB"),
    "16 bits in large tiles": (SMALLER, np.uint16, "a.png", "b.png", "700MB"),
    "16 bits from TIFF": (SMALLER, np.uint16, "a.tif", "b.tif", "500MB"),
    "8 bits from PNG": (SMALLER, np.uint8, "a.png", "b.png", "400MB"),
    "8 bits to BMP": (SMALLER, np.uint8, "a.bmp", "b.bmp", "450MB"),
    # Its encoder takes five times what the result does, its decoder four times the photo.
    "WebP": (SMALLER, np.uint8, "a.webp", "b.webp", "900MB"),
    "16 bits to WebP": (SMALLER, np.uint16, "a.png", "b.webp", "950MB"),
    "lossless WebP": (SMALLER, np.uint8, "a.jpg", "b.webp", "1700MB", "--quality", "100"),
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize("name", PHOTOS)
def test_a_large_photo_stays_within_the_memory(skipping: str, tmp_path: Path, name: str) -> None:
    (height, width), dtype, source, target, most, *options = PHOTOS[name]
    images.write(tmp_path / source, Picture(_photo(height, width, dtype, noisy="WebP" in name)))
    paths = [skipping, str(tmp_path / source), str(tmp_path / target)]
    peak = _peak([*paths, "--memory", most, "--threads", "2", *options])
    assert peak <= machine.parse_bytes(most)
    assert images.inspect(tmp_path / target).width == 2 * width


def _photo(height: int, width: int, dtype: type, *, noisy: bool) -> AnyPixels:
    """Return a gradient or, which takes WebP most, noise."""
    if noisy:
        values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    else:
        values = np.empty((height, width, 3), np.uint8)
        values[...] = (np.arange(width) * 255 // width)[:, None]
    white = np.iinfo(dtype).max
    return (values if dtype is np.uint8 else values.astype(dtype) * (white // 255)).astype(dtype)


def _peak(arguments: list[str]) -> int:
    """Run `sr-upscale` in a process of its own; return the most that it held."""
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from sr_deploy.cli import upscale\n"
        "code = upscale.main(sys.argv[1:])\n"
        # Not getrusage, whose peak a process inherits from the one that started it.
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "sys.exit(code)\n"
    )
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.splitlines()[-1]) * 1024


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_a_folder_of_both_depths_stays_within_the_memory(skipping: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, dtype in enumerate((np.uint16, np.uint8, np.uint16, np.uint8)):
        photo = Picture(_photo(1000, 1500, dtype, noisy=True))
        images.write(tmp_path / "in" / f"{number}.png", photo)
    paths = [skipping, str(tmp_path / "in"), str(tmp_path / "out")]
    most = "500MB"
    for suffix in ("png", "webp"):
        options = ["--memory", most, "--threads", "2", "--format", suffix, "--overwrite"]
        assert _peak([*paths, *options]) <= machine.parse_bytes(most)


def test_webp_that_cannot_fit_is_refused_with_the_reason(
    repeating: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images.write(tmp_path / "a.png", Picture(_photo(2000, 3000, np.uint8, noisy=False)))
    paths = [repeating, str(tmp_path / "a.png"), str(tmp_path / "b.webp")]
    assert upscale.main([*paths, "--memory", str(machine.resident_memory() + (300 << 20))]) == 1
    said = capsys.readouterr().err
    assert re.search(r"\d+ MiB to encode it; PNG", said)
    assert not (tmp_path / "b.webp").exists()
