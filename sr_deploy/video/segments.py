"""Segments of encoded video on disk, read back packet by packet and without trust.

A file holds a magic number, the encoder's global header after its length, and the packets: pts,
duration, size and a flag before each one's data. The journal holds its hash.
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from sr_deploy.errors import InvalidInputError, VideoError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

_MAGIC = b"SRSEG\x00\x01\n"
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<qqIB")


@dataclass(frozen=True)
class EncodedPacket:
    """One encoded picture.

    It has no decoding time: that is computed for the whole video when the file is written, so
    that a video encoded in segments equals one that was not.

    Attributes:
        data: The encoded picture.
        pts: Presentation time in the time base of the source's stream.
        duration: In the same time base; 0 if unknown.
        keyframe: Decodable without the packets before it.
    """

    data: bytes
    pts: int
    duration: int
    keyframe: bool


def write(path: Path, extradata: bytes, packets: Iterable[EncodedPacket]) -> tuple[str, list[int]]:
    """Write a segment and return its SHA-256 and the presentation times.

    Raises:
        InvalidInputError: There are no packets, or the first is no keyframe.
    """
    pts: list[int] = []
    head = _MAGIC + _LENGTH.pack(len(extradata)) + extradata
    digest = hashlib.sha256(head)
    with path.open("wb") as file:
        file.write(head)
        for packet in packets:
            if not pts and not packet.keyframe:
                raise InvalidInputError("a segment must begin with a keyframe; restart the encoder")
            pts.append(packet.pts)
            head = _HEAD.pack(packet.pts, packet.duration, len(packet.data), packet.keyframe)
            for piece in (head, packet.data):
                digest.update(piece)
                file.write(piece)
    if not pts:
        raise InvalidInputError("a segment must hold at least one picture")
    return digest.hexdigest(), pts


def read_extradata(path: Path) -> bytes:
    """Return the encoder's global header.

    Raises:
        VideoError: The file is no segment.
    """
    with path.open("rb") as file:
        return _extradata(file, path)


def read_pts(path: Path) -> list[int]:
    """Return the presentation times, in decoding order.

    Raises:
        VideoError: The file is no segment, or is truncated.
    """
    pts = []
    with path.open("rb") as file:
        end = path.stat().st_size
        _extradata(file, path)
        while file.tell() < end:
            time, _, size, _ = _HEAD.unpack(_exactly(file, _HEAD.size, path))
            if file.seek(size, 1) > end:
                raise _damaged(path)
            pts.append(time)
    return pts


def read(path: Path, sha256: str) -> Iterator[EncodedPacket]:
    """Yield the packets.

    Raises:
        VideoError: The file is not the one that was written; known at its end at the latest.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        extradata = _extradata(file, path)
        digest.update(_MAGIC + _LENGTH.pack(len(extradata)) + extradata)
        while head := file.read(_HEAD.size):
            if len(head) < _HEAD.size:
                raise _damaged(path)
            pts, duration, size, keyframe = _HEAD.unpack(head)
            data = _exactly(file, size, path)
            digest.update(head)
            digest.update(data)
            yield EncodedPacket(data, pts, duration, keyframe=bool(keyframe))
    if digest.hexdigest() != sha256:
        raise _damaged(path)


def _extradata(file: BinaryIO, path: Path) -> bytes:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _damaged(path)
    return _exactly(file, _LENGTH.unpack(_exactly(file, _LENGTH.size, path))[0], path)


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    # The size is compared first: a damaged one must not ask for gigabytes of memory.
    data = b"" if size > path.stat().st_size - file.tell() else file.read(size)
    if len(data) != size:
        raise _damaged(path)
    return data


def _damaged(path: Path) -> VideoError:
    return VideoError(f"{path}: the segment is damaged; begin the job again with --overwrite")


def reordering_depth(pts: Sequence[int]) -> int:
    """Return by how many places at most a picture is decoded after its place in display order.

    Args:
        pts: Presentation times in decoding order.
    """
    ranks = {time: rank for rank, time in enumerate(sorted(pts))}
    return max((place - ranks[time] for place, time in enumerate(pts)), default=0)


def decoding_times(segments: Iterable[Sequence[int]], depth: int) -> Iterator[int]:
    """Yield the decoding time of each picture of a video.

    These are the sorted presentation times, `depth` places later: every picture is decoded in
    time, however uneven the times are. The distance of the first two continues before the first.

    Args:
        segments: Presentation times of each segment. All differ, and segments do not overlap.
        depth: The largest `reordering_depth` of the segments.
    """
    waiting: deque[int] | None = None
    for segment in segments:
        shown = sorted(segment)
        if waiting is None:
            step = shown[1] - shown[0] if len(shown) > 1 else 1
            waiting = deque(shown[0] - step * place for place in range(depth, 0, -1))
        waiting.extend(shown)
        for _ in shown:
            yield waiting.popleft()
