"""Axes include their values and have round ticks."""

from __future__ import annotations

import pytest

from sr_export.report import Axis


@pytest.mark.parametrize(
    "values", [[0.0, 6.3], [33.1, 33.2], [5.0], [-2.0, 2.0], [0.0], [1e-6, 9e-6], [99.9, 100.0]]
)
def test_a_linear_axis_includes_all_values(values: list[float]) -> None:
    axis = Axis.linear(values)
    assert axis.low <= min(values)
    assert max(values) <= axis.high
    assert 2 <= len(axis.ticks) <= 7
    assert (axis.part(axis.low), axis.part(axis.high)) == (0.0, 1.0)


@pytest.mark.parametrize("values", [[2.0, 900.0], [1.0], [0.013, 0.02], [5.0, 5.0], [1000.0]])
def test_a_logarithmic_axis_includes_all_values(values: list[float]) -> None:
    axis = Axis.logarithmic(values)
    assert 0 < axis.low <= min(values)
    assert max(values) <= axis.high
    assert axis.low < axis.high
    assert len(axis.ticks) >= 2


def test_equal_ratios_have_equal_width() -> None:
    axis = Axis.logarithmic([1.0, 100.0])
    assert axis.part(10.0) == pytest.approx(0.5)
    assert Axis.linear([0.0, 10.0]).part(5.0) == 0.5
