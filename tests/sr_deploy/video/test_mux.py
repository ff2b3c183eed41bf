from __future__ import annotations

import errno
import itertools
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pytest

from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video import mux, streams
from sr_deploy.video.color import Color, HdrMetadata, MasteringDisplay
from sr_deploy.video.job import TranscodeJob
from sr_deploy.video.source import FrameSelection
from tests.sr_deploy.video import clips, films
from tests.sr_deploy.video.films import Film, Sound
from tests.sr_deploy.video.probe import FileInfo, probe

MILLISECOND = Fraction(1, 1000)
READS_TITLES = av.library_versions["libavformat"] >= (62, 12)
"""Those of MP4's tracks."""

SOUNDS = (Sound("eng", "Main", 1), Sound("deu", "Commentary", 8))
"""The second is of the disposition `comment`."""
OPUS = Sound("eng", "Main", 1, "libopus", 48000)

RICH = Film(
    sounds=SOUNDS,
    subtitles=((100, 400, "Hello <i>you</i>"), (700, 800, "Two")),
    attachments={"font.ttf": b"the font"},
    chapters=("One", "Two", "Three"),
    tags={"title": "The film", "custom": "kept"},
    video_tags={"title": "The pictures", "language": "jpn"},
    cover=True,
)
IN_MP4 = replace(RICH, subtitles=(), attachments={}, tags={"title": "The film", "comment": "x"})

HDR = HdrMetadata(
    MasteringDisplay(
        red=(Fraction(34000, 50000), Fraction(16000, 50000)),
        green=(Fraction(13250, 50000), Fraction(34500, 50000)),
        blue=(Fraction(7500, 50000), Fraction(3000, 50000)),
        white=(Fraction(15635, 50000), Fraction(16450, 50000)),
        min_luminance=Fraction(50, 10000),
        max_luminance=Fraction(1000),
    ),
    (1000, 400),
)
PQ = Color(9, 1, 9, 16)
QUARTER = (0, 1 << 16, 0, -1 << 16, 0, 0, 48 << 16, 0, 1 << 30)
"""The display matrix of a picture of 48 rows that is to be turned by 90 degrees."""


def assembled(
    source: Path,
    target: Path,
    *,
    times: Sequence[int] | None = None,
    hdr: HdrMetadata | None = None,
    stream: int | None = None,
    drop: Sequence[str] = (),
    start: float | None = None,
    end: float | None = None,
    length: int = 12,
    **settings: Any,
) -> FileInfo:
    """Encode and mux a source, and return the properties of the result."""
    info = films.info_of(source, stream, hdr)
    chosen = films.settings_of(info, **settings)
    if times is None:
        times = films.times_of(source, info.stream)
    with (
        films.muxer(source, info, chosen, target, drop) as muxer,
        films.upscaled(target, chosen, times, length) as job,
    ):
        muxer.write(job, FrameSelection(start=start, end=end))
        job.remove()
    assert [each.name for each in target.parent.iterdir() if each.name.startswith(".")] == []
    return probe(target)


def _opened(*arguments: Any) -> None:
    with films.muxer(*arguments):
        pass


def rotated(path: Path, matrix: tuple[int, ...] = QUARTER) -> Path:
    """Write a display matrix into the first track of an MP4 file."""
    data = bytearray(path.read_bytes())
    place = data.index(b"tkhd") + 44
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)
    return path


def assert_same(before: FileInfo, after: FileInfo, tolerance: Fraction = Fraction(0)) -> None:
    """Compare everything but the pictures of the first video."""
    for old, new in zip(_without_helpers(before), _without_helpers(after), strict=True):
        assert new.kind == old.kind
        if not (new.disposition == 1 and old.disposition == 0):  # MP4 has always a default
            assert new.disposition == old.disposition
        assert new.attachment == old.attachment
        assert new.tags.get("language", "und") == old.tags.get("language", "und")
        for tag in {"filename", "mimetype"} & old.tags.keys():
            if new.kind == "attachment" or tag in new.tags:  # MP4 names no covers
                assert new.tags[tag] == old.tags[tag]
        if READS_TITLES:
            assert _title(new) == _title(old)
        if new is not after.of_kind("video")[0]:
            assert new.contents == old.contents
        assert len(new.pts) == len(old.pts)
        assert all(abs(a - b) <= tolerance for a, b in zip(new.pts, old.pts, strict=True))
    assert after.chapters == before.chapters
    ours = {"encoder", "major_brand", "minor_version", "compatible_brands"}
    for tag in before.tags.keys() - ours:
        assert after.tags[tag] == before.tags[tag]


def _without_helpers(info: FileInfo) -> list[Any]:
    # MP4's chapters are a stream too; covers may come at another place.
    kept = [each for each in info.streams if each.kind != "data" and not each.disposition & 1024]
    return [*kept, *info.covers]


def _title(stream: Any) -> str | None:
    return stream.tags.get("title", stream.tags.get("name"))


@pytest.mark.parametrize(
    ("film", "source", "target", "tolerance"),
    [
        (RICH, "a.mkv", "b.mkv", Fraction(0)),
        (IN_MP4, "a.mp4", "b.mp4", Fraction(0)),
        (replace(IN_MP4, cover=False), "a.mov", "b.mov", Fraction(0)),
        (replace(IN_MP4, cover=False, sounds=SOUNDS[:1]), "a.mp4", "b.mov", Fraction(0)),
        # Matroska counts milliseconds; they are rounded once when written and once when read.
        (IN_MP4, "a.mp4", "b.mkv", MILLISECOND),
        (replace(IN_MP4, sounds=[OPUS]), "a.mp4", "b.mkv", MILLISECOND),
        (replace(IN_MP4, sounds=[Sound("eng", "M", 1, "flac")]), "a.mkv", "b.mkv", Fraction(0)),
        (replace(IN_MP4, tags={"title": "T"}), "a.mkv", "b.mp4", MILLISECOND),
        (Film(clip=clips.Clip(count=1)), "a.mp4", "b.mp4", Fraction(0)),
        (Film(clip=clips.Clip(count=1)), "a.mp4", "b.mkv", Fraction(0)),
        (Film(), "a.mkv", "b.mp4", Fraction(0)),
        (Film(sounds=[Sound("eng", codec="pcm_s16le")]), "a.mkv", "b.mp4", MILLISECOND),
    ],
)  # fmt: skip
def test_nothing_is_lost(
    tmp_path: Path, film: Film, source: str, target: str, tolerance: Fraction
) -> None:
    path = film.write(tmp_path / source)
    assert_same(probe(path), assembled(path, tmp_path / target), tolerance)


@pytest.mark.parametrize("name", [*clips.DELIVERED, "two programs"])
def test_delivered_videos_keep_times_and_color(
    tmp_path: Path, two_programs: Path, name: str
) -> None:
    path = two_programs
    if name in clips.DELIVERED:
        path = clips.DELIVERED[name].write(tmp_path / "in.mp4")
    before = probe(path)
    after = assembled(path, tmp_path / "out.mp4")
    assert_same(before, after)
    old, new = before.of_kind("video")[0], after.of_kind("video")[0]
    assert new.time_base == old.time_base
    assert old.color is not None
    assert new.color is not None
    assert new.color[:3] == old.color[:3]
    assert (new.color[3] == 2) == (old.color[3] == 2)  # 0, unspecified, means limited like 1


def test_subtitles_of_mp4_are_converted_for_matroska(tmp_path: Path, two_programs: Path) -> None:
    path = two_programs
    target = tmp_path / "out.mkv"
    before = probe(path)
    after = assembled(path, target)
    assert [each.codec for each in after.of_kind("subtitle")] == ["srt", "srt"]
    for kind in ("audio", "video"):
        for old, new in zip(before.of_kind(kind), after.of_kind(kind), strict=True):
            assert all(abs(a - b) <= MILLISECOND for a, b in zip(old.pts, new.pts, strict=True))
            assert kind == "video" or new.contents == old.contents
    with av.open(str(path)) as container:
        shown = [each for each in container.demux(subtitles=0) if len(bytes(each)) > 2]
        old_texts = [(p.pts * p.time_base, bytes(p)[2:]) for p in shown]
    with av.open(str(target)) as container:
        shown = [each for each in container.demux(subtitles=0) if each.size]
        new_texts = [(p.pts * p.time_base, bytes(p)) for p in shown]
    assert [text for _, text in new_texts] == [text.split(b"\0")[0] for _, text in old_texts]
    assert len(new_texts) > 1
    for (a, _), (b, _) in zip(old_texts, new_texts, strict=True):
        assert abs(a - b) <= MILLISECOND


def test_any_video_of_the_file_can_be_replaced(tmp_path: Path, two_programs: Path) -> None:
    path = two_programs
    before = probe(path)
    after = assembled(path, tmp_path / "out.mp4", stream=3)
    assert after.streams[0].contents == before.streams[0].contents
    assert after.streams[3].pts == before.streams[3].pts
    assert after.streams[3].contents != before.streams[3].contents


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_variable_rate_stays_variable(tmp_path: Path, suffix: str) -> None:
    times = [0, 3, 4, 40, 41, 90, 91, 92, 200, 210, 400, 401, 500, 520, 600, 700, 701, 703]
    clip = clips.Clip(count=len(times), pts=times, time_base=Fraction(1, 600))
    path = Film(clip=clip, sounds=SOUNDS[:1]).write(tmp_path / f"a{suffix}")
    before = probe(path)
    after = assembled(path, tmp_path / f"b{suffix}", length=5)
    old, new = before.of_kind("video")[0], after.of_kind("video")[0]
    assert new.pts == old.pts
    assert new.time_base == old.time_base
    if suffix != ".mkv":
        assert new.pts == [Fraction(each, 600) for each in times]
        dts = [each.dts for each in new.packets]
        assert all(a < b for a, b in itertools.pairwise(dts) if a is not None and b)


def test_a_start_offset_is_kept_to_the_sample(tmp_path: Path) -> None:
    clip = clips.Clip(count=20, start=7, rate=Fraction(30000, 1001))
    film = Film(clip=clip, sounds=SOUNDS, sound_start=Fraction(1, 3), seconds=1)
    path = film.write(tmp_path / "a.mp4")
    before = probe(path)
    assert before.of_kind("video")[0].pts[0] == Fraction(7 * 1001, 30000)
    assert_same(before, assembled(path, tmp_path / "b.mp4"))
    assert_same(before, assembled(path, tmp_path / "b.mkv"), MILLISECOND)


def test_a_broadcast_begins_at_zero_and_stays_in_sync(tmp_path: Path) -> None:
    film = Film(sounds=[Sound("eng")], clip=clips.Clip(start=100))
    path = film.write(tmp_path / "a.ts")
    before = probe(path)
    origin = min(before.streams[0].pts[0], before.streams[1].pts[0])
    for name in ("b.mkv", "b.mp4"):
        after = assembled(path, tmp_path / name)
        for old, new in zip(before.streams, after.streams, strict=True):
            shifts = [a - b for a, b in zip(old.pts, new.pts, strict=True)]
            assert all(abs(shift - origin) <= MILLISECOND for shift in shifts)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_a_rotation_is_kept(tmp_path: Path, suffix: str) -> None:
    path = rotated(Film().write(tmp_path / "a.mp4"))
    assert probe(path).streams[0].side_data["DISPLAYMATRIX"] == QUARTER
    found = assembled(path, tmp_path / f"b{suffix}").streams[0].side_data["DISPLAYMATRIX"]
    assert found[:6] == QUARTER[:6]
    # It moves the turned picture back into view: by twice as many rows. Matroska says no more
    # than the angle.
    assert found[6] == (0 if suffix == ".mkv" else 96 << 16)


def test_a_mirrored_picture_is_kept(tmp_path: Path) -> None:
    mirror = (-1 << 16, 0, 0, 0, 1 << 16, 0, 64 << 16, 0, 1 << 30)
    path = rotated(Film().write(tmp_path / "a.mp4"), mirror)
    found = assembled(path, tmp_path / "b.mp4").streams[0].side_data["DISPLAYMATRIX"]
    assert found == (*mirror[:6], 128 << 16, 0, 1 << 30)


@pytest.mark.parametrize("aspect", [Fraction(1), Fraction(4, 3), Fraction(8, 9), Fraction(64, 45)])
@pytest.mark.parametrize(
    ("source", "target", "encoder"),
    [
        ("a.mp4", "b.mp4", "libx264"),
        ("a.mp4", "b.mov", "libx264"),
        ("a.mkv", "b.mkv", "libx264"),
        ("a.mkv", "b.mkv", "ffv1"),
        ("a.mkv", "b.webm", "libvpx-vp9"),
    ],
)
def test_the_aspect_ratio_is_kept(
    tmp_path: Path, source: str, target: str, encoder: str, aspect: Fraction
) -> None:
    path = Film(clip=clips.Clip(count=3, aspect=aspect)).write(tmp_path / source)
    after = assembled(path, tmp_path / target, encoder=encoder, aspect=aspect)
    assert after.streams[0].aspect == aspect


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
@pytest.mark.parametrize("encoder", ["libx264", "libx265"])
def test_hdr_is_kept(tmp_path: Path, suffix: str, encoder: str) -> None:
    clip = clips.Clip(count=3, pixel_format="yuv420p10le", tags=clips.PQ)
    path = Film(clip=clip).write(tmp_path / "a.mkv")
    options = {"x265-params": "log-level=none"} if encoder == "libx265" else {}
    after = assembled(
        path, tmp_path / f"b{suffix}", hdr=HDR, encoder=encoder, color=PQ, options=options
    )
    video = after.streams[0]
    assert video.color == (9, 16, 9, 1)
    assert video.side_data["CONTENT_LIGHT_LEVEL"] == (1000, 400)
    assert HDR.mastering is not None
    mastering = HDR.mastering
    points = [mastering.red, mastering.green, mastering.blue, mastering.white]
    assert video.side_data["MASTERING_DISPLAY_METADATA"] == [
        pytest.approx(each, abs=1e-6)  # Matroska holds floats
        for each in (
            *(x for point in points for x in point or ()),
            mastering.min_luminance,
            mastering.max_luminance,
        )
    ]


def test_a_part_begins_at_zero_in_sync(tmp_path: Path) -> None:
    film = replace(RICH, cover=False, attachments={})
    path = film.write(tmp_path / "a.mkv")
    whole = probe(path)
    times = [each for each in films.times_of(path, 0) if 500 <= each < 1300]
    zero = films.info_of(path).zero  # depends on the version of PyAV
    end = float(Fraction(13, 10) - zero)
    part = assembled(path, tmp_path / "b.mkv", times=times, start=0.5, end=end)
    origin = Fraction(times[0], 1000)
    assert part.streams[0].pts == [Fraction(each - times[0], 1000) for each in times]
    for old, new in zip(whole.of_kind("audio"), part.of_kind("audio"), strict=True):
        inside = [each for each in old.pts if origin <= each < Fraction(13, 10)]
        assert new.pts == [each - origin for each in inside]
        assert set(new.contents) <= set(old.contents)
    # The second of the subtitles, from 0.7 to 1.5, is cut at 1.3 and moved.
    assert part.of_kind("subtitle")[0].pts == [Fraction(700, 1000) - origin]
    assert part.chapters == [
        (Fraction(1, 2) - origin, Fraction(1) - origin, "Two") if origin < Fraction(1, 2) else
        (Fraction(0), Fraction(1) - origin, "Two"),
        (Fraction(1) - origin, Fraction(13, 10) - origin, "Three"),
    ]  # fmt: skip


def test_a_subtitle_over_the_edge_is_cut(tmp_path: Path) -> None:
    film = Film(subtitles=((100, 900, "over the edge"), (1200, 500, "over the other")))
    path = film.write(tmp_path / "a.mkv")
    times = [each for each in films.times_of(path, 0) if 520 <= each < 1400]
    target = tmp_path / "b.mkv"
    assembled(path, target, times=times, start=0.52, end=1.4)
    with av.open(str(target)) as container:
        found = [(p.pts, p.duration) for p in container.demux(subtitles=0) if p.size]
    assert found == [(0, 480), (680, 200)]


def test_a_second_video_begins_at_a_keyframe(tmp_path: Path, two_programs: Path) -> None:
    path = two_programs
    info = films.info_of(path, 3)
    settings, target = films.settings_of(info), tmp_path / "out.mkv"
    times = [each for each in films.times_of(path, 3) if 90000 <= each < 180000]
    with films.upscaled(target, settings, times) as job:
        outcome = films.write(job, path, info, settings, target, start=3, end=6)
    keys = [each.pts for each in probe(path).streams[0].packets if each.keyframe]
    assert not any(3 <= key < 6 for key in keys if key is not None)
    assert outcome.dropped == (
        "stream 0 (video, h264, eng): has no keyframe in this part; dropped",
    )


def test_an_end_alone_moves_nothing(tmp_path: Path) -> None:
    path = Film(sounds=SOUNDS[:1]).write(tmp_path / "a.mp4")
    info = films.info_of(path)
    times = [each for each in films.times_of(path, 0) if each * info.time_base < 1]
    part = assembled(path, tmp_path / "b.mp4", times=times, end=1.0)
    assert part.streams[0].pts[0] == 0
    assert part.streams[1].pts[0] == Fraction(-1024, 44100)
    assert Fraction(9, 10) < part.streams[1].pts[-1] < 1


def test_of_a_truncated_source_everything_readable_is_copied(tmp_path: Path) -> None:
    path = Film(sounds=SOUNDS, seconds=2).write(tmp_path / "a.mkv")
    whole = probe(path)
    short = clips.truncated(path, 0.6)
    after = assembled(short, tmp_path / "b.mkv")
    for old, new in zip(whole.of_kind("audio"), after.of_kind("audio"), strict=True):
        assert 10 < len(new.contents) < len(old.contents)
        assert new.contents == old.contents[: len(new.contents)]


@pytest.mark.parametrize(
    ("film", "target", "words"),
    [
        (RICH, "b.mp4", ["stream 3 (subtitle, srt, fra)", "font.ttf", ".mkv", "--drop"]),
        (RICH, "b.webm", ["stream 1 (audio, aac, eng)", ".mkv"]),
        (Film(sounds=[Sound("eng", codec="flac")]), "b.mov", ["flac", ".mkv", ".mp4"]),
    ],
)
def test_streams_that_the_container_cannot_hold_are_refused_at_once(
    tmp_path: Path, film: Film, target: str, words: list[str]
) -> None:
    path = film.write(tmp_path / "a.mkv")
    info = films.info_of(path)
    encoder = "libvpx-vp9" if target.endswith("webm") else "libx264"
    with pytest.raises(InvalidInputError) as caught:
        _opened(path, info, films.settings_of(info, encoder), tmp_path / target)
    for word in words:
        assert word in str(caught.value)


def test_streams_that_the_container_cannot_hold_may_be_dropped(tmp_path: Path) -> None:
    path = RICH.write(tmp_path / "a.mkv")
    info = films.info_of(path)
    settings, target = films.settings_of(info), tmp_path / "b.mp4"
    drop = ("subtitle", "attachment")
    with (
        films.muxer(path, info, settings, target, drop) as muxer,
        films.upscaled(target, settings, films.times_of(path, 0)) as job,
    ):
        assert len(muxer.write(job, FrameSelection()).dropped) == 3  # and a tag of the file
        job.remove()
    after = assembled(path, target, drop=("subtitle", "attachment"))
    assert [each.kind for each in after.of_kind("audio")] == ["audio", "audio"]
    assert after.of_kind("subtitle") == []


def test_a_lost_tag_is_noted(tmp_path: Path) -> None:
    path = Film(tags={"title": "T", "custom": "x"}).write(tmp_path / "a.mkv")
    info = films.info_of(path)
    settings, target = films.settings_of(info), tmp_path / "b.mp4"
    with films.upscaled(target, settings, films.times_of(path, 0)) as job:
        outcome = films.write(job, path, info, settings, target)
    assert [each.lower() for each in outcome.dropped] == [
        "mov has no place for the file's tag 'custom'"
    ]


def test_an_unknown_kind_cannot_be_dropped(tmp_path: Path) -> None:
    path = Film().write(tmp_path / "a.mkv")
    info = films.info_of(path)
    with pytest.raises(InvalidInputError, match="cannot drop 'sounds'"):
        _opened(path, info, films.settings_of(info), tmp_path / "b.mkv", ["sounds"])


def test_an_unknown_suffix_is_refused(tmp_path: Path) -> None:
    path = Film().write(tmp_path / "a.mkv")
    info = films.info_of(path)
    with pytest.raises(InvalidInputError, match=r"\.mkv, \.mp4"):
        _opened(path, info, films.settings_of(info), tmp_path / "b.xyz")


ENCODERS = {
    "libx264": "yuv420p",
    "libx265": "yuv420p",
    "libsvtav1": "yuv420p",
    "libvpx-vp9": "yuv420p",
    "ffv1": "yuv420p",
    "prores_ks": "yuv422p10le",
    "mpeg4": "yuv420p",
}


@pytest.mark.parametrize("container", ["mkv", "mp4", "mov", "webm"])
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_codec_in_every_container(tmp_path: Path, encoder: str, container: str) -> None:
    clip = clips.Clip(count=6, pixel_format="yuv444p10le", size=(64, 64))
    path = Film(clip=clip).write(tmp_path / "a.mkv")
    options = {"x265-params": "log-level=none"} if encoder == "libx265" else {}
    wanted = {"pixel_format": ENCODERS[encoder], "encoder": encoder, "options": options}
    wanted |= {"tag": "apch"} if encoder == "prores_ks" else {}
    target = tmp_path / f"b.{container}"
    codec = av.Codec(encoder, "w").canonical_name
    if codec not in streams._VIDEO_CODECS[streams.CONTAINERS[target.suffix]]:
        with pytest.raises(InvalidInputError, match=f"cannot hold {codec} video; "):
            assembled(path, target, **wanted)
        return
    after = assembled(path, target, **wanted)
    assert len(after.streams[0].packets) == 6
    with av.open(str(target)) as opened:
        frames = list(opened.decode(video=0))
    assert [(each.width, each.height) for each in frames] == [(128, 128)] * 6
    assert after.streams[0].pts == [Fraction(40 * each, 1000) for each in range(6)]


def test_a_language_with_two_codes_is_kept_in_mov(tmp_path: Path) -> None:
    path = Film(sounds=SOUNDS).write(tmp_path / "a.mkv")
    sounds = assembled(path, tmp_path / "b.mov").of_kind("audio")
    assert [each.tags["language"] for each in sounds] == ["eng", "ger"]


def test_a_timecode_is_kept(tmp_path: Path) -> None:
    film = Film(video_tags={"timecode": "01:02:03:04"})
    path = film.write(tmp_path / "a.mov")
    assert [each.kind for each in probe(path).streams] == ["video", "data"]
    for name in ("b.mov", "b.mp4", "b.mkv"):
        if name != "b.mkv" and not streams.writes_timecodes():
            with pytest.raises(InvalidInputError, match="data"):
                assembled(path, tmp_path / name)
            continue
        after = assembled(path, tmp_path / name)
        assert after.streams[0].tags["timecode"] == "01:02:03:04"


def test_tags_of_the_old_encoding_are_dropped(tmp_path: Path) -> None:
    tags = {"BPS-eng": "1234", "NUMBER_OF_FRAMES": "50", "_STATISTICS_TAGS": "BPS", "kept": "yes"}
    path = Film(video_tags=tags).write(tmp_path / "a.mkv")
    assert probe(path).streams[0].tags["bps-eng"] == "1234"
    assert assembled(path, tmp_path / "b.mkv").streams[0].tags.keys() == {"kept", "duration"}


def test_an_error_while_writing_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [".b.mkv.sr-job", "a.mkv"]
    folders = []

    def full(*_: object, **__: object) -> None:
        folders.append(sorted(each.name for each in tmp_path.iterdir()))
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = Film(sounds=SOUNDS).write(tmp_path / "a.mkv")
    info = films.info_of(path)
    settings, target = films.settings_of(info), tmp_path / "b.mkv"
    with films.upscaled(target, settings, films.times_of(path, 0)) as job:
        monkeypatch.setattr(mux, "interleaved", full)
        with pytest.raises(VideoError, match=r"No space left on device.*--resume"):
            films.write(job, path, info, settings, target)
        assert sorted(each.name for each in tmp_path.iterdir()) == before
        assert folders == [before]  # a kill would have left no file outside the job folder
        monkeypatch.undo()
        films.write(job, path, info, settings, target)
        assert target.exists()


def test_a_process_killed_while_muxing_leaves_no_partial_file(tmp_path: Path) -> None:
    path = Film(sounds=SOUNDS).write(tmp_path / "a.mkv")
    info = films.info_of(path)
    settings, target = films.settings_of(info), tmp_path / "b.mkv"
    films.upscaled(target, settings, films.times_of(path, 0)).close()
    command = [sys.executable, "-c", KILLED, str(path), str(target)]
    done = subprocess.run(command, cwd=Path(__file__).parents[3], check=False)
    assert done.returncode == -signal.SIGKILL
    assert not target.exists()
    with TranscodeJob(target, {}, resume=True) as job:
        films.write(job, path, info, settings, target)
        job.remove()
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mkv", "b.mkv"]
    assert len(probe(target).streams[0].packets) == 50


KILLED = """
import os, signal, sys
from pathlib import Path
from sr_deploy.video import mux
from sr_deploy.video.job import TranscodeJob
from sr_deploy.video.source import FrameSelection
from tests.sr_deploy.video import films

def some(pictures, others):
    yield next(pictures)[1]
    os.kill(os.getpid(), signal.SIGKILL)

mux.interleaved = some
source, target = map(Path, sys.argv[1:])
info = films.info_of(source)
with TranscodeJob(target, {}, resume=True) as job:
    films.write(job, source, info, films.settings_of(info), target)
"""


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov", ".webm"])
def test_the_same_job_gives_the_same_file(tmp_path: Path, suffix: str) -> None:
    film = RICH if suffix == ".mkv" else replace(RICH, subtitles=(), attachments={}, cover=False)
    encoder = "libx264"
    if suffix == ".webm":
        film, encoder = replace(film, sounds=[OPUS]), "libvpx-vp9"
    path = film.write(tmp_path / "a.mkv")
    results = []
    for name in ("b", "c"):
        target = tmp_path / f"{name}{suffix}"
        assembled(path, target, encoder=encoder, aspect=Fraction(4, 3))
        results.append(target.read_bytes())
    assert results[0] == results[1]


def test_an_mp4_can_be_played_from_its_beginning(tmp_path: Path) -> None:
    path = Film(sounds=SOUNDS).write(tmp_path / "a.mp4")
    assembled(path, tmp_path / "b.mp4")
    data = (tmp_path / "b.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
