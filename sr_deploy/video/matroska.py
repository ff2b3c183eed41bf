"""What FFmpeg's writer of Matroska cannot be told through PyAV, put into the finished header.

That writer leaves an empty element behind the list of what is where. The header's tracks grow
into it: nothing behind them moves.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_SEGMENT, _SEEK_HEAD, _SEEK, _SEEK_POSITION = 0x18538067, 0x114D9B74, 0x4DBB, 0x53AC
_TRACKS, _TRACK, _TRACK_NUMBER, _CODEC_DELAY = 0x1654AE6B, 0xAE, 0xD7, 0x56AA
_VIDEO, _DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0xE0, 0x54B0, 0x54BA, 0x54B2
_ADDITION_ID, _CRC, _VOID = 0x55EE, 0xBF, 0xEC
_LARGEST_HEADER = 16 << 20


@dataclass(frozen=True)
class Amendment:
    """What is to be said of a track."""

    display: tuple[int, int] | None = None
    """Width and height of the picture as it is shown."""
    delay: int | None = None
    """Nanoseconds that the decoder gives before the sound begins."""


@dataclass(frozen=True)
class _Element:
    name: int
    start: int
    end: int
    body: bytes

    @property
    def number(self) -> int:
        return int.from_bytes(self.body, "big")


def tracks_with_delay(header: bytes) -> set[int]:
    """Return the numbers of the tracks for which the writer itself says a delay."""
    _, children = _segment(header)
    return {
        _number(track)
        for track in _elements(children[-1].body)
        if track.name == _TRACK and any(e.name == _CODEC_DELAY for e in _elements(track.body))
    }


def amend(path: Path, amendments: Mapping[int, Amendment]) -> None:
    """Amend tracks, by their numbers, of a file that FFmpeg wrote.

    Raises:
        VideoError: the header is not as FFmpeg writes it, or has no room.
    """
    with path.open("r+b") as file:
        header = file.read(_LARGEST_HEADER)
        base, children = _segment(header)
        names = [each.name for each in children]
        if names[:2] != [_SEEK_HEAD, _VOID]:
            raise VideoError(f"{path}: PyAV wrote another header than this version knows")
        seek_head, void, *_, tracks = children
        new = _element(_TRACKS, _sealed(_amended(tracks.body, amendments)))
        growth = len(new) - (tracks.end - tracks.start)
        moved = range(void.end - base, tracks.start - base + 1)
        index = _element(_SEEK_HEAD, _sealed(_moved(seek_head.body, moved, -growth)))
        file.seek(seek_head.start)
        file.write(index + _void(void.end - growth - seek_head.start - len(index)))
        file.write(header[void.end : tracks.start])
        file.write(new)


def _amended(tracks: bytes, amendments: Mapping[int, Amendment]) -> bytes:
    return b"".join(
        _element(_TRACK, _amended_track(each, amendments.get(_number(each), Amendment())))
        for each in _elements(tracks)
        if each.name == _TRACK
    )


def _amended_track(track: _Element, amendment: Amendment) -> bytes:
    body = b""
    for each in _elements(track.body):
        if each.name == _VIDEO and amendment.display is not None:
            body += _element(_VIDEO, _amended_video(each, amendment.display))
        elif each.name != _VOID and (each.name != _ADDITION_ID or each.number):
            # What is left out is empty or says what is so by default: room for the rest.
            body += _element(each.name, each.body)
    if amendment.delay is not None:
        body += _integer(_CODEC_DELAY, amendment.delay)
    return body


def _amended_video(video: _Element, display: tuple[int, int]) -> bytes:
    old = (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
    kept = [_element(e.name, e.body) for e in _elements(video.body) if e.name not in old]
    width, height = display
    new = [_integer(_DISPLAY_WIDTH, width), _integer(_DISPLAY_HEIGHT, height)]
    return b"".join(kept + new)


def _moved(seek_head: bytes, moved: range, by: int) -> bytes:
    """Return the list of what is where, after what lies in a range of it has moved."""
    body = b""
    for seek in _elements(seek_head):
        if seek.name != _SEEK:
            continue
        entry = b""
        for each in _elements(seek.body):
            is_moved = each.name == _SEEK_POSITION and each.number in moved
            entry += _integer(each.name, each.number + by if is_moved else each.number)
        body += _element(_SEEK, entry)
    return body


def _sealed(body: bytes) -> bytes:
    """Put the checksum before the content of an element."""
    return _element(_CRC, zlib.crc32(body).to_bytes(4, "little")) + body


def _segment(header: bytes) -> tuple[int, list[_Element]]:
    """Return where the segment's content begins, and its elements up to the tracks."""
    segment = next((each for each in _elements(header) if each.name == _SEGMENT), None)
    if segment is None:
        raise VideoError("not a Matroska file")
    base = segment.end - len(segment.body)
    children = []
    for each in _elements(segment.body, base):
        children.append(each)
        if each.name == _TRACKS:
            return base, children
    raise VideoError("a Matroska file without tracks")


def _number(track: _Element) -> int:
    return next(each.number for each in _elements(track.body) if each.name == _TRACK_NUMBER)


def _elements(data: bytes, offset: int = 0) -> Iterator[_Element]:
    """Yield the elements of a content that begins at `offset` of the file; the last may be cut."""
    place = 0
    while place < len(data):
        name, body = _variable(data, place, marker=True)
        size, body = _variable(data, body, marker=False)
        end = min(len(data), body + size)
        yield _Element(name, offset + place, offset + end, data[body:end])
        place = end


def _variable(data: bytes, place: int, *, marker: bool) -> tuple[int, int]:
    """Read a number of variable length; return it and where it ends."""
    length = 9 - data[place].bit_length()
    value = int.from_bytes(data[place : place + length], "big")
    return value if marker else value & ~(1 << (7 * length)), place + length


def _element(name: int, body: bytes, length: int | None = None) -> bytes:
    length = length or -(-(len(body) + 2).bit_length() // 7)
    size = (len(body) | 1 << (7 * length)).to_bytes(length, "big")
    return name.to_bytes(-(-name.bit_length() // 8), "big") + size + body


def _integer(name: int, value: int) -> bytes:
    return _element(name, value.to_bytes(max(1, -(-value.bit_length() // 8)), "big"))


def _void(size: int) -> bytes:
    """Return an empty element of exactly so many bytes."""
    if size < 2:
        raise VideoError("the header of the Matroska file has no room for what is to be added")
    length = 1 if size < 100 else 8
    return _element(_VOID, bytes(size - 1 - length), length)
