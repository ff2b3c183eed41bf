"""Records are read back unchanged; those of the old schema are converted."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sr_bench import record_files
from sr_bench.record_files import Record
from sr_bench.records import SpeedRecord
from sr_deploy.errors import BundleError, InvalidInputError, NotFoundError
from tests.conftest import ROOT
from tests.sr_bench.examples import FULL, QUALITY, SERIES, SPEED


@pytest.mark.parametrize("record", [QUALITY, SPEED, FULL])
def test_a_written_record_is_read_back(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record_files.write(path, record)
    assert record_files.read(path) == record


def test_lists_of_samples_take_one_line(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    record_files.write(path, SPEED)
    assert "[ 10.0, 11.0, 12.0 ]" in path.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99.*speed.* 2 or 3"),
        ({"kind": "taste"}, "taste.*quality or speed"),
        ({"extra": 1}, "extra"),
        ({"series": [{}]}, r"series\[0\].*setting"),
        ({"series": []}, "series"),
    ],
)
def test_an_invalid_record_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(dataclasses.asdict(SPEED) | change))
    with pytest.raises(BundleError, match=message):
        record_files.read(path)


def test_a_missing_file_or_invalid_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(NotFoundError, match=r"record\.json"):
        record_files.read(path)
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(BundleError, match=r"record\.json"):
            record_files.read(path)


def _before(**changes: Any) -> dict[str, Any]:
    """A record of the old schema: one model and a list of timings."""
    plain = dataclasses.asdict(SERIES)
    timings = [
        {
            "contender": row["contender"],
            "size": bout["size"],
            "rounds": row["timings"][0]["rounds"],
            "difference": row["fidelity"]["largest"],
        }
        for bout in plain["bouts"]
        for row in bout["rows"]
    ]
    options = {
        name: plain["options"][name]
        for name in ("threads", "warm_up_seconds", "rounds", "turn_seconds", "rest_seconds")
    }
    subject = {name: value for name, value in plain["subject"].items() if name != "files"}
    return {
        "schema": 2,
        "kind": "speed",
        "setting": plain["setting"],
        "subject": subject,
        "options": options,
        "timings": timings,
    } | changes


def test_a_record_of_the_old_schema_is_converted(tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(_before()))
    found = record_files.read_speed(path)
    (series,) = found.series
    rows = [row for bout in series.bouts for row in bout.rows]
    expected = [row for bout in SERIES.bouts for row in bout.rows]
    assert [row.timings for row in rows] == [row.timings for row in expected]
    assert [row.fidelity.largest for row in rows] == [0, 1, 0, 2]
    assert all(row.peak_memory is row.start_seconds is row.fidelity.psnr is None for row in rows)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"extra": 1}, "extra"),
        ({"timings": [{}]}, "schema 2.*contender"),
        ({"timings": None}, "schema 2"),
        ({"options": {}}, "options.*threads"),
    ],
)
def test_a_record_of_the_old_schema_is_checked_as_strictly(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    path.write_text(json.dumps(_before(**changes)))
    with pytest.raises(BundleError, match=message):
        record_files.read(path)


@pytest.mark.parametrize(
    "path",
    sorted((ROOT / "benchmarks/results").glob("*.json")),
    ids=lambda path: path.stem,
)
def test_committed_records_can_be_read(path: Path) -> None:
    assert record_files.read(path).schema == record_files.SCHEMA


def test_merging_keeps_runs_separate() -> None:
    joined = record_files.merged([SPEED, FULL])
    assert joined.series == (*SPEED.series, *FULL.series)
    assert [bout.size for _, bout in joined.bouts()] == [(256, 128), (64, 32)] * 2


def test_a_quality_record_is_not_a_speed_record(tmp_path: Path) -> None:
    path = tmp_path / "quality.json"
    record_files.write(path, QUALITY)
    with pytest.raises(InvalidInputError, match=r"quality\.json"):
        record_files.read_speed(path)
    record_files.write(path, SPEED)
    assert isinstance(record_files.read_speed(path), SpeedRecord)
