"""Patches to the header of a Matroska file for what PyAV cannot tell FFmpeg's muxer.

The muxer leaves an empty element behind its index of the header. The track list grows into it, so
that nothing behind the header moves.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_EBML, _SEGMENT = 0x1A45DFA3, 0x18538067
_SEEK_HEAD, _SEEK, _SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AC
_TRACKS, _TRACK, _TRACK_NUMBER, _CODEC_DELAY = 0x1654AE6B, 0xAE, 0xD7, 0x56AA
_VIDEO, _DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT = 0xE0, 0x54B0, 0x54BA, 0x54B2
_ADDITION_ID, _CRC, _VOID = 0x55EE, 0xBF, 0xEC
_LARGEST_HEADER = 16 << 20


@dataclass(frozen=True)
class TrackPatch:
    """Changes to a track's header.

    Attributes:
        display: Width and height of the picture for display; None for no change.
        delay: Nanoseconds of decoded sound before its beginning; None for no change.
    """

    display: tuple[int, int] | None = None
    delay: int | None = None


@dataclass(frozen=True)
class _Element:
    name: int
    start: int
    end: int
    body: bytes

    @property
    def number(self) -> int:
        return int.from_bytes(self.body, "big")


def announced_size(head: bytes) -> int | None:
    """Return the file size that the first bytes of a file announce; None if they do not."""
    try:
        name, place = _variable(head, 0, marker=True)
        size, place = _variable(head, place, marker=False)
        place += size
        segment, place = _variable(head, place, marker=True)
        size, end = _variable(head, place, marker=False)
    except IndexError:
        return None
    unknown = size == (1 << (7 * (end - place))) - 1
    return None if (name, segment) != (_EBML, _SEGMENT) or unknown else end + size


def tracks_with_delay(header: bytes) -> set[int]:
    """Return the numbers of the tracks whose delay the muxer has written itself."""
    _, children = _segment(header)
    return {
        _number(track)
        for track in _elements(children[-1].body)
        if track.name == _TRACK and any(e.name == _CODEC_DELAY for e in _elements(track.body))
    }


def patch(path: Path, patches: Mapping[int, TrackPatch]) -> None:
    """Patch tracks, by their numbers, of a file that FFmpeg wrote.

    Raises:
        VideoError: The header is not as FFmpeg writes it, or has no room.
    """
    with path.open("r+b") as file:
        header = file.read(_LARGEST_HEADER)
        base, children = _segment(header)
        names = [each.name for each in children]
        if names[:2] != [_SEEK_HEAD, _VOID]:
            raise VideoError(f"{path}: this version of PyAV writes an unknown header layout")
        seek_head, void, *_, tracks = children
        new = _element(_TRACKS, _with_checksum(_patched(tracks.body, patches)))
        growth = len(new) - (tracks.end - tracks.start)
        moved = range(void.end - base, tracks.start - base + 1)
        index = _element(_SEEK_HEAD, _with_checksum(_moved(seek_head.body, moved, -growth)))
        file.seek(seek_head.start)
        file.write(index + _void(void.end - growth - seek_head.start - len(index)))
        file.write(header[void.end : tracks.start])
        file.write(new)


def _patched(tracks: bytes, patches: Mapping[int, TrackPatch]) -> bytes:
    return b"".join(
        _element(_TRACK, _patched_track(each, patches.get(_number(each), TrackPatch())))
        for each in _elements(tracks)
        if each.name == _TRACK
    )


def _patched_track(track: _Element, patch_: TrackPatch) -> bytes:
    body = b""
    for each in _elements(track.body):
        if each.name == _VIDEO and patch_.display is not None:
            body += _element(_VIDEO, _patched_video(each, patch_.display))
        elif each.name != _VOID and (each.name != _ADDITION_ID or each.number):
            # Empty elements and explicit defaults are dropped to make room.
            body += _element(each.name, each.body)
    if patch_.delay is not None:
        body += _integer(_CODEC_DELAY, patch_.delay)
    return body


def _patched_video(video: _Element, display: tuple[int, int]) -> bytes:
    old = (_DISPLAY_WIDTH, _DISPLAY_HEIGHT, _DISPLAY_UNIT)
    kept = [_element(e.name, e.body) for e in _elements(video.body) if e.name not in old]
    width, height = display
    new = [_integer(_DISPLAY_WIDTH, width), _integer(_DISPLAY_HEIGHT, height)]
    return b"".join(kept + new)


def _moved(seek_head: bytes, moved: range, by: int) -> bytes:
    """Return the index of the header after the elements in a range of positions have moved."""
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


def _with_checksum(body: bytes) -> bytes:
    """Return the content of an element after its checksum."""
    return _element(_CRC, zlib.crc32(body).to_bytes(4, "little")) + body


def _segment(header: bytes) -> tuple[int, list[_Element]]:
    """Return the offset of the segment's content, and its elements up to the tracks."""
    segment = next((each for each in _elements(header) if each.name == _SEGMENT), None)
    if segment is None:
        raise VideoError("not a Matroska file")
    base = segment.end - len(segment.body)
    children = []
    for each in _elements(segment.body, base):
        children.append(each)
        if each.name == _TRACKS:
            return base, children
    raise VideoError("the Matroska file has no tracks")


def _number(track: _Element) -> int:
    return next(each.number for each in _elements(track.body) if each.name == _TRACK_NUMBER)


def _elements(data: bytes, offset: int = 0) -> Iterator[_Element]:
    """Yield the elements of content at `offset` of the file; the last may be truncated."""
    place = 0
    while place < len(data):
        name, body = _variable(data, place, marker=True)
        size, body = _variable(data, body, marker=False)
        end = min(len(data), body + size)
        yield _Element(name, offset + place, offset + end, data[body:end])
        place = end


def _variable(data: bytes, place: int, *, marker: bool) -> tuple[int, int]:
    """Return a number of variable length, and its end."""
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
    """Return an empty element of exactly `size` bytes."""
    if size < 2:
        raise VideoError("the header of the Matroska file has no room for the patch")
    length = 1 if size < 100 else 8
    return _element(_VOID, bytes(size - 1 - length), length)
