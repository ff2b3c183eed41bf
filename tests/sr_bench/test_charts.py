"""Charts show what the record says."""

from __future__ import annotations

import dataclasses

import pytest

from sr_bench import charts
from sr_bench.records import SpeedRecord
from sr_deploy.errors import InvalidInputError
from tests.sr_bench.examples import FULL, SPEED

(SERIES,) = FULL.series


def test_ratios_are_those_of_the_last_size() -> None:
    words = charts.faster(SERIES).words
    assert words == (
        "PyTorch eager FP32: 1.00; sr-deploy OpenVINO BF16: 4.00; "
        "sr-deploy default (OpenVINO BF16): 4.00"
    )


def test_latency_shows_single_frames() -> None:
    assert "default (OpenVINO BF16): median 1.00, 0.90 to 1.10" in charts.latency(SERIES).words


def test_throughput_has_a_point_for_each_size() -> None:
    """The first contender: 64x32 in 4 ms, 256x128 in 12 ms, each with four times the pixels."""
    words = charts.throughput(SERIES).words
    small, large = 4 * 64 * 32 / 4e3, 4 * 256 * 128 / 12e3
    assert words.startswith(f"1: 0.00205 and {small:.3g}, 0.0328 and {large:.3g}; 2: ")
    assert words.count(";") == 2


def test_quality_is_against_ground_truth_if_measured() -> None:
    assert "3: 1e+03 and 33" in charts.quality(SERIES).words
    rows = tuple(dataclasses.replace(row, truth=None) for row in SERIES.bouts[1].rows)
    bout = dataclasses.replace(SERIES.bouts[1], rows=rows)
    words = charts.quality(dataclasses.replace(SERIES, bouts=(bout,))).words
    assert words == "1: 250 and 100; 2: 1e+03 and 50; 3: 1e+03 and 48"


def test_an_older_record_has_fewer_charts() -> None:
    (series,) = SPEED.series
    assert charts.stages(series).height == 0
    first = dataclasses.replace(series, bouts=series.bouts[:1])
    assert charts.quality(first).words == "1: 83.3 and 100"  # the other row's is not known


def test_stages_are_shown() -> None:
    expected = "sr-deploy default (OpenVINO BF16): engine 0.10, tiles 0.00, network 0.90"
    assert charts.stages(SERIES).words == expected


def test_all_benchmarks_are_drawn() -> None:
    record = SpeedRecord(3, "speed", (SERIES, SERIES))
    chart = charts.drawn(record, "faster")
    assert chart.svg.count("sr-deploy OpenVINO BF16</text>") == 2
    with pytest.raises(InvalidInputError, match="'pie'"):
        charts.drawn(record, "pie")
