"""Means of scores."""

from __future__ import annotations

import pytest

from sr_bench.scores import Method, Score
from tests.sr_bench.examples import QUALITY


def test_the_mean_of_scores() -> None:
    assert QUALITY.methods[1].mean() == Score(31.0, pytest.approx(0.91))


def test_every_figure_has_its_mean() -> None:
    scores = {
        "a.png": Score(30.0, 0.9, 1.0, 28.0, 0.8, 2.0),
        "b.png": Score(32.0, 0.7, 3.0, 30.0, 0.6, 4.0),
    }
    assert Method("net", scores).mean() == Score(31.0, 0.8, 2.0, 29.0, pytest.approx(0.7), 3.0)


def test_what_one_image_lacks_has_no_mean() -> None:
    scores = {"a.png": Score(None, 1.0), "b.png": Score(30.0, 0.9, 1.0)}
    assert Method("copy", scores).mean() == Score(None, 0.95)
