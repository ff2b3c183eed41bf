"""The command `sr-upscale` with the engine that it is for."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest

from sr_deploy import images, upscale
from sr_deploy.images import Picture
from tests.runtime import networks

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


def test_real_images(repeating: str, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "images" / "odd"
    assert upscale.main([repeating, str(folder), str(tmp_path), "--format", "png"]) == 0
    for path in folder.iterdir():
        before = images.read(path)
        after = images.read(tmp_path / f"{path.stem}.png")
        np.testing.assert_array_equal(after.pixels, _doubled(before.pixels))
        assert after.metadata.icc_profile == before.metadata.icc_profile


@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif"])
def test_a_large_photo_stays_within_the_memory(repeating: str, tmp_path: Path, suffix: str) -> None:
    pixels = np.empty((4000, 6000, 3), np.uint8)
    pixels[...] = (np.arange(6000) // 24)[None, :, None]
    images.write(tmp_path / "photo.jpg", Picture(pixels))
    # Photo and result take 360 MB, Python with OpenVINO some 120.
    options = ["--memory", "700MB", "--threads", "2"]
    program = (
        "import re, sys\n"
        "from pathlib import Path\n"
        "from sr_deploy import upscale\n"
        "code = upscale.main(sys.argv[1:])\n"
        # Not getrusage, whose peak a process inherits from the one that started it.
        "print(re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])\n"
        "sys.exit(code)\n"
    )
    paths = [repeating, str(tmp_path / "photo.jpg"), str(tmp_path / f"big{suffix}")]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths, *options],
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout.splitlines()[-1]) * 1024 <= 700_000_000
    assert images.inspect(tmp_path / f"big{suffix}").width == 12000
