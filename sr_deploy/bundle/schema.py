"""Strict decoding of JSON into dataclasses; errors name the field, its value and what fits."""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from typing import TYPE_CHECKING, Any, TypeVar

from sr_deploy.errors import BundleError

if TYPE_CHECKING:
    from pathlib import Path

T = TypeVar("T")


def read(kind: type[T], path: Path, schema: int, *, largest: int, advice: str = "") -> T:
    """Return the content of a JSON file, which has a `schema` number, as `kind`.

    Args:
        kind: A frozen dataclass.
        path: The file.
        schema: The number that this version reads.
        largest: Largest size in bytes; larger files are not read.
        advice: What to do about an invalid file, for the error.

    Raises:
        BundleError: it is too large, not JSON, has another schema, or an invalid field.
    """
    advice = advice and f"; {advice}"
    if path.stat().st_size > largest:
        raise BundleError(f"{path}: larger than the {largest >> 10} KiB allowed for such files")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: not valid JSON: {error}{advice}") from None
    found = value.get("schema") if isinstance(value, dict) else None
    if found != schema:
        raise BundleError(f"{path}: schema {found!r}, but this version reads {schema}{advice}")
    try:
        return decode(kind, value, str(path))
    except BundleError as error:
        raise BundleError(f"{error}{advice}") from None


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
        if value not in allowed:
            raise _misfit(where, f"one of {', '.join(map(str, allowed))}", value)
        return value
    if origin is tuple:
        return _decode_tuple(typing.get_args(kind), value, where)
    if origin is dict:
        if not isinstance(value, dict):
            raise _misfit(where, "an object", value)
        item = typing.get_args(kind)[1]
        return {str(key): _decode(item, each, f"{where}.{key}") for key, each in value.items()}
    if dataclasses.is_dataclass(kind):
        return _decode_dataclass(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:  # not isinstance: True is not a number
        raise _misfit(where, f"a value of type {kind.__name__}", value)
    return value


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
                f"{where}: unknown field {name!r}; was it written by a newer version?"
            )
    hints = typing.get_type_hints(kind)
    found = {}
    for name, field in fields.items():
        if name in value:
            found[name] = _decode(hints[name], value[name], f"{where}.{name}")
        elif field.default is field.default_factory is dataclasses.MISSING:
            raise BundleError(f"{where}: the field {name!r} is missing")
    try:
        return kind(**found)
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from None


def _misfit(where: str, wanted: str, value: object) -> BundleError:
    text = repr(value)
    shown = text if len(text) <= 60 else text[:57] + "..."
    return BundleError(f"{where}: expected {wanted}, found {shown}")
