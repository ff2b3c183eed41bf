"""The programs in examples/embedding run."""

from __future__ import annotations

import asyncio
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import ROOT
from tests.sr_deploy import networks

FOLDER = ROOT / "examples" / "embedding"
FRAMES, HEIGHT, WIDTH = 12, 48, 64


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(networks.bundle(tmp_path_factory.mktemp("b") / "nearest.srd", networks.nearest))


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A lossless video that becomes brighter."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv444p"
        for number in range(FRAMES):
            pixels = np.full((HEIGHT, WIDTH, 3), 20 * number, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def example(name: str) -> Any:
    return runpy.run_path(str(FOLDER / name))


def decoded(path: Path) -> list[tuple[tuple[int, ...], float]]:
    """Return shape and mean brightness of each frame."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        arrays = [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]
    return [(each.shape, float(each.mean())) for each in arrays]


def assert_clip_upscaled(path: Path) -> None:
    found = decoded(path)
    assert [shape for shape, _ in found] == [(2 * HEIGHT, 2 * WIDTH, 3)] * FRAMES
    # A lossy codec changes flat frames of levels 0 to 220 by less than 4 levels.
    assert [value for _, value in found] == pytest.approx(
        [20 * number for number in range(FRAMES)], abs=4
    )


def test_pyav(bundle: str, clip: Path, tmp_path: Path) -> None:
    example("with_pyav.py")["main"](bundle, str(clip), str(tmp_path / "big.mkv"))
    assert_clip_upscaled(tmp_path / "big.mkv")


def test_opencv(bundle: str, clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    example("with_opencv.py")["main"](bundle, str(clip), str(tmp_path / "big.mp4"))
    assert_clip_upscaled(tmp_path / "big.mp4")


def test_ffmpeg_pipe(bundle: str, clip: Path, tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None or shutil.which("sr-upscale") is None:
        pytest.skip("needs ffmpeg and sr-upscale on the path")
    command = ["sh", str(FOLDER / "ffmpeg_pipe.sh"), bundle, str(clip), str(tmp_path / "big.mkv")]
    subprocess.run(command, check=True)
    assert_clip_upscaled(tmp_path / "big.mkv")


def test_asyncio(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(example("in_asyncio.py")["main"](bundle))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"frame {number}: 320x240" for number in range(10)]


def test_live_source_is_reopened_when_it_ends(
    bundle: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the last frame of the clip, its first one is shown again."""
    cv2 = pytest.importorskip("cv2")
    shown: list[tuple[int, ...]] = []
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) > FRAMES else -1)
    monkeypatch.setattr("time.sleep", lambda _: None)
    example("live.py")["main"](bundle, str(clip))
    assert shown == [(2 * HEIGHT, 2 * WIDTH, 3)] * (FRAMES + 1)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.*")), ids=lambda path: path.name)
def test_usage_without_arguments(path: Path, tmp_path: Path) -> None:
    (tmp_path / "cv2.py").touch()
    (tmp_path / "pycuda").mkdir()
    for name in ("__init__", "autoprimaryctx", "driver", "gpuarray"):
        (tmp_path / "pycuda" / f"{name}.py").touch()
    search = os.pathsep.join([*sys.path, str(tmp_path)])
    done = subprocess.run(
        ["sh" if path.suffix == ".sh" else sys.executable, path],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": search},
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert f"{path.name} BUNDLE" in done.stderr
    assert "Traceback" not in done.stderr
