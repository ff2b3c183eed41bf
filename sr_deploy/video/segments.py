"""Encoded pictures on the disk: a file per segment, read back without trust and packet by packet.

A file is a magic number, the encoder's global header with its length before it, and the packets:
pts, duration, size and a flag before each one's data. The journal holds its hash.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING, BinaryIO

from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video.packets import Packet

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

_MAGIC = b"SRSEG\x00\x01\n"
_LENGTH = struct.Struct("<I")
_HEAD = struct.Struct("<qqIB")


def write(path: Path, extradata: bytes, packets: Iterable[Packet]) -> tuple[str, list[int]]:
    """Write a segment and return its SHA-256, and when each picture is shown.

    Raises:
        InvalidInputError: there are no packets, or the first is no keyframe.
    """
    digest = hashlib.sha256()
    pts: list[int] = []
    with path.open("wb") as file:
        for piece in _pieces(extradata, packets, pts):
            digest.update(piece)
            file.write(piece)
    return digest.hexdigest(), pts


def _pieces(extradata: bytes, packets: Iterable[Packet], pts: list[int]) -> Iterator[bytes]:
    yield _MAGIC + _LENGTH.pack(len(extradata)) + extradata
    for packet in packets:
        if not pts and not packet.keyframe:
            raise InvalidInputError("a segment must begin with a keyframe; restart the encoder")
        pts.append(packet.pts)
        yield _HEAD.pack(packet.pts, packet.duration, len(packet.data), packet.keyframe)
        yield packet.data
    if not pts:
        raise InvalidInputError("a segment must hold a picture")


def read_extradata(path: Path) -> bytes:
    """Return the encoder's global header.

    Raises:
        VideoError: the file is no segment.
    """
    with path.open("rb") as file:
        return _extradata(file, path)


def read_pts(path: Path) -> list[int]:
    """Return when each picture is shown, in the order of decoding.

    Raises:
        VideoError: the file is no segment, or ends early.
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


def read(path: Path, sha256: str) -> Iterator[Packet]:
    """Yield the packets.

    Raises:
        VideoError: the file is not the one that was written; known at the latest at its end.
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
            yield Packet(data, pts, duration, keyframe=bool(keyframe))
    if digest.hexdigest() != sha256:
        raise _damaged(path)


def _extradata(file: BinaryIO, path: Path) -> bytes:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _damaged(path)
    return _exactly(file, _LENGTH.unpack(_exactly(file, _LENGTH.size, path))[0], path)


def _exactly(file: BinaryIO, size: int, path: Path) -> bytes:
    # The size is compared first: a damaged one must not ask for gigabytes of memory.
    if size > path.stat().st_size - file.tell():
        raise _damaged(path)
    data = file.read(size)
    if len(data) != size:
        raise _damaged(path)
    return data


def _damaged(path: Path) -> VideoError:
    return VideoError(f"{path}: not what was written there; begin the job again with --overwrite")
