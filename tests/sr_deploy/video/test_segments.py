from __future__ import annotations

from pathlib import Path

import pytest

from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video import segments
from sr_deploy.video.packets import Packet

PACKETS = [
    Packet(b"key", 10, 5, keyframe=True),
    Packet(b"", -(1 << 40), 0, keyframe=False),
    Packet(bytes(3000), 15, 5, keyframe=False),
]


@pytest.fixture
def segment(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "0.packets"
    sha256, _ = segments.write(path, b"header", PACKETS)
    return path, sha256


def test_what_was_written_is_read(segment: tuple[Path, str]) -> None:
    path, sha256 = segment
    assert list(segments.read(path, sha256)) == PACKETS
    assert segments.read_pts(path) == [each.pts for each in PACKETS]
    assert segments.read_extradata(path) == b"header"


def test_every_flipped_bit_is_found(segment: tuple[Path, str]) -> None:
    path, sha256 = segment
    whole = path.read_bytes()
    for place in [*range(120), *range(120, len(whole), 97)]:
        damaged = bytearray(whole)
        damaged[place] ^= 0x41
        path.write_bytes(damaged)
        with pytest.raises(VideoError, match="not what was written"):
            list(segments.read(path, sha256))


def test_a_segment_cut_anywhere_is_found(segment: tuple[Path, str]) -> None:
    path, sha256 = segment
    whole = path.read_bytes()
    for length in [*range(120), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(VideoError, match="not what was written"):
            list(segments.read(path, sha256))


def test_a_cut_segment_gives_no_times(segment: tuple[Path, str]) -> None:
    path, _ = segment
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VideoError, match="not what was written"):
        segments.read_pts(path)


@pytest.mark.parametrize("packets", [[], PACKETS[1:]])
def test_a_segment_must_stand_alone(tmp_path: Path, packets: list[Packet]) -> None:
    with pytest.raises(InvalidInputError, match="segment must"):
        segments.write(tmp_path / "0.packets", b"", packets)
