"""Records of measurements: JSON files, read as strictly as a bundle's manifest.

A record holds raw samples. What is shown (medians, ratios, means) is computed from them whenever
it is shown.
"""

from __future__ import annotations

import dataclasses
import json
import re
from typing import TYPE_CHECKING, Any

from sr_bench.scores import QualityRecord
from sr_bench.timings import SpeedRecord
from sr_deploy.bundle import schema
from sr_deploy.errors import BundleError, InvalidInputError, NotFoundError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SCHEMA = 3
_BEFORE = 2
"""Records of this schema are brought to the present form when they are read."""

Record = QualityRecord | SpeedRecord
_KINDS: dict[object, type[QualityRecord] | type[SpeedRecord]] = {
    "quality": QualityRecord,
    "speed": SpeedRecord,
}


def write(path: Path, record: Record) -> None:
    """Write a record, whole or not at all."""
    text = json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False)
    # One line for each list of numbers, not one for each number.
    text = re.sub(r"\[[\d\s.,]+\]", lambda found: " ".join(found[0].split()), text)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Read and check a record.

    Raises:
        NotFoundError: there is no such file.
        BundleError: it is not a record, of another schema, or a field does not fit.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such record; `sr-bench ... --json FILE` makes one")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: not valid JSON: {error}") from None
    found = (value.get("schema"), value.get("kind")) if isinstance(value, dict) else (None, None)
    if found[0] not in (_BEFORE, SCHEMA) or found[1] not in _KINDS:
        raise BundleError(
            f"{path}: schema {found[0]!r} and kind {found[1]!r}, but this version reads the "
            f"schemas {_BEFORE} and {SCHEMA} and the kinds {', '.join(map(str, _KINDS))}"
        )
    if found[0] == _BEFORE:
        value = _brought_up(value, str(path))
    return schema.decode(_KINDS[found[1]], value, str(path))


def read_speed(path: Path) -> SpeedRecord:
    """Read a record of speed.

    Raises:
        InvalidInputError: it is one of quality.
        NotFoundError, BundleError: as `read` does.
    """
    record = read(path)
    if not isinstance(record, SpeedRecord):
        raise InvalidInputError(f"{path}: a record of quality, but this is about speed")
    return record


def merged(found: Sequence[SpeedRecord]) -> SpeedRecord:
    """Join records: what was measured together stays together, and is only compared there."""
    return SpeedRecord(SCHEMA, "speed", tuple(each for record in found for each in record.series))


def _brought_up(value: dict[str, Any], where: str) -> dict[str, Any]:
    """Return a record of the schema before in the present form; nothing is made up.

    Raises:
        BundleError: it does not even have the fields that the old form is turned by.
    """
    if value["kind"] == "quality":
        return value | {"schema": SCHEMA}
    names = ("setting", "subject", "options", "timings")
    unknown = value.keys() - {"schema", "kind", *names}
    try:
        bouts: dict[tuple[int, ...], list[dict[str, Any]]] = {}
        for each in value["timings"]:
            row = {
                "contender": each["contender"],
                "timings": [{"form": "upscale", "rounds": each["rounds"]}],
                "fidelity": {"largest": each["difference"]},
            }
            bouts.setdefault(tuple(each["size"]), []).append(row)
        series = {name: value[name] for name in names[:-1]}
    except (KeyError, TypeError) as error:
        raise BundleError(f"{where}: a record of schema {_BEFORE} lacks {error}") from None
    if unknown:
        raise BundleError(f"{where}: unknown field {min(unknown)!r}")
    series["bouts"] = [
        {"size": list(size), "batch": 1, "rows": rows} for size, rows in bouts.items()
    ]
    return {"schema": SCHEMA, "kind": "speed", "series": [series]}
