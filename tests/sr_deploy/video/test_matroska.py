from __future__ import annotations

import zlib
from fractions import Fraction
from pathlib import Path

import av
import pytest

from sr_deploy.errors import VideoError
from sr_deploy.video.matroska import TrackPatch, patch, tracks_with_delay
from tests.sr_deploy.video import clips
from tests.sr_deploy.video.films import Film, Sound
from tests.sr_deploy.video.probe import probe

FILM = Film(
    clip=clips.Clip(count=30, options={"g": "5"}),
    sounds=[Sound("eng", codec="flac"), Sound("deu", codec="flac")],
    chapters=("One",),
    attachments={"font.ttf": bytes(5000)},
    tags={"title": "x" * 300},
)


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return FILM.write(tmp_path / "a.mkv")


def test_a_patched_file_has_the_patch_and_is_otherwise_the_same(film: Path) -> None:
    before, size = probe(film), film.stat().st_size
    patch(film, {1: TrackPatch(display=(160, 90)), 3: TrackPatch(delay=25_000_000)})
    after = probe(film)
    assert film.stat().st_size == size
    assert after.streams[0].aspect == Fraction(160 * 48, 90 * 64)
    assert after.streams[1].pts == before.streams[1].pts
    shifted = [each + Fraction(25, 1000) for each in after.streams[2].pts]
    assert shifted == before.streams[2].pts
    assert tracks_with_delay(film.read_bytes()) == {3}
    assert [each.contents for each in after.streams] == [each.contents for each in before.streams]
    assert (after.chapters, after.tags) == (before.chapters, before.tags)
    assert after.streams[3].attachment == bytes(5000)


def test_seeking_works_after_a_patch(film: Path) -> None:
    """After the header has moved, a reader can still jump by the file's index."""
    patch(film, {1: TrackPatch(display=(160, 90))})
    with av.open(str(film)) as container:
        container.seek(1_000_000)
        packet = next(container.demux(video=0))
        assert packet.is_keyframe
        assert packet.pts is not None
        assert 500 < packet.pts <= 1000


def test_checksums_are_right(film: Path) -> None:
    patch(film, {1: TrackPatch(display=(160, 90)), 2: TrackPatch(delay=1)})
    data = film.read_bytes()
    first_cluster = data.index(b"\x1f\x43\xb6\x75")
    for name in (b"\x11\x4d\x9b\x74", b"\x16\x54\xae\x6b"):  # SeekHead, Tracks
        place = data.rindex(name, 0, first_cluster) + 4
        length = 9 - data[place].bit_length()
        size = int.from_bytes(data[place : place + length], "big") & ~(1 << 7 * length)
        body = data[place + length : place + length + size]
        assert body[:2] == b"\xbf\x84"
        assert int.from_bytes(body[2:6], "little") == zlib.crc32(body[6:])


def test_patching_twice_works(film: Path) -> None:
    for height in (90, 100):
        patch(film, {1: TrackPatch(display=(160, height))})
        assert probe(film).streams[0].aspect == Fraction(160 * 48, height * 64)


def test_there_is_room_for_many_tracks(tmp_path: Path) -> None:
    film = Film(clip=clips.Clip(count=2), sounds=[Sound("eng", codec="flac")] * 12, seconds=0.2)
    path = film.write(tmp_path / "a.mkv")
    delays = {number: TrackPatch(delay=4_000_000_000) for number in range(2, 14)}
    patch(path, {1: TrackPatch(display=(1 << 24, 1 << 24)), **delays})
    assert tracks_with_delay(path.read_bytes()) == set(range(2, 14))
    assert probe(path).streams[12].pts[0] == -4


def test_a_patch_without_room_is_refused(film: Path) -> None:
    with pytest.raises(VideoError, match="no room"):
        patch(film, {1: TrackPatch(display=(1 << 800, 1))})


@pytest.mark.parametrize("data", [b"\x1a\x45\xdf\xa3\x80", b"\x18\x53\x80\x67\x80", bytes(0)])
def test_another_file_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "a.mkv"
    path.write_bytes(data)
    with pytest.raises(VideoError, match="Matroska"):
        patch(path, {})
