from __future__ import annotations

import itertools
import struct
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

av = pytest.importorskip("av")
from sr_deploy.errors import InvalidInputError, NotFoundError, VideoError  # noqa: E402
from sr_deploy.video import decode  # noqa: E402
from sr_deploy.video.color import HdrMetadata, MasteringDisplay  # noqa: E402
from sr_deploy.video.source import FrameSelection, VideoSource  # noqa: E402
from tests.sr_deploy.video import clips  # noqa: E402
from tests.sr_deploy.video.clips import Clip  # noqa: E402
from tests.sr_deploy.video.films import Film  # noqa: E402

Read = list[tuple[int, int, bytes]]

UNEVEN = [0, 40, 90, 100, 200, 210, 300, 310, 400, 450]
CLIPS = {
    "h264.mp4": Clip(count=40),
    "open_gop.mkv": Clip(
        count=40, options={"x264-params": "keyint=10:open-gop=1:bframes=4:scenecut=0"}
    ),
    "hevc_open_gop.mkv": Clip(
        count=40,
        codec="libx265",
        options={"x265-params": "log-level=none:keyint=10:min-keyint=10:open-gop=1:scenecut=0"},
    ),
    "refresh.mkv": Clip(count=40, options={"x264-params": "keyint=20:intra-refresh=1:bframes=0"}),
    "h264.ts": Clip(count=40, options={"g": "10"}),
    "mpeg2.ts": Clip(count=40, codec="mpeg2video", options={"g": "10", "bf": "2", "b": "2M"}),
    "vp9.webm": Clip(count=20, codec="libvpx-vp9", options={"g": "8"}),
    "h264.avi": Clip(count=40, options={"g": "10"}),
    "ffv1.mkv": Clip(count=10, codec="ffv1", size=(33, 21)),
    "late.mov": Clip(count=20, start=7),
    "uneven.mkv": Clip(pts=UNEVEN, time_base=Fraction(1, 1000), start=700),
    "one.mp4": Clip(count=1),
    "raw.h264": Clip(count=20),
}


def read(path: Path, after: int | None = None, **selection: Any) -> Read:
    """Return the time, duration and samples of each frame of a source."""
    with VideoSource(path, FrameSelection(**selection), threads=2) as source:
        return [
            (frame.pts or 0, frame.duration, b"".join(map(np.ndarray.tobytes, clips.planes(frame))))
            for frame in source.frames(after)
        ]


def described(path: Path, **selection: Any) -> Any:
    with VideoSource(path, FrameSelection(**selection)) as source:
        return source.info


@pytest.mark.parametrize("name", CLIPS)
def test_every_frame_comes_in_order_with_its_time(tmp_path: Path, name: str) -> None:
    clip = CLIPS[name]
    path = clip.write(tmp_path / name)
    found = read(path)
    info = described(path)
    seconds = [pts * info.time_base for pts, _, _ in found]
    asked = [frame.pts * frame.time_base for frame in clip.frames()]
    # Where a container moves the beginning, the distances remain.
    assert [at - seconds[0] for at in seconds] == [at - asked[0] for at in asked]
    if name in ("late.mov", "uneven.mkv", "h264.mp4"):
        assert seconds == asked
    for (pts, duration, _), (following, _, _) in itertools.pairwise(found):
        assert pts + duration == following
    assert found[-1][1] * info.time_base == pytest.approx(1 / clip.rate)


@pytest.mark.parametrize("name", CLIPS)
def test_resuming_goes_on_with_exactly_the_next_frame(tmp_path: Path, name: str) -> None:
    path = CLIPS[name].write(tmp_path / name)
    whole = read(path)
    for done in {0, 1, 9, 10, 11, len(whole) // 2, len(whole) - 1} & set(range(len(whole))):
        assert read(path, after=whole[done][0]) == whole[done + 1 :]


def test_resuming_at_a_time_without_a_frame_is_refused(tmp_path: Path) -> None:
    path = Clip(count=5).write(tmp_path / "a.mkv")
    with pytest.raises(VideoError, match=r"0\.081 s"):
        read(path, after=81)


def test_properties_of_a_video(tmp_path: Path) -> None:
    clip = Clip(count=30, size=(96, 64), aspect=Fraction(4, 3), rate=Fraction(30000, 1001))
    info = described(clip.write(tmp_path / "a.mp4"))
    assert (info.width, info.height, info.stream, info.codec) == (96, 64, 0, "h264")
    assert (info.pixel_format, info.bits, info.aspect) == ("yuv420p", 8, Fraction(4, 3))
    assert (info.rate, info.frames) == (Fraction(30000, 1001), 30)
    assert info.duration == pytest.approx(30 * 1001 / 30000)
    assert (info.hdr, info.display_matrix, info.interlaced) == (None, None, False)


def test_hdr10_metadata(tmp_path: Path) -> None:
    clip = Clip(
        codec="libx265", pixel_format="yuv420p10le", tags=clips.PQ, options=clips.HDR10, count=2
    )
    info = described(clip.write(tmp_path / "a.mkv"))
    assert info.bits == 10
    red, green, blue, white = (
        (Fraction(x, 50000), Fraction(y, 50000))
        for x, y in ((34000, 16000), (13250, 34500), (7500, 3000), (15635, 16450))
    )
    screen = MasteringDisplay(red, green, blue, white, Fraction(50, 10000), Fraction(1000))
    assert info.hdr == HdrMetadata(screen, (1000, 400))
    assert info.hdr.as_integers() == (
        "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)",
        "1000,400",
    )


def test_start_and_end(tmp_path: Path) -> None:
    path = Clip(count=50, start=5).write(tmp_path / "a.mkv")
    whole = read(path)
    # The file begins at its first frame, which is shown at 0.2 s.
    part = read(path, start=0.48, end=1.0)
    assert part == whole[12:25]
    assert described(path, start=0.48, end=1.0).frames == 13
    assert read(path, start=0.48, end=1.0, after=part[3][0]) == part[4:]
    assert read(path, start=100) == []


def test_every_third_frame(tmp_path: Path) -> None:
    path = Clip(count=20).write(tmp_path / "a.mkv")
    whole = read(path)
    thirds = read(path, every=3)
    assert [data for _, _, data in thirds] == [data for _, _, data in whole[::3]]
    assert [duration for _, duration, _ in thirds] == [120] * 6 + [80]
    assert read(path, every=3, after=thirds[2][0]) == thirds[3:]
    assert described(path, every=3).rate == Fraction(25, 3)


def test_a_crop(tmp_path: Path) -> None:
    path = Clip(count=3, size=(64, 48)).write(tmp_path / "a.mkv")
    with VideoSource(path, FrameSelection(crop=(8, 4, 21, 16))) as source:
        assert (source.info.width, source.info.height) == (21, 16)
        for cut, frame in zip(source.frames(), clips.decoded(path), strict=True):
            luma, first, _ = clips.planes(frame)
            assert cut.pts == frame.pts
            assert np.array_equal(clips.planes(cut)[0], luma[4:20, 8:29])
            assert np.array_equal(clips.planes(cut)[1], first[2:10, 4:15])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": (1, 0, 8, 8)}, r" 2 .* 0 and 0"),
        ({"crop": (0, 0, 65, 8)}, "64x48"),
        ({"crop": (-2, 0, 8, 8)}, "-2"),
        ({"every": 0}, "every 0"),
        ({"start": -1}, "start -1"),
        ({"start": 2, "end": 1}, "end 1"),
        ({"hardware": "nonsense"}, "'nonsense'"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = Clip(count=2).write(tmp_path / "a.mkv")
    with pytest.raises(InvalidInputError, match=message):
        described(path, **arguments)


def test_interlaced_video_is_refused_with_advice(tmp_path: Path) -> None:
    path = Clip(options=clips.INTERLACED).write(tmp_path / "a.mp4")
    with pytest.raises(InvalidInputError, match="--deinterlace"):
        VideoSource(path)


def test_deinterlacing_keeps_every_frame_and_its_time(tmp_path: Path) -> None:
    """Rows that alternate between two moments become alike."""
    combed = []
    for number, frame in enumerate(Clip(count=20).frames()):
        luma, *others = clips.planes(frame)
        luma[::2], luma[1::2] = (180, 60) if number % 2 else (60, 180)
        combed.append(clips.put(frame, [luma, *others]))
    clip = Clip(count=20, options={**clips.INTERLACED, "qp": "0", "g": "8"})
    path = clip.write(tmp_path / "a.mp4", combed)
    with VideoSource(path, FrameSelection(deinterlace=True)) as source:
        frames = list(source.frames())
    assert [frame.pts for frame in frames] == [frame.pts for frame in clips.decoded(path)]
    middle = clips.planes(frames[5])[0][8:-8].astype(int)
    assert np.abs(np.diff(middle, axis=0)).max() < 20  # it was 120
    whole = read(path, deinterlace=True)
    for done in (0, 8, 12):
        assert read(path, deinterlace=True, after=whole[done][0]) == whole[done + 1 :]


def test_a_truncated_file_is_reported(tmp_path: Path) -> None:
    path = Clip(count=100, size=(160, 120), options={"g": "10"}).write(tmp_path / "a.mkv")
    whole = read(path)
    clips.truncated(path, 0.5)
    with VideoSource(path) as source:
        found = [frame.pts for frame in source.frames()]
        damage = "; ".join(source.damage)
    assert 20 < len(found) < 80
    assert found == [pts for pts, _, _ in whole[: len(found)]]
    assert "4.000 s" in damage


def test_damage_in_the_middle_loses_only_what_it_hits(tmp_path: Path) -> None:
    path = Clip(count=60, options={"g": "5", "bf": "0"}).write(tmp_path / "a.mp4")
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        broken = packets[22]
        position, size = broken.pos, broken.size
    content = bytearray(path.read_bytes())
    content[position : position + size] = bytes(size)
    path.write_bytes(content)
    with VideoSource(path) as source:
        found = [frame.pts for frame in source.frames()]
        assert len(source.damage) == 1
        assert source.damage[0].startswith("after 0.8")
    assert len(found) >= 59
    assert found[-1] == 59 * 512


def test_an_undamaged_file_has_no_damage(tmp_path: Path) -> None:
    for name in ("uneven.mkv", "late.mov", "h264.ts", "h264.avi"):
        with VideoSource(CLIPS[name].write(tmp_path / name)) as source:
            assert list(source.frames())
            assert source.damage == ()


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"none\.mp4"):
        VideoSource(tmp_path / "none.mp4")
    nonsense = tmp_path / "a.mp4"
    nonsense.write_bytes(b"nonsense" * 100)
    with pytest.raises(VideoError, match=r"a\.mp4"):
        VideoSource(nonsense)
    headless = clips.truncated(Clip(count=50).write(tmp_path / "b.mp4"), 0.5)
    with pytest.raises(VideoError, match=r"b\.mp4"):
        VideoSource(headless)


def test_metadata_that_is_not_utf8_is_no_error(tmp_path: Path) -> None:
    path = Film(tags={"title": "caf__"}, clip=Clip(count=2)).write(tmp_path / "a.mkv")
    path.write_bytes(path.read_bytes().replace(b"caf__", b"caf\xe9_"))
    with VideoSource(path) as source:
        assert source.container.metadata["title"] == "caf\ufffd_"


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    header = struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 836, b"WAVE", b"fmt ", 16, 1, 1, 8000,
                         16000, 2, 16, b"data", 800)  # fmt: skip
    path.write_bytes(header + bytes(800))
    with pytest.raises(VideoError, match=r"a\.wav"):
        VideoSource(path)


def test_too_large_frames_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Clip(count=1).write(tmp_path / "a.mkv")
    monkeypatch.setattr(decode, "LARGEST_PIXELS", 64 * 48 - 1)
    with pytest.raises(InvalidInputError, match="64x48"):
        VideoSource(path)


def test_the_main_stream_is_the_largest_that_is_no_cover(two_programs: Path) -> None:
    info = described(two_programs)
    assert (info.stream, info.width, info.height, info.frames) == (3, 96, 64, 210)


def test_frames_of_another_size_midway(tmp_path: Path) -> None:
    path = tmp_path / "a.mjpeg"
    content = b""
    for size in ((64, 48), (96, 64)):
        clip = Clip(count=5, size=size, codec="mjpeg", pixel_format="yuvj420p")
        content += clip.write(path).read_bytes()
    path.write_bytes(content)
    with VideoSource(path, threads=1) as source:
        frames = list(source.frames())
    assert [(frame.width, frame.height) for frame in frames] == [(64, 48)] * 5 + [(96, 64)] * 5
    times = [frame.pts or 0 for frame in frames]
    assert times == sorted(set(times))
