"""A whole video through `sr-upscale`: every frame, in order, on time, in its own colors."""

from __future__ import annotations

import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")
from sr_deploy import Engine  # noqa: E402
from sr_deploy.cli import upscale  # noqa: E402
from sr_deploy.video import decode, segments, transcode  # noqa: E402
from sr_deploy.video.transcode import ColorSpec, StageMeter, upscaled  # noqa: E402
from tests.sr_deploy import networks  # noqa: E402
from tests.sr_deploy.video import clips  # noqa: E402
from tests.sr_deploy.video.clips import LOSSLESS, Clip  # noqa: E402
from tests.sr_deploy.video.films import Film, Sound  # noqa: E402

FFV1 = ["--encoder", "ffv1"]


@pytest.fixture(scope="module")
def identity(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with an identity."""
    folder = tmp_path_factory.mktemp("bundles") / "identity.srd"
    return networks.bundle(folder, networks.nearest, scale=1)


@pytest.fixture(scope="module")
def repeating(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.bundle(tmp_path_factory.mktemp("bundles") / "nearest.srd", networks.nearest)


@pytest.fixture
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transcode, "SEGMENT", 4)


def times(path: Path) -> list[Fraction]:
    """Return when each frame is shown, in seconds."""
    return [Fraction(each.pts) * each.time_base for each in clips.decoded(path)]


def largest_difference(before: Path, after: Path) -> int:
    """Return the largest difference of any sample of any frame, in levels of its depth."""
    first, second = clips.decoded(before), clips.decoded(after)
    assert [each.format.name for each in first] == [each.format.name for each in second]
    return max(
        int(np.abs(a.astype(int) - b.astype(int)).max())
        for one, other in zip(first, second, strict=True)
        for a, b in zip(clips.planes(one), clips.planes(other), strict=True)
    )


def command(bundle: Path, *arguments: object) -> list[str]:
    return [str(each) for each in (bundle, *arguments)]


@pytest.mark.usefixtures("short_segments")
@pytest.mark.parametrize(
    "pixel_format",
    ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "gray"],
)
def test_an_identity_gives_back_what_came_in(
    identity: Path, tmp_path: Path, pixel_format: str
) -> None:
    """Conversions cost no quality and shift no color: 1 level, in 8 and in 10 bits."""
    source = Clip(10, "ffv1", pixel_format).write(tmp_path / "a.mkv")
    assert upscale.main(command(identity, source, tmp_path / "b.mkv", *FFV1)) == 0
    assert largest_difference(source, tmp_path / "b.mkv") <= 1
    assert times(source) == times(tmp_path / "b.mkv")


@pytest.mark.usefixtures("short_segments")
def test_frames_come_upscaled_in_order_with_their_times(repeating: Path, tmp_path: Path) -> None:
    pts = (0, 40, 80, 81, 200, 240, 241, 300, 1000, 1040, 1041, 1080)
    clip = Clip(12, pts=pts, time_base=Fraction(1, 1000), options=LOSSLESS)
    source = clip.write(tmp_path / "a.mp4")
    assert upscale.main(command(repeating, source, tmp_path / "b.mp4")) == 0
    assert times(tmp_path / "b.mp4") == times(source)
    for before, after in zip(clips.decoded(source), clips.decoded(tmp_path / "b.mp4"), strict=True):
        assert (after.width, after.height) == (2 * before.width, 2 * before.height)
        small = after.reformat(before.width, before.height, interpolation="AREA").to_ndarray()
        # H.264 at its default quality here; frames differ from their neighbors by far more.
        assert np.abs(small.astype(int) - before.to_ndarray()).mean() < 2


@pytest.mark.parametrize("name", clips.DELIVERED)
def test_delivered_videos_keep_every_frame(identity: Path, tmp_path: Path, name: str) -> None:
    source, target = clips.DELIVERED[name].write(tmp_path / "a.mp4"), tmp_path / "b.mkv"
    code = upscale.main(command(identity, source, target, *FFV1, "--end", "1.5", "--drop", "all"))
    assert code == 0
    wanted = [each for each in times(source) if each - times(source)[0] < Fraction(3, 2)]
    found = times(target)
    assert len(found) == len(wanted)
    # Matroska counts milliseconds.
    assert all(
        abs((a - found[0]) - (b - wanted[0])) <= Fraction(1, 1000)
        for a, b in zip(found, wanted, strict=True)
    )


def test_of_a_damaged_video_everything_readable_is_written(
    repeating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Clip(40, "ffv1").write(tmp_path / "a.mkv")
    clips.truncated(source, 0.6)
    assert upscale.main(command(repeating, source, tmp_path / "b.mkv")) == 1
    assert 10 < len(clips.decoded(tmp_path / "b.mkv")) < 40
    assert "a.mkv" in capsys.readouterr().err


def test_a_source_that_is_no_video_leaves_nothing(
    repeating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video" * 100)
    assert upscale.main(command(repeating, tmp_path / "a.mp4", tmp_path / "b.mp4")) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert [each.name for each in tmp_path.iterdir()] == ["a.mp4"]


def test_one_frame(repeating: Path, tmp_path: Path) -> None:
    source = Clip(1).write(tmp_path / "a.mp4")
    assert upscale.main(command(repeating, source, tmp_path / "b.mp4")) == 0
    assert len(clips.decoded(tmp_path / "b.mp4")) == 1


def test_start_end_every_and_crop(repeating: Path, tmp_path: Path) -> None:
    source = Clip(50, "ffv1").write(tmp_path / "a.mkv")
    part = ["--start", "0.4", "--end", "1.2", "--every", "2", "--crop", "32x16+8+4"]
    assert upscale.main(command(repeating, source, tmp_path / "b.mkv", *FFV1, *part)) == 0
    found = clips.decoded(tmp_path / "b.mkv")
    assert [(each.width, each.height) for each in found] == [(64, 32)] * 10
    wanted = clips.decoded(source)[10].to_ndarray(format="rgb24")[4:20, 8:40]
    first = found[0].to_ndarray(format="rgb24")[::2, ::2]
    # FFmpeg's own conversion to RGB differs a little with what is around a pixel.
    assert np.abs(first.astype(int) - wanted.astype(int)).mean() < 2


def test_an_existing_output_is_kept(
    repeating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = Clip(3).write(tmp_path / "a.mp4")
    target = tmp_path / "b.mp4"
    target.write_bytes(b"mine")
    assert upscale.main(command(repeating, source, target)) == 1
    assert "--overwrite" in capsys.readouterr().err
    assert target.read_bytes() == b"mine"
    assert upscale.main(command(repeating, source, target, "--overwrite")) == 0
    assert len(clips.decoded(target)) == 3


def test_json_output(repeating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = Clip(5).write(tmp_path / "a.mp4")
    assert upscale.main(command(repeating, source, tmp_path / "b.mp4", "--json")) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[0].keys() == {"frames", "total", "rate", "seconds_left", "slowest"}
    last = lines[-1]
    assert (last["frames"], last["width"], last["height"], last["damage"]) == (5, 128, 96, [])


@pytest.mark.parametrize(
    ("options", "lanes"),
    [(["--threads", "2"], 2), (["--threads", "1"], 1), (["--threads", "2", "--lanes", "1"], 1)],
)
def test_two_frames_are_computed_at_once_where_there_are_processors(
    repeating: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    lanes: int,
) -> None:
    opened: list[int] = []

    class Noted(Engine):
        def __init__(self, path: Any, **how: Any) -> None:
            super().__init__(path, **how)
            opened.append(self.spec.lanes)

    monkeypatch.setattr(upscale, "Engine", Noted)
    source = Clip(3).write(tmp_path / "a.mp4")
    assert upscale.main(command(repeating, source, tmp_path / "b.mp4", *options)) == 0
    assert opened == [lanes]
    assert len(clips.decoded(tmp_path / "b.mp4")) == 3


@pytest.mark.parametrize(("film", "opens"), [(Film(), 1), (Film(sounds=[Sound("eng")]), 2)])
def test_a_source_is_opened_once_and_its_other_streams_once(
    repeating: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, film: Film, opens: int
) -> None:
    source = film.write(tmp_path / "a.mp4")
    opened: list[object] = []
    plain = av.open

    def counting(file: object, *arguments: Any, **options: Any) -> Any:
        opened.append(file)
        return plain(file, *arguments, **options)

    monkeypatch.setattr(av, "open", counting)
    part = ["--start", "1"]  # decoding begins at a later keyframe of the same open file
    assert upscale.main(command(repeating, source, tmp_path / "b.mkv", *part)) == 0
    assert opened.count(str(source)) == opens


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "a.mp4", "a.avi"])
def test_a_source_that_lacks_its_last_bytes_exits_with_1(
    repeating: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    source = Clip(50).write(tmp_path / name)
    if name == "a.mp4":  # its index must come first
        with (
            av.open(str(source)) as old,
            av.open(
                str(tmp_path / "c.mp4"), "w", container_options={"movflags": "+faststart"}
            ) as new,
        ):
            stream = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    new.mux(packet)
        source = tmp_path / "c.mp4"
    arguments = command(repeating, source, tmp_path / "b.mkv")
    assert upscale.main(arguments) == 0
    whole = source.read_bytes()
    for lost in (2, len(whole) // 10):
        source.write_bytes(whole[:-lost])
        assert upscale.main([*arguments, "--overwrite"]) == 1
        assert "truncated" in capsys.readouterr().err
        assert len(clips.decoded(tmp_path / "b.mkv")) > 30
    part = ["--end", "1", "--overwrite"]  # which is there completely
    assert upscale.main([*arguments, *part]) == 0


def test_json_and_the_progress_line_do_not_mix(
    repeating: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    source = Clip(5).write(tmp_path / "a.mp4")
    assert upscale.main(command(repeating, source, tmp_path / "b.mp4", "--json")) == 0
    assert capsys.readouterr().err == ""
    assert upscale.main(command(repeating, source, tmp_path / "c.mp4")) == 0
    assert "frames" in capsys.readouterr().err


class TestFullDisk:
    """A full disk ends the job with one line; finished segments are kept for --resume."""

    @pytest.mark.usefixtures("short_segments")
    @pytest.mark.parametrize(("call", "after"), [("fsync", 8), ("replace", 3), ("write", 5)])
    def test_the_job_continues_once_there_is_room(
        self,
        repeating: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        call: str,
        after: int,
    ) -> None:
        source = Film(clip=Clip(30), sounds=[Sound("eng")]).write(tmp_path / "a.mp4")
        whole, target = tmp_path / "whole.mkv", tmp_path / "b.mkv"
        assert upscale.main(command(repeating, source, whole)) == 0
        with monkeypatch.context() as patch:
            _fill_disk(patch, call, after)
            assert upscale.main(command(repeating, source, target)) == 1
        said = capsys.readouterr().err
        assert said.count("\n") == 1
        assert os.strerror(errno.ENOSPC) in said
        assert not target.exists()
        assert upscale.main(command(repeating, source, target, "--resume")) == 0
        assert target.read_bytes() == whole.read_bytes()
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mp4", "b.mkv", "whole.mkv"]

    @pytest.mark.usefixtures("short_segments")
    def test_no_thread_reads_a_source_that_is_closed(
        self, repeating: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        source = Clip(60).write(tmp_path / "a.mp4")
        readers: list[list[str]] = []
        plain = decode.Reader.close

        def noting(self: decode.Reader) -> None:
            readers.append([t.name for t in threading.enumerate() if "sr-stream" in t.name])
            plain(self)

        monkeypatch.setattr(decode.Reader, "close", noting)
        _fill_disk(monkeypatch, "fsync", 6)
        assert upscale.main(command(repeating, source, tmp_path / "b.mkv")) == 1
        assert readers == [[]]


def _fill_disk(patch: pytest.MonkeyPatch, call: str, after: int) -> None:
    """Have a call fail as on a full disk, once it has succeeded so many times."""
    owner = {"fsync": os, "replace": Path, "write": segments}[call]
    plain: Any = getattr(owner, call)
    count = itertools.count()

    def full(*arguments: Any) -> Any:
        if next(count) >= after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return plain(*arguments)

    patch.setattr(owner, call, full)


class TestKilled:
    """A killed job continues where it was; its result is the same as without the kill."""

    @pytest.fixture
    def source(self, tmp_path: Path) -> Path:
        return Clip(60, size=(48, 32)).write(tmp_path / "a.mp4")

    def run(self, *arguments: str, slow: float = 0.0) -> subprocess.Popen[bytes]:
        program = (
            "import signal, sys, time\n"
            "from sr_deploy import Engine\n"
            "from sr_deploy.cli import upscale\n"
            "from sr_deploy.video import transcode\n"
            "transcode.SEGMENT = 7\n"
            # A shell lets what it runs in the background ignore Ctrl-C.
            "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
            "plain = Engine.upscale\n"
            "def slower(*a, **k):\n"
            f"    time.sleep({slow})\n"
            "    return plain(*a, **k)\n"
            "Engine.upscale = slower\n"
            "sys.exit(upscale.main(sys.argv[1:]))\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def ends_well(self, *arguments: str) -> None:
        process = self.run(*arguments)
        said = process.communicate()[1].decode()
        assert process.returncode == 0, said

    def kill_with(self, number: int, process: subprocess.Popen[bytes], folder: Path) -> str:
        """End the process once two more segments are finished; return its messages."""
        before = len(list(folder.glob(".b.mkv.sr-job/*.packets")))
        end = time.monotonic() + 60
        while len(list(folder.glob(".b.mkv.sr-job/*.packets"))) < before + 2:
            if process.poll() is not None or time.monotonic() > end:
                process.kill()
                pytest.fail(f"no segments came: {process.communicate()[1].decode()}")
            time.sleep(0.01)
        process.send_signal(number)
        start = time.monotonic()
        said = process.communicate()[1].decode()
        assert time.monotonic() - start < 1
        return said

    @pytest.mark.slow
    def test_a_resumed_job_is_bit_identical(
        self, repeating: Path, source: Path, tmp_path: Path
    ) -> None:
        whole, target = tmp_path / "whole.mkv", tmp_path / "b.mkv"
        self.ends_well(*command(repeating, source, whole))
        arguments = command(repeating, source, target)
        self.kill_with(signal.SIGKILL, self.run(*arguments, slow=0.02), tmp_path)
        assert not target.exists()
        refused = self.run(*arguments)
        assert b"--resume" in refused.communicate()[1]
        assert refused.returncode == 1
        self.kill_with(signal.SIGKILL, self.run(*arguments, "--resume", slow=0.02), tmp_path)
        self.ends_well(*arguments, "--resume")
        assert target.read_bytes() == whole.read_bytes()
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mp4", "b.mkv", "whole.mkv"]

    def test_damage_before_the_kill_is_reported_at_the_end(
        self, repeating: Path, tmp_path: Path
    ) -> None:
        source = Clip(60, "ffv1", size=(48, 32)).write(tmp_path / "a.mkv")
        content = bytearray(source.read_bytes())
        where = len(content) // 10  # in a frame of the first segment
        content[where : where + 300] = b"\xa5" * 300
        source.write_bytes(content)
        arguments = command(repeating, source, tmp_path / "b.mkv")
        self.kill_with(signal.SIGKILL, self.run(*arguments, slow=0.02), tmp_path)
        process = self.run(*arguments, "--resume")
        said = process.communicate()[1].decode()
        assert process.returncode == 1
        assert "a.mkv: after 0.160 s: a frame could not be decoded" in said

    def test_ctrl_c_exits_at_once_and_names_resume(
        self, repeating: Path, source: Path, tmp_path: Path
    ) -> None:
        process = self.run(*command(repeating, source, tmp_path / "b.mkv"), slow=0.02)
        said = self.kill_with(signal.SIGINT, process, tmp_path)
        assert process.returncode == 130
        assert re.search(r"interrupted.*--resume", said)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts memory as Linux does")
def test_memory_is_flat_over_many_frames(repeating: Path, tmp_path: Path) -> None:
    source = Clip(10_000, size=(32, 32), options={"preset": "ultrafast"})
    path = source.write(tmp_path / "a.mkv", _flat_frames(10_000))
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sr_deploy import machine\n"
        "from sr_deploy.cli import upscale, upscale_video\n"
        "seen = {}\n"
        "def show(self, state):\n"
        "    seen[state.frames] = machine.resident_memory()\n"
        "upscale_video._ProgressLine.show = show\n"
        "code = upscale.main(sys.argv[1:])\n"
        "print(seen[1000], seen[10000])\n"
        "sys.exit(code)\n"
    )
    arguments = command(repeating, path, tmp_path / "b.mkv", "--preset", "ultrafast")
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], check=True, capture_output=True, text=True
    )
    early, late = map(int, done.stdout.splitlines()[-1].split())
    # Now and then the C library allocates 5 MB at once; a leak of each frame would be 28 MB.
    assert late - early < 12 << 20
    assert len(clips.decoded(tmp_path / "b.mkv")) == 10_000


def _flat_frames(count: int) -> Iterator[Any]:
    frame = clips.picture("yuv420p", 32, 32)
    for number in range(count):
        frame.pts, frame.time_base = number, Fraction(1, 25)
        yield frame


class _SlowEngine:
    """An engine with a slow network that uses no processor time."""

    def __init__(self, bundle: Path, seconds: float) -> None:
        self._engine = Engine(bundle)
        self._seconds = seconds
        self.spec = self._engine.spec

    def stream(self, frames: Any, **how: Any) -> Any:
        plain = self._engine.upscale

        def slower(*arguments: Any, **more: Any) -> Any:
            time.sleep(self._seconds)
            return plain(*arguments, **more)

        self._engine.upscale = slower  # type: ignore[method-assign]
        return self._engine.stream(frames, **how)


@pytest.mark.parametrize("slowest", [0, 1, 2])
def test_reading_network_and_writing_overlap(identity: Path, slowest: int) -> None:
    """The total is at most 1.15 times the time of the slowest stage."""
    seconds = [0.012, 0.012, 0.012]
    seconds[slowest] = 0.03
    count = 40

    def frames() -> Iterator[Any]:
        for number in range(count):
            time.sleep(seconds[0])
            frame = clips.picture("yuv420p", 32, 16)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            yield frame

    engine: Any = _SlowEngine(identity, seconds[1])
    color = clips.Tags()
    start = time.monotonic()
    for _ in upscaled(engine, frames(), _look(color), StageMeter()):
        time.sleep(seconds[2])
    assert time.monotonic() - start <= 1.15 * count * seconds[slowest] + 0.1


def _look(tags: clips.Tags) -> ColorSpec:
    from sr_deploy.video.color import Color

    color = Color(tags.matrix, tags.range, tags.primaries, tags.transfer)
    return ColorSpec(color, color, "yuv420p")


def _piped(
    bundle: Path, arguments: Sequence[str], given: bytes
) -> subprocess.CompletedProcess[bytes]:
    program = "import sys; from sr_deploy.cli import upscale; sys.exit(upscale.main(sys.argv[1:]))"
    return subprocess.run(
        [sys.executable, "-c", program, str(bundle), *arguments],
        input=given,
        capture_output=True,
        check=False,
    )


class TestPipes:
    def test_y4m_in_the_middle(self, repeating: Path) -> None:
        frame = bytes(range(24)) * 16
        given = b"YUV4MPEG2 W16 H8 F25:1 Ip C444\n" + b"FRAME\n" + frame
        done = _piped(repeating, ["-", "-"], given)
        head, _, rest = done.stdout.partition(b"FRAME\n")
        assert done.returncode == 0, done.stderr
        assert head == b"YUV4MPEG2 W32 H16 F25:1 Ip C444\n"
        assert len(rest) == 4 * len(frame)

    def test_raw_frames_in_the_middle(self, repeating: Path) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (3, 4, 6, 3), np.uint8)
        done = _piped(repeating, ["-", "-", "--raw", "6x4:rgb24"], pixels.tobytes())
        assert done.returncode == 0, done.stderr
        found = np.frombuffer(done.stdout, np.uint8).reshape(3, 8, 12, 3)
        assert (found == pixels.repeat(2, axis=1).repeat(2, axis=2)).all()

    def test_a_file_into_a_pipe(self, identity: Path, tmp_path: Path) -> None:
        source = Clip(4, "ffv1", "yuv420p10le").write(tmp_path / "a.mkv")
        done = _piped(identity, [str(source), "-"], b"")
        assert done.returncode == 0, done.stderr
        (tmp_path / "b.y4m").write_bytes(done.stdout)
        assert largest_difference(source, tmp_path / "b.y4m") <= 1

    def test_a_truncated_pipe_is_reported(self, repeating: Path) -> None:
        done = _piped(repeating, ["-", "-", "--raw", "6x4:rgb24"], bytes(72 + 5))
        assert len(done.stdout) == 4 * 72
        assert done.returncode == 1
        assert b"5 of 72 bytes" in done.stderr

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["-", "-"], b"empty"),
            (["-", "out.mkv"], b"-"),
            (["a.mkv", "b.mkv", "-"], b"one"),
            (["-", "-", "--json"], b"--json"),
        ],
    )
    def test_wrong_uses_are_refused(
        self, repeating: Path, arguments: list[str], said: bytes
    ) -> None:
        done = _piped(repeating, arguments, b"")
        assert done.returncode == 1
        assert said in done.stderr
        assert done.stderr.count(b"\n") == 1


def test_videos_need_their_package(
    repeating: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert upscale.main(command(repeating, "a.mp4", "b.mp4")) == 1
    assert "pip install sr-deploy[video]" in capsys.readouterr().err
