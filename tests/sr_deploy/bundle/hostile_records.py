"""JSON records that are made to harm, from an honest one: none may be accepted, and none crashes.

`hostile` takes the text of any record of ours: manifests, plan records, tuning records, journals.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

DIGITS = "9" * 5000
"""More than Python converts to an integer."""
FAR = "1" + "0" * 400
"""An integer beyond all floats."""
# No field takes them; texts of JSON, because Python could not write some.
VALUES = {
    "digits": DIGITS,
    "minus digits": f"-{DIGITS}",
    "far": FAR,
    "minus far": f"-{FAR}",
    "65 bits": str(1 << 65),
    "infinite": "1e999",
    "Infinity": "Infinity",
    "minus Infinity": "-Infinity",
    "NaN": "NaN",
    "half a character": '"\\ud800"',
    "other half": '"a\\udfffb"',
    "lists": "[[]]",
    "object": '{"": {"": null}}',
    "deep list": "[" * 900 + "]" * 900,
    "deeper list": "[" * 30_000 + "]" * 30_000,
    "deep object": '{"a":' * 900 + "0" + "}" * 900,
    "twice": '{"a": "x", "a": "y"}',
}
_MARK = "the place of the value"


def hostile(text: str, count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield named records: whole files that are wrong, then `count` with one wrong value.

    Args:
        text: An honest record.
        count: Number of wrong values.
        seed: Seed of their places.
    """
    yield from _files(text)
    chosen = random.Random(seed)
    honest = json.loads(text)
    places = list(_places(honest))
    for number in range(count):
        place = chosen.choice(places)
        name = list(VALUES)[number % len(VALUES)]
        yield f"{number} {name} at {place}", _with(honest, place, VALUES[name]).encode()


def _files(text: str) -> Iterator[tuple[str, bytes]]:
    content = text.strip().encode()
    yield "empty", b""
    yield "NUL", b"\0" * 100
    yield "NUL inside", content.replace(b'"', b'"\0', 1)
    yield "blank", b" " * 1000
    yield "marked", b"\xef\xbb\xbf" + content
    yield "UTF-16", text.encode("utf-16")
    yield "UTF-32", text.encode("utf-32")
    yield "Latin-1", content.replace(b'"', b'"\xff', 1)
    yield "surrogate", content.replace(b'"', b'"\xed\xa0\x80', 1)
    yield "two values", content + content
    yield "no object", b"[" + content + b"]"
    yield "open lists", b"[" * 60_000
    yield "open objects", b'{"a":' * 10_000
    yield "only digits", DIGITS.encode()
    yield "an unknown field", b'{"unknown": 0,' + content[1:]
    yield "an unknown long field", b'{"' + b"\\u001b[2J" * 4000 + b'": 0,' + content[1:]
    yield "schema twice", b'{"schema": 1,' + content[1:]
    yield "schema true", content.replace(b'"schema": ', b'"schema": true, "_": ', 1)
    for share in range(1, 10):
        yield f"{share}/10", content[: len(content) * share // 10]


def _places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the paths of all values that are no objects or lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in items:
        if isinstance(each, (dict, list)):
            yield from _places(each, (*path, name))
        else:
            yield (*path, name)


def _with(honest: Any, place: tuple[Any, ...], value: str) -> str:
    changed = copy.deepcopy(honest)
    part = changed
    for name in place[:-1]:
        part = part[name]
    part[place[-1]] = _MARK
    return json.dumps(changed).replace(f'"{_MARK}"', value)
