"""The examples that embed the engine do what they say."""

from __future__ import annotations

import asyncio
import runpy
import shutil
import subprocess
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
    """A video that gets brighter, lossless."""
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
    """Return size and brightness of each frame."""
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        arrays = [each.to_ndarray(format="rgb24") for each in container.decode(video=0)]
    return [(each.shape, float(each.mean())) for each in arrays]


def is_the_clip_enlarged(path: Path) -> None:
    found = decoded(path)
    assert [shape for shape, _ in found] == [(2 * HEIGHT, 2 * WIDTH, 3)] * FRAMES
    # What a lossy codec does to flat frames, in the range of 0 to 220 that they span.
    assert [value for _, value in found] == pytest.approx(
        [20 * number for number in range(FRAMES)], abs=4
    )


def test_pyav_by_hand(bundle: str, clip: Path, tmp_path: Path) -> None:
    example("with_pyav.py")["main"](bundle, str(clip), str(tmp_path / "big.mkv"))
    is_the_clip_enlarged(tmp_path / "big.mkv")


def test_opencv_on_both_sides(bundle: str, clip: Path, tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    example("with_opencv.py")["main"](bundle, str(clip), str(tmp_path / "big.mp4"))
    is_the_clip_enlarged(tmp_path / "big.mp4")


def test_ffmpeg_around_it(bundle: str, clip: Path, tmp_path: Path) -> None:
    if shutil.which("ffmpeg") is None or shutil.which("sr-upscale") is None:
        pytest.skip("needs ffmpeg and sr-upscale on the path")
    command = ["sh", str(FOLDER / "ffmpeg_pipe.sh"), bundle, str(clip), str(tmp_path / "big.mkv")]
    subprocess.run(command, check=True)
    is_the_clip_enlarged(tmp_path / "big.mkv")


def test_an_event_loop(bundle: str, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(example("in_asyncio.py")["main"](bundle))
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"frame {number}: 320x240" for number in range(10)]


def test_a_live_source_that_ends_is_opened_again(
    bundle: str, clip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shows frames until someone presses Q, and goes on when the camera comes back."""
    cv2 = pytest.importorskip("cv2")
    shown: list[tuple[int, ...]] = []
    monkeypatch.setattr(cv2, "imshow", lambda _, picture: shown.append(picture.shape))
    monkeypatch.setattr(cv2, "waitKey", lambda _: ord("q") if len(shown) > FRAMES else -1)
    monkeypatch.setattr("time.sleep", lambda _: None)
    example("live.py")["main"](bundle, str(clip))
    assert shown == [(2 * HEIGHT, 2 * WIDTH, 3)] * (FRAMES + 1)
