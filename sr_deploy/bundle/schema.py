"""Strict decoding of JSON into dataclasses; errors name the field, its value and what fits.

Files come from strangers: whatever is in them, the only error is `BundleError`, in one line.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import re
import reprlib
import stat
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from sr_deploy.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")

_LARGEST_INTEGER = 1 << 63
_PLAIN = re.compile(r"\w[\w .-]{0,40}", re.ASCII)
_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 60


def read(kind: type[T], path: Path, schema: int, *, largest: int, advice: str = "") -> T:
    """Return the content of a JSON file, which has a `schema` number, as `kind`.

    Args:
        kind: A frozen dataclass.
        path: The file.
        schema: The number that this version reads.
        largest: Largest size in bytes; larger files are not read.
        advice: What to do about an invalid file, for the error.

    Raises:
        BundleError: it cannot be read, is too large, not JSON, has another schema, or an invalid
            field.
    """
    advice = advice and f"; {advice}"
    try:
        # ValueError: not JSON, not UTF-8, or an integer of thousands of digits.
        value = _parsed(_content(path, largest))
        found = value.get("schema") if isinstance(value, dict) else None
        if found != schema:
            raise BundleError(f"schema {_shown.repr(found)}, but this version reads {schema}")
        return decode(kind, value, "")
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}{advice}") from None
    except RecursionError:
        raise BundleError(f"{path}: not valid JSON: nested too deeply{advice}") from None
    except BundleError as error:
        raise BundleError(f"{path}: {error}{advice}") from None
    except ValueError as error:
        raise BundleError(f"{path}: not valid JSON: {error}{advice}") from None


def _content(path: Path, largest: int) -> bytes:
    """Return the content of a file.

    Raises:
        OSError, ValueError: It cannot be read.
        BundleError: It is too large, or something else than a file, which could block.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise BundleError("not a regular file")
        content = file.read(largest + 1)
    if len(content) > largest:
        raise BundleError(f"larger than the {largest >> 10} KiB allowed for such files")
    return content


def _parsed(content: bytes) -> Any:
    """Return the value of a JSON text.

    Raises:
        ValueError, RecursionError: It is not valid.
    """
    value = json.loads(
        content.decode("utf-8"), object_pairs_hook=_object, parse_constant=_no_constant
    )
    # Half of a character in two parts, which no file, terminal or page takes.
    json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):  # readers differ in which of the two they take
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise BundleError(f"the field {_shown.repr(twice)} occurs twice")
    return found


def _no_constant(name: str) -> None:
    raise BundleError(f"{name} is not a number that JSON allows")


def decode(kind: type[T], value: object, where: str) -> T:
    """Return parsed JSON as `kind`, a frozen dataclass.

    Fields without a default are required, unknown fields are rejected.

    Raises:
        BundleError: a field is invalid; the message has its path.
    """
    return typing.cast("T", _decode(kind, value, where))


def _decode(kind: Any, value: object, where: str) -> object:
    origin = typing.get_origin(kind)
    if origin in (types.UnionType, typing.Union):
        return _decode_optional(kind, value, where)
    if origin is typing.Literal:
        allowed = typing.get_args(kind)
        if not any(type(value) is type(each) and value == each for each in allowed):
            raise _misfit(where, f"one of {', '.join(map(str, allowed))}", value)
        return value
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _misfit(where, "an object", value)
        item = typing.get_args(kind)[1]
        return {str(key): _decode(item, each, _inner(where, key)) for key, each in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    found = value
    if kind is float and type(value) is int:
        found = float(value) if abs(value) < _LARGEST_INTEGER else math.inf
    if type(found) is not kind:  # not isinstance: True is not a number
        raise _misfit(where, f"a value of type {kind.__name__}", value)
    if type(found) is int and not -_LARGEST_INTEGER <= found < _LARGEST_INTEGER:
        raise _misfit(where, "an integer of 64 bits", value)
    if isinstance(found, float) and not math.isfinite(found):
        raise _misfit(where, "a finite number", value)
    return found


def _decode_optional(kind: Any, value: object, where: str) -> object:
    if value is None:
        return None
    (inner,) = (each for each in typing.get_args(kind) if each is not type(None))
    return _decode(inner, value, where)


def _decode_tuple(kinds: tuple[Any, ...], value: object, where: str) -> object:
    if not isinstance(value, list):
        raise _misfit(where, "a list", value)
    if kinds[1:] == (Ellipsis,):
        kinds = (kinds[0],) * len(value)
    if len(kinds) != len(value):
        raise _misfit(where, f"a list of {len(kinds)}", value)
    return tuple(
        _decode(kind, each, f"{where}[{i}]")
        for i, (kind, each) in enumerate(zip(kinds, value, strict=True))
    )


def _decode_dataclass(kind: Any, value: object, where: str) -> object:
    if not isinstance(value, dict):
        raise _misfit(where, "an object", value)
    fields = {field.name: field for field in dataclasses.fields(kind)}
    for name in value:
        if name not in fields:
            raise BundleError(
                _at(where, f"unknown field {_shown.repr(name)}; was it written by a newer version?")
            )
    hints = typing.get_type_hints(kind)
    found = {}
    for name, field in fields.items():
        if name in value:
            found[name] = _decode(hints[name], value[name], _inner(where, name))
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise BundleError(_at(where, f"the field {name!r} is missing"))
    try:
        return kind(**found)
    except BundleError as error:
        raise BundleError(_at(where, str(error))) from None


def _inner(where: str, name: str) -> str:
    """Return the path of a field; names that are not plain are quoted."""
    if not _PLAIN.fullmatch(name):
        return f"{where}[{_shown.repr(name)}]"
    return f"{where}.{name}" if where else name


def _at(where: str, text: str) -> str:
    return f"{where}: {text}" if where else text


def _misfit(where: str, wanted: str, value: object) -> BundleError:
    return BundleError(_at(where, f"expected {wanted}, found {_shown.repr(value)}"))
