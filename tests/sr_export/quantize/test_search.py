"""The search: the fewest layers in half precision, told by made-up qualities."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from sr_deploy.bundle.manifest import Quality
from sr_export.quantize.placement import Layer
from sr_export.quantize.search import LayerSearch, SearchResult

NAMES = [f"layer {i}" for i in range(6)]
LAYERS = [Layer(name, f"input of {name}", 9.0) for name in NAMES]


def _quality(psnr: float, loss: float | None = None) -> Quality:
    return Quality(psnr, 0.99, 3, loss, 4)


def _search(
    measure: Callable[[set[str], bool], Quality],
    budget: float = 45,
    shares: dict[str, float] | None = None,
    layers: Sequence[Layer] = LAYERS,
) -> SearchResult:
    shares = shares or dict.fromkeys(NAMES, 1 / len(NAMES))
    return LayerSearch(
        layers,
        shares,
        lambda chosen, fitted: measure({each.name for each in chosen}, fitted),
        budget,
        lambda _: None,
    ).run()


def _noise(costs: dict[str, float], gain: float = 0.0) -> Callable[[set[str], bool], Quality]:
    """Each layer in INT8 costs some decibels of 60; fitting gives some back."""

    def measure(chosen: set[str], fitted: bool) -> Quality:
        return _quality(60 - sum(costs.get(name, 0) for name in chosen) + gain * fitted)

    return measure


def test_all_in_int8_where_that_holds() -> None:
    found = _search(_noise(dict.fromkeys(NAMES, 2.0)))
    assert [each.name for each in found.chosen] == NAMES
    assert not found.fitted
    assert [(step.restored, step.share) for step in found.steps] == [((), 1.0)]


def test_the_last_goes_back_first() -> None:
    found = _search(_noise({NAMES[-1]: 20.0}))
    assert {each.name for each in found.chosen} == set(NAMES) - {NAMES[-1]}
    assert not found.fitted


def test_then_weights_are_fitted() -> None:
    found = _search(_noise(dict.fromkeys(NAMES, 5.0), gain=20))
    assert [each.name for each in found.chosen] == NAMES
    assert found.fitted
    assert [step.fitted for step in found.steps] == [False] * 2 + [True]


def test_then_the_layer_that_gains_most() -> None:
    found = _search(_noise({NAMES[2]: 3.0, NAMES[3]: 20.0}))
    assert found.steps[-1].restored == (NAMES[3],)
    assert found.fitted


def test_then_the_next_with_it() -> None:
    found = _search(_noise({NAMES[0]: 14.0, NAMES[2]: 3.0, NAMES[3]: 20.0}, gain=1.0))
    assert [step.restored for step in found.steps[-2:]] == [(NAMES[3],), (NAMES[0], NAMES[3])]


def test_no_placement_is_measured_twice() -> None:
    """The last layer, which was tried, may be the one that gains most."""
    found = _search(_noise({NAMES[-1]: 30.0, NAMES[1]: 16.0}, gain=-5.0))
    tried = [(step.restored, step.fitted) for step in found.steps]
    assert len(set(tried)) == len(tried)
    assert found.steps[-1].restored == (NAMES[1], NAMES[-1])


def test_refused_when_less_than_half_would_be_left() -> None:
    found = _search(_noise(dict.fromkeys(NAMES, 9.0)))
    assert found.chosen == ()
    assert min(step.share for step in found.steps) >= 0.5
    assert "33.0 dB" in found.reason
    assert "45 dB" in found.reason


def test_loss_against_the_originals_counts() -> None:
    found = _search(lambda *_: _quality(50, loss=0.5))
    assert found.chosen == ()
    assert "0.50 dB lost against the originals" in found.reason


def test_not_even_tried_where_convolutions_are_few() -> None:
    found = _search(lambda *_: pytest.fail("measured"), shares=dict.fromkeys(NAMES, 0.05))
    assert found.steps == ()
    assert found.reason.startswith("only 30% of the multiply-adds")


def test_nothing_to_quantise() -> None:
    found = _search(lambda *_: pytest.fail("measured"), layers=[])
    assert found.chosen == ()
    assert found.steps == ()
    assert "only 0%" in found.reason


def test_a_single_layer() -> None:
    found = _search(_noise({NAMES[0]: 30.0}), layers=LAYERS[:1], shares={NAMES[0]: 1.0})
    assert found.chosen == ()


def test_many_layers_are_restored_in_groups() -> None:
    layers = [Layer(f"layer {i:03}", "input", 9.0) for i in range(102)]
    asked = []

    def measure(chosen: set[str], fitted: bool) -> Quality:
        asked.append(len(chosen))
        return _quality(44.0)

    _search(measure, shares={each.name: 1 / 102 for each in layers}, layers=layers)
    # All and all but the last twice, 21 groups of 5, and what is left of half the network.
    assert len(asked) < 50
