"""Kills, full disks, neighbors, slow pipes and clock jumps: nothing is lost, a re-run is equal."""

from __future__ import annotations

import errno
import io
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import Engine, images, machine
from sr_deploy.cli import upscale
from sr_deploy.images import Picture
from tests.commands import command, contents, ended, fails_with_one_line, kill_at_random
from tests.sr_deploy import networks

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has all of these faults")

SHORT_SEGMENTS = (
    "import time\n"
    "from sr_deploy import Engine\n"
    "from sr_deploy.video import transcode\n"
    "transcode.SEGMENT = 5\n"
    "plain = Engine.upscale\n"
    "def slower(*a, **k):\n"
    "    time.sleep(0.01)\n"
    "    return plain(*a, **k)\n"
    "Engine.upscale = slower"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.bundle(tmp_path_factory.mktemp("bundles") / "nearest.srd", networks.nearest)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(12):
        pixels = noise.integers(0, 256, (40, 30, 3), np.uint8)
        images.write(folder / f"{number}.png", Picture(pixels))
    return folder


def _started(*arguments: object, before: str = "") -> subprocess.Popen[bytes]:
    line = command("sr-upscale", *arguments, before=before)
    return subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_images_are_whole_after_kills(bundle: Path, photos: Path, tmp_path: Path) -> None:
    whole, target = tmp_path / "whole", tmp_path / "out"
    begun = time.monotonic()
    assert ended("sr-upscale", bundle, photos, whole).returncode == 0
    seconds = time.monotonic() - begun
    expected = contents(whole)
    noise = random.Random(17)
    target.mkdir()
    for _ in range(3):
        kill_at_random(lambda: _started(bundle, photos, target, "--resume"), seconds, noise)
        assert contents(target).items() <= expected.items()
    assert ended("sr-upscale", bundle, photos, target, "--resume").returncode == 0
    assert contents(target) == expected
    assert len(list(target.iterdir())) == len(expected)  # the last run collected all leftovers


@pytest.mark.slow
def test_a_video_is_equal_after_kills(bundle: Path, tmp_path: Path) -> None:
    clips = pytest.importorskip("tests.sr_deploy.video.clips")
    source = clips.Clip(40, size=(32, 16), options=clips.LOSSLESS).write(tmp_path / "a.mp4")
    whole, target = tmp_path / "whole.mkv", tmp_path / "b.mkv"
    begun = time.monotonic()
    done = ended("sr-upscale", bundle, source, whole, before=SHORT_SEGMENTS)
    assert done.returncode == 0, done.stderr
    seconds = time.monotonic() - begun
    noise = random.Random(17)
    arguments = (bundle, source, target, "--resume")
    for _ in range(3):
        kill_at_random(lambda: _started(*arguments, before=SHORT_SEGMENTS), seconds, noise)
        assert not target.exists() or target.read_bytes() == whole.read_bytes()
    done = ended("sr-upscale", *arguments, before=SHORT_SEGMENTS)
    assert done.returncode == 0, done.stderr
    assert target.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "whole.mkv", "b.mkv"}


def _small_files() -> None:
    """Let no file grow beyond 8 KiB: to a program this is a full disk."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (8 << 10, 8 << 10))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "tif", "mkv"])
def test_a_full_disk_is_one_line_and_leaves_nothing(
    bundle: Path, tmp_path: Path, suffix: str
) -> None:
    if suffix == "mkv":
        clips = pytest.importorskip("tests.sr_deploy.video.clips")
        source = clips.Clip(10, size=(64, 64), options=clips.LOSSLESS).write(tmp_path / "a.mkv")
    else:
        source = tmp_path / f"a.{suffix}"
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
        images.write(source, Picture(pixels))
    target = tmp_path / f"b.{suffix}"
    done = ended("sr-upscale", bundle, source, target, preexec_fn=_small_files)
    assert os.strerror(errno.EFBIG) in fails_with_one_line(done, "sr-upscale")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]
    assert ended("sr-upscale", bundle, source, target).returncode == 0


@pytest.mark.slow
def test_two_processes_on_one_image(bundle: Path, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    runs = [_started(bundle, photos, target, "--overwrite") for _ in range(2)]
    for each in runs:
        said = each.communicate()[1]
        assert each.returncode == 0, said
    assert len(list(target.iterdir())) == 12
    for name in contents(photos):
        before, after = images.read(photos / name).pixels, images.read(target / name).pixels
        np.testing.assert_array_equal(after, before.repeat(2, 0).repeat(2, 1))


@pytest.mark.slow
def test_two_processes_on_one_video(bundle: Path, tmp_path: Path) -> None:
    clips = pytest.importorskip("tests.sr_deploy.video.clips")
    source = clips.Clip(20, size=(32, 16), options=clips.LOSSLESS).write(tmp_path / "a.mp4")
    target = tmp_path / "b.mkv"
    first = _started(bundle, source, target, before=SHORT_SEGMENTS)
    end = time.monotonic() + 60
    while not list(tmp_path.glob(".b.mkv.sr-job/*.packets")) and time.monotonic() < end:
        time.sleep(0.01)
    first.send_signal(signal.SIGSTOP)  # it cannot end before the second has looked
    try:
        second = ended("sr-upscale", bundle, source, target, "--overwrite")
    finally:
        first.send_signal(signal.SIGCONT)
    assert "another process" in fails_with_one_line(second, "sr-upscale")
    said = first.communicate()[1]
    assert first.returncode == 0, said
    assert len(clips.decoded(target)) == 20


def _y4m(frames: int) -> bytes:
    header = b"YUV4MPEG2 W16 H16 F25:1 Cmono\n"
    return header + b"".join(b"FRAME\n" + bytes([n % 256]) * 256 for n in range(frames))


class _Sink(io.BytesIO):
    """What stands behind stdout: it counts frames and records the memory of the process."""

    def __init__(self) -> None:
        super().__init__()
        self.frames = 0
        self.memory: dict[int, int] = {}

    def write(self, content: Any) -> int:
        self.frames += bytes(content[:6]) == b"FRAME\n"
        self.memory[self.frames] = machine.resident_memory()
        return len(content)


def test_a_slow_pipe_changes_nothing(bundle: Path) -> None:
    pytest.importorskip("av")
    stream = _y4m(12)
    fast = ended("sr-upscale", bundle, "-", "-", input=stream, stdin=None)
    slow = subprocess.Popen(
        command("sr-upscale", bundle, "-", "-"), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert slow.stdin is not None
    for start in range(0, len(stream), 701):  # in the middle of frames and of headers
        slow.stdin.write(stream[start : start + 701])
        slow.stdin.flush()
        time.sleep(0.02)
    out = slow.communicate()[0]
    assert slow.returncode == fast.returncode == 0
    assert out == fast.stdout
    assert out.count(b"FRAME\n") == 12


def test_a_reader_that_leaves_ends_the_command(bundle: Path) -> None:
    pytest.importorskip("av")
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    line = command("sr-upscale", bundle, "-", "-")
    with subprocess.Popen(line, bufsize=0, **pipes) as process:  # type: ignore[call-overload]
        process.stdin.write(_y4m(1))
        process.stdout.read(50)
        process.stdout.close()
        with pytest.raises(BrokenPipeError):  # it does not wait for the rest of the input
            for _ in range(100_000):
                process.stdin.write(_y4m(100)[30:])
        said = process.stderr.read().decode()
        assert process.wait(20) == 1
    assert len(said.splitlines()) == 1
    assert said.startswith("sr-upscale: ")


@pytest.mark.slow
def test_a_soak_of_frames_does_not_grow(bundle: Path) -> None:
    pipes = pytest.importorskip("sr_deploy.video.pipes")
    sink = _Sink()
    with Engine(bundle, threads=1) as engine:
        assert pipes.upscale_pipe(engine, io.BytesIO(_y4m(3000)), sink, None) == ()
    assert sink.frames == 3000
    assert sink.memory[3000] - sink.memory[500] < 16 << 20


def test_clock_jumps(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = pytest.importorskip("tests.sr_deploy.video.clips")
    jumps = itertools.cycle([0.0, 4e9, -1e9, 1e-9])
    monkeypatch.setattr(time, "time", lambda: next(jumps))
    source = clips.Clip(4, size=(32, 16), options=clips.LOSSLESS).write(tmp_path / "a.mp4")
    photo = tmp_path / "a.png"
    images.write(photo, Picture(np.zeros((8, 8, 3), np.uint8)))
    for year in (0, 1 << 33):  # files of 1970 and of 2242
        os.utime(source, (year, year))
        os.utime(photo, (year, year))
        video, picture = tmp_path / f"{year}.mkv", tmp_path / f"{year}.png"
        assert upscale.main([str(bundle), str(source), str(video)]) == 0
        assert upscale.main([str(bundle), str(photo), str(picture), "--json"]) == 0
    assert (tmp_path / "0.mkv").read_bytes() == (tmp_path / f"{1 << 33}.mkv").read_bytes()
    assert (tmp_path / "0.png").read_bytes() == (tmp_path / f"{1 << 33}.png").read_bytes()
