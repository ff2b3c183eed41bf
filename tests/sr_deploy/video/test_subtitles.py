from __future__ import annotations

import struct

import pytest

from sr_deploy.video.subtitles import to_subrip

WHITE = b"\xff\xff\xff\xff"
DESCRIPTION = bytes(18) + struct.pack(">HHHBB4s", 0, 0, 1, 0, 18, WHITE) + b"ftab"


def sample(text: bytes, *boxes: bytes) -> bytes:
    return struct.pack(">H", len(text)) + text + b"".join(boxes)


def styles(*records: tuple[int, int, int, bytes]) -> bytes:
    body = b"".join(
        struct.pack(">HHHBB4s", start, end, 1, face, 18, color)
        for start, end, face, color in records
    )
    return box(b"styl", struct.pack(">H", len(records)) + body)


def box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (sample(b""), ""),
        (sample(b"Hello\nyou"), "Hello\nyou"),
        (sample(b"a\r\nb\rc"), "a\nb\nc"),
        (sample("\u00e9t\u00e9 \u2665".encode()), "\u00e9t\u00e9 \u2665"),
        (sample(b"\xfe\xff\0H\0i"), "Hi"),
        (sample(b"5 < 6"), "5 < 6"),
        (sample(b"one two", styles((0, 3, 1, WHITE))), "<b>one</b> two"),
        (
            sample("\u00e9ins zwei drei".encode(), styles((5, 9, 6, WHITE), (10, 14, 0, WHITE))),
            "\u00e9ins <i><u>zwei</u></i> drei",
        ),
        (sample(b"x", styles((0, 1, 0, WHITE))), "x"),
    ],
)
def test_conversion_to_subrip(data: bytes, text: str) -> None:
    assert to_subrip(data, DESCRIPTION) == text


@pytest.mark.parametrize(
    "data",
    [
        sample(b"red", styles((0, 3, 0, b"\xff\0\0\xff"))),
        sample(b"<i>literally</i>"),
        sample(b"{\\an8}literally"),
        sample(b"karaoke", box(b"krok", bytes(10))),
        sample(b"here", box(b"tbox", bytes(8))),
    ],
)
def test_styles_without_subrip_are_not_converted(data: bytes) -> None:
    assert to_subrip(data, DESCRIPTION) is None


def test_a_style_without_a_default_is_not_converted() -> None:
    assert to_subrip(sample(b"x", styles((0, 1, 0, WHITE))), b"") is None


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_truncated_subtitle_does_not_raise(cut: int) -> None:
    to_subrip(sample(b"one two", styles((0, 3, 1, WHITE)))[:cut], DESCRIPTION)
