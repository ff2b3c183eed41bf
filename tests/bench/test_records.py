"""Records come back as they were written, and what they show is computed from their samples."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sr_bench import records
from sr_bench.records import Method, Record, Score, Timing
from sr_deploy.errors import BundleError, NotFoundError
from tests.bench.examples import EAGER, QUALITY, SPEED


@pytest.mark.parametrize("record", [QUALITY, SPEED])
def test_what_is_written_is_read(record: Record, tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    records.write(path, record)
    assert records.read(path) == record


def test_samples_do_not_take_a_line_each(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    records.write(path, SPEED)
    assert "[ 10.0, 11.0, 12.0 ]" in path.read_text()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 99}, "schema 99 and kind 'speed', but this version reads schema 2"),
        ({"kind": "taste"}, "kind 'taste', but .* quality, speed"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"subject": {}}, "subject: the field 'name' is missing"),
        ({"timings": []}, "timings: each needs 3 rounds"),
    ],
)
def test_a_record_that_does_not_hold_is_refused(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "record.json"
    path.write_text(json.dumps(dataclasses.asdict(SPEED) | change))
    with pytest.raises(BundleError, match=message):
        records.read(path)


def test_what_is_no_json_or_not_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    with pytest.raises(NotFoundError, match="no such record"):
        records.read(path)
    for text in ("{", "[]"):
        path.write_text(text)
        with pytest.raises(BundleError, match=r"record\.json: (not valid JSON|schema None)"):
            records.read(path)


@pytest.mark.parametrize("rounds", [(), ((),), ((1.0,), (0.0,))])
def test_rounds_without_time_are_refused(rounds: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(BundleError, match="rounds: each must hold samples"):
        Timing(EAGER, (8, 8), rounds, 0)


def test_ratios_are_taken_within_rounds() -> None:
    """The machine's slow round is slow for both: per round the ratios are 2, 2 and 3."""
    baseline, other = SPEED.by_size()[256, 128]
    ratio = other.against(baseline)
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.5)
    assert baseline.against(baseline).median == 1.0


def test_rounds_that_disagree_are_told() -> None:
    assert not SPEED.steady()  # by the row of the test above: 2.0 to 2.5
    agreed = dataclasses.replace(SPEED, timings=SPEED.timings[2:])
    assert agreed.steady()


def test_percentiles_are_over_all_samples() -> None:
    baseline = SPEED.timings[0]
    assert [baseline.percentile(each) for each in (0, 50, 100)] == [10.0, 12.0, 22.0]


def test_the_mean_of_scores() -> None:
    assert QUALITY.methods[1].mean() == Score(31.0, pytest.approx(0.91))


def test_an_image_that_is_equal_has_no_mean_psnr() -> None:
    scores = {"a.png": Score(None, 1.0), "b.png": Score(30.0, 0.9)}
    assert Method("copy", scores).mean() == Score(None, 0.95)
