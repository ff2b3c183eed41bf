"""Record files: JSON, read as strictly as the manifest of a bundle."""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from sr_bench.records import QualityRecord, SpeedRecord
from sr_deploy.bundle import schema
from sr_deploy.errors import BundleError, InvalidInputError, NotFoundError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = 3
_OLD_SCHEMA = 2
"""Records of this schema are converted when they are read."""

Record = QualityRecord | SpeedRecord
_KINDS: dict[object, type[QualityRecord] | type[SpeedRecord]] = {
    "quality": QualityRecord,
    "speed": SpeedRecord,
}


def write(path: Path, record: Record) -> None:
    """Write a record atomically."""
    text = json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False)
    # A list of numbers takes one line instead of one line for each number.
    text = re.sub(r"\[[\d\s.,]+\]", lambda found: " ".join(found[0].split()), text)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Read and check a record.

    Raises:
        NotFoundError: The file does not exist.
        BundleError: The file is not a record, has an unknown schema, or a field is invalid.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such record; `sr-bench ... --json FILE` writes one")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: invalid JSON: {error}") from None
    found = (value.get("schema"), value.get("kind")) if isinstance(value, dict) else (None, None)
    if found[0] not in (_OLD_SCHEMA, SCHEMA) or found[1] not in _KINDS:
        raise BundleError(
            f"{path}: schema {found[0]!r} and kind {found[1]!r}; this version reads schema "
            f"{_OLD_SCHEMA} or {SCHEMA} and kind {' or '.join(map(str, _KINDS))}"
        )
    if found[0] == _OLD_SCHEMA:
        value = _converted(value, str(path))
    return schema.decode(_KINDS[found[1]], value, str(path))


def read_speed(path: Path) -> SpeedRecord:
    """Read a speed record.

    Raises:
        InvalidInputError: The record is a quality record.
        NotFoundError: The file does not exist.
        BundleError: The file is not a valid record.
    """
    record = read(path)
    if not isinstance(record, SpeedRecord):
        raise InvalidInputError(f"{path}: a quality record; a speed record is needed")
    return record


def merged(records: Sequence[SpeedRecord]) -> SpeedRecord:
    """Return one record with the model benchmarks of all; runs stay separate."""
    return SpeedRecord(SCHEMA, "speed", tuple(each for record in records for each in record.series))


def _converted(value: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a record of the old schema in the present form.

    Raises:
        BundleError: A field of the old schema is missing or unknown.
    """
    if value["kind"] == "quality":
        return value | {"schema": SCHEMA}
    names = ("setting", "subject", "options", "timings")
    unknown = value.keys() - {"schema", "kind", *names}
    try:
        rows: dict[tuple[int, ...], list[dict[str, Any]]] = {}
        for each in value["timings"]:
            row = {
                "contender": each["contender"],
                "timings": [{"form": "upscale", "rounds": each["rounds"]}],
                "fidelity": {"largest": each["difference"]},
            }
            rows.setdefault(tuple(each["size"]), []).append(row)
        series = {name: value[name] for name in names[:-1]}
    except (KeyError, TypeError) as error:
        raise BundleError(f"{where}: a record of schema {_OLD_SCHEMA} lacks {error}") from None
    if unknown:
        raise BundleError(f"{where}: unknown field {min(unknown)!r}")
    series["bouts"] = [
        {"size": list(size), "batch": 1, "rows": each} for size, each in rows.items()
    ]
    return {"schema": SCHEMA, "kind": "speed", "series": [series]}
