"""Statistics of records are computed from their samples."""

from __future__ import annotations

import dataclasses

import pytest

from sr_bench.records import BenchRun, Deviation, Measurement, Method, Score, SpeedRecord, Timing
from sr_deploy.errors import BundleError
from tests.sr_bench.examples import DEFAULT, EAGER, FULL, OPENVINO, QUALITY, SERIES, SPEED, row


@pytest.mark.parametrize("rounds", [(), ((),), ((1.0,), (0.0,))])
def test_rounds_without_time_are_refused(rounds: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(BundleError, match="rounds"):
        Timing("upscale", rounds)


def test_the_first_timing_is_upscale() -> None:
    with pytest.raises(BundleError, match="upscale"):
        Measurement(EAGER, (Timing("network", ((1.0,),)),), Deviation(0))


def test_all_timings_of_a_run_have_the_same_rounds() -> None:
    with pytest.raises(BundleError, match=r"rounds.*\[1, 2\]"):
        BenchRun((8, 8), 1, (row(EAGER, (1.0,)), row(OPENVINO, (1.0,), (1.0,))))


def test_ratios_are_taken_within_rounds() -> None:
    """A slow round is slow for both; the ratios of the rounds are 2, 2 and 3."""
    baseline, other = (each.upscale for each in SERIES.bouts[0].rows)
    ratio = other.against(baseline)
    assert (ratio.low, ratio.median, ratio.high) == (2.0, 2.0, 2.5)
    assert baseline.against(baseline).median == 1.0


def test_rounds_that_disagree_are_unsteady() -> None:
    assert not SPEED.steady()  # by the row of the test above: 2.0 to 2.5
    agreed = dataclasses.replace(SERIES, bouts=SERIES.bouts[1:])
    assert SpeedRecord(3, "speed", (agreed,)).steady()


def test_percentiles_are_over_all_samples() -> None:
    baseline = SERIES.bouts[0].rows[0].upscale
    assert [baseline.percentile(each) for each in (0, 50, 100)] == [10.0, 12.0, 22.0]


def test_the_rate_counts_all_of_a_round() -> None:
    """A slow call does not change the median, but it counts in the throughput."""
    timing = Timing("upscale", ((1.0, 1.0, 4.0), (2.0,), (2.0,)))
    assert timing.rate() == 500.0


def test_a_default_has_the_precision_that_it_resolved_to() -> None:
    assert DEFAULT.precision == "bf16"
    assert DEFAULT.timing("network") == DEFAULT.timings[1]
    assert DEFAULT.timing("video") is None


def test_all_runs_are_visited() -> None:
    assert [bout.size for _, bout in FULL.bouts()] == [(256, 128), (64, 32)]


def test_the_mean_of_scores() -> None:
    assert QUALITY.methods[1].mean() == Score(31.0, pytest.approx(0.91))


def test_every_figure_has_its_mean() -> None:
    scores = {
        "a.png": Score(30.0, 0.9, 1.0, 28.0, 0.8, 2.0),
        "b.png": Score(32.0, 0.7, 3.0, 30.0, 0.6, 4.0),
    }
    assert Method("net", scores).mean() == Score(31.0, 0.8, 2.0, 29.0, pytest.approx(0.7), 3.0)


def test_a_figure_that_an_image_lacks_has_no_mean() -> None:
    scores = {"a.png": Score(None, 1.0), "b.png": Score(30.0, 0.9, 1.0)}
    assert Method("copy", scores).mean() == Score(None, 0.95)
