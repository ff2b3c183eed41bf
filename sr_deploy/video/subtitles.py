"""Conversion of MP4's subtitles (3GPP timed text) to SubRip, for Matroska, without loss.

A text of MP4 has boxes of style. SubRip has bold, italic and underlined; subtitles with other
styles are not converted.
"""

from __future__ import annotations

import io
import re
import struct
from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    from collections.abc import Iterator

_LENGTH = struct.Struct(">H")
_BOX = struct.Struct(">I4s")
_STYLE = struct.Struct(">HHHBB4s")
_DEFAULT_STYLE = 18
"""Its offset in the track's description."""
_FACES = {1: "b", 2: "i", 4: "u"}
_MARKUP = re.compile(r"</?[a-zA-Z]|\{\\")
"""Text that readers of SubRip take for a command."""


def to_subrip(sample: bytes, description: bytes) -> str | None:
    """Return a subtitle as SubRip; None if SubRip cannot express it.

    Args:
        sample: Packet of FFmpeg's `mov_text`.
        description: Extradata of its stream.
    """
    if len(sample) < _LENGTH.size:
        return ""
    end = _LENGTH.size + _LENGTH.unpack_from(sample)[0]
    encoded = sample[_LENGTH.size : end]
    encoding = "utf-16" if encoded[:2] in (b"\xfe\xff", b"\xff\xfe") else "utf-8"
    text = encoded.decode(encoding, "replace")
    styles: list[tuple[int, int, int]] = []
    for name, body in _boxes(sample[end:]):
        found = _styles(body, description) if name == b"styl" else None
        if found is None:
            return None
        styles += found
    if _MARKUP.search(text):
        return None
    return _marked(text, styles).replace("\r\n", "\n").replace("\r", "\n")


def subrip_template() -> Any:
    """Return an open file with one SubRip stream."""
    return av.open(io.BytesIO(b"1\n00:00:00,000 --> 00:00:01,000\n-\n\n"), format="srt")


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 0
    while place + _BOX.size <= len(data):
        size, name = _BOX.unpack_from(data, place)
        size = max(size, _BOX.size)
        yield name, data[place + _BOX.size : place + size]
        place += size


def _styles(body: bytes, description: bytes) -> list[tuple[int, int, int]] | None:
    """Return start, end and face of each style; None if font, size or color change, too."""
    if len(description) < _DEFAULT_STYLE + _STYLE.size:
        return None
    _, _, font, face, size, color = _STYLE.unpack_from(description, _DEFAULT_STYLE)
    count = min(_LENGTH.unpack(body[:2])[0], (len(body) - 2) // _STYLE.size) if body[1:] else 0
    found = []
    for number in range(count):
        each = _STYLE.unpack_from(body, _LENGTH.size + number * _STYLE.size)
        if face or (each[2], each[4], each[5]) != (font, size, color):
            return None
        found.append((each[0], each[1], each[3]))
    return found


def _marked(text: str, styles: list[tuple[int, int, int]]) -> str:
    """Return a text with tags around its styles, which do not overlap."""
    marked = ""
    place = 0
    for start, end, face in sorted(styles):
        tags = [tag for bit, tag in _FACES.items() if face & bit]
        marked += text[place:start] + "".join(f"<{tag}>" for tag in tags)
        marked += text[start:end] + "".join(f"</{tag}>" for tag in reversed(tags))
        place = end
    return marked + text[place:]
