"""Reads and writes Protocol Buffers: to check an ONNX model, and to change a few of its fields.

Devices that run bundles or build plans often lack the package onnx. A message is a list of numbered
fields; fields that are not edited stay bit-identical.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sr_deploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_SIZES = {_FIXED64: 8, _FIXED32: 4}


def walk(data: memoryview) -> Iterator[tuple[int, int, int | memoryview]]:
    """Yield number, wire type and value of each field of a message, without copying.

    Raises:
        BundleError: the data is not a valid message.
    """
    position = 0
    while position < len(data):
        tag, position = _varint(data, position)
        number, kind = tag >> 3, tag & 7
        if kind == _VARINT:
            value, position = _varint(data, position)
            yield number, kind, value
            continue
        if kind == _BYTES:
            size, position = _varint(data, position)
        elif kind in _SIZES:
            size = _SIZES[kind]
        else:
            raise BundleError(f"not a valid ONNX file: wire type {kind}")
        if position + size > len(data):
            raise BundleError("not a valid ONNX file: truncated")
        yield number, kind, data[position : position + size]
        position += size


@dataclass
class Message:
    """A message: its fields in order, each with number, wire type, and an integer or bytes."""

    fields: list[tuple[int, int, int | bytes]] = field(default_factory=list)

    @classmethod
    def read(cls, data: bytes) -> Message:
        """Parse a message; nested messages stay bytes.

        Raises:
            BundleError: the data is not a valid message.
        """
        found = walk(memoryview(data))
        return cls(
            [
                (number, kind, each if isinstance(each, int) else bytes(each))
                for number, kind, each in found
            ]
        )

    def to_bytes(self) -> bytes:
        """Return the encoded message."""
        parts = []
        for number, kind, value in self.fields:
            parts.append(_encoded(number << 3 | kind))
            if isinstance(value, int):
                parts.append(_encoded(value))
            else:
                parts += [_encoded(len(value)), value] if kind == _BYTES else [value]
        return b"".join(parts)

    def numbers(self, number: int) -> list[int]:
        """Return the integers of a field, packed or not."""
        found: list[int] = []
        for each, _, value in self.fields:
            if each == number and isinstance(value, int):
                found.append(value)
            elif each == number and isinstance(value, bytes):
                position = 0
                while position < len(value):
                    item, position = _varint(value, position)
                    found.append(item)
        return found

    def texts(self, number: int) -> list[str]:
        """Return the strings of a field."""
        return [value.decode() for value in self.parts(number)]

    def text(self, number: int) -> str:
        """Return the last string of a field; empty if there is none."""
        return "".join(self.texts(number)[-1:])

    def parts(self, number: int) -> list[bytes]:
        """Return the values of a field of strings, bytes or messages."""
        return [
            value for each, _, value in self.fields if each == number and isinstance(value, bytes)
        ]

    def drop(self, *numbers: int) -> None:
        """Remove all values of some fields."""
        self.fields = [each for each in self.fields if each[0] not in numbers]

    def add(self, number: int, value: int | str | bytes | Message) -> None:
        """Append a value."""
        if isinstance(value, int):
            self.fields.append((number, _VARINT, value))
        elif isinstance(value, Message):
            self.fields.append((number, _BYTES, value.to_bytes()))
        else:
            data = value.encode() if isinstance(value, str) else value
            self.fields.append((number, _BYTES, data))

    def put(self, number: int, value: int | str | bytes | Message) -> None:
        """Replace all values of a field by one."""
        self.drop(number)
        self.add(number, value)

    def change(self, number: int, edit: Callable[[Message], None]) -> None:
        """Edit every message of a field."""
        for index, (each, kind, value) in enumerate(self.fields):
            if each == number and isinstance(value, bytes):
                message = Message.read(value)
                edit(message)
                self.fields[index] = (each, kind, message.to_bytes())


def _varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """Return the integer at a position, and the position after it."""
    value = shift = 0
    while True:
        if position >= len(data) or shift > 63:
            raise BundleError("not a valid ONNX file: unterminated integer")
        byte = data[position]
        value |= (byte & 127) << shift
        position, shift = position + 1, shift + 7
        if byte < 128:
            return value, position


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
