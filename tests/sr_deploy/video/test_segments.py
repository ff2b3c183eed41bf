from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video import segments
from sr_deploy.video.segments import EncodedPacket, decoding_times, reordering_depth

PACKETS = [
    EncodedPacket(b"key", 10, 5, keyframe=True),
    EncodedPacket(b"", -(1 << 40), 0, keyframe=False),
    EncodedPacket(bytes(3000), 15, 5, keyframe=False),
]


@pytest.fixture
def segment(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "0.packets"
    sha256, _ = segments.write(path, b"header", PACKETS)
    return path, sha256


def test_a_segment_is_read_back(segment: tuple[Path, str]) -> None:
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
        with pytest.raises(VideoError, match=r"0\.packets"):
            list(segments.read(path, sha256))


def test_every_truncation_of_a_segment_is_found(segment: tuple[Path, str]) -> None:
    path, sha256 = segment
    whole = path.read_bytes()
    for length in [*range(120), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(VideoError, match=r"0\.packets"):
            list(segments.read(path, sha256))


def test_a_truncated_segment_has_no_times(segment: tuple[Path, str]) -> None:
    path, _ = segment
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(VideoError, match=r"0\.packets"):
        segments.read_pts(path)


@pytest.mark.parametrize("packets", [[], PACKETS[1:]])
def test_a_segment_must_stand_alone(tmp_path: Path, packets: list[EncodedPacket]) -> None:
    with pytest.raises(InvalidInputError, match="segment"):
        segments.write(tmp_path / "0.packets", b"", packets)


@pytest.mark.parametrize(
    ("pts", "depth"),
    [
        ([], 0),
        ([7], 0),
        ([0, 1, 2], 0),
        ([0, 2, 1, 4, 3], 1),
        ([0, 4, 2, 1, 3], 2),
        ([0, 8, 4, 2, 1, 3, 6, 5, 7], 3),
    ],
)
def test_reordering_depth(pts: list[int], depth: int) -> None:
    assert reordering_depth(pts) == depth


def test_without_reordering_a_picture_is_decoded_when_it_is_shown() -> None:
    assert list(decoding_times([[0, 3, 5], [9]], 0)) == [0, 3, 5, 9]


def test_with_reordering_decoding_begins_earlier_by_the_first_distance() -> None:
    assert list(decoding_times([[0, 4, 2], [6, 8]], 1)) == [-2, 0, 2, 4, 6]


def test_one_picture_is_decoded_before_it_is_shown() -> None:
    assert list(decoding_times([[5]], 2)) == [3]


def test_any_video_is_decoded_in_order_and_in_time() -> None:
    chance = random.Random(4)
    for _ in range(200):
        segments = _video(chance)
        depth = max(map(reordering_depth, segments))
        times = list(decoding_times(segments, depth))
        shown = list(itertools.chain.from_iterable(segments))
        assert len(times) == len(shown)
        assert all(a < b for a, b in itertools.pairwise(times))
        assert all(dts <= pts for dts, pts in zip(times, shown, strict=True))
        # No later than needed: the shift is the depth and no more.
        assert times[depth:] == sorted(shown)[: len(shown) - depth]


def _video(chance: random.Random) -> list[list[int]]:
    """Return segments of uneven times, each beginning with its first picture, then in disorder."""
    segments = []
    time = chance.randrange(-50, 1000)
    for _ in range(chance.randrange(1, 5)):
        pts = []
        for _ in range(chance.randrange(1, 12)):
            pts.append(time)
            time += chance.randrange(1, 100)
        rest = pts[1:]
        chance.shuffle(rest)
        segments.append([pts[0], *rest])
    return segments
