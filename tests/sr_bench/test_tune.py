"""The search accepts settings whose gain exceeds the noise, and no others."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from sr_bench import tune
from sr_bench.tune import TuneRequest
from sr_deploy import backends, machine
from sr_deploy.bundle import tuning
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.tuning import Tuning
from sr_deploy.cli.console import Progress
from tests.sr_bench.conftest import Tiny

REQUEST = TuneRequest(
    goal="throughput",
    size=(640, 480),
    backend="onnxruntime",
    precision="fp32",
    memory=None,
    rounds=7,
    turn_seconds=0.0,
)


@pytest.fixture(autouse=True)
def _four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "cores", lambda: 4)


def _search(
    tiny: Tiny, milliseconds: Callable[[Tuning], float], **changes: object
) -> tune.TuneSearch:
    """Search with given milliseconds of a frame, and noise of 2 %."""
    random = np.random.default_rng(0)

    def measure(choices: Sequence[Tuning]) -> list[list[float]]:
        return [
            [milliseconds(each) * float(random.normal(1, 0.02)) for _ in range(REQUEST.rounds)]
            for each in choices
        ]

    request = dataclasses.replace(REQUEST, **changes)
    with Progress() as progress:
        return tune.search(Bundle.open(tiny.bundle), request, progress, measure)


def test_without_a_gain_nothing_is_accepted(tiny: Tiny) -> None:
    found = _search(tiny, lambda choice: 10.0)
    assert found.best == Tuning()
    assert set(found.gains.values()) == {1.0}
    assert {each.setting for each in found.trials} == {"lanes", "threads", "tile", "batch"}


def test_an_accepted_setting_is_the_base_of_the_next(tiny: Tiny) -> None:
    """Four lanes are faster than two; small tiles are, in batches of 4 only."""

    def milliseconds(choice: Tuning) -> float:
        lanes = {None: 10.0, 2: 9.0, 4: 6.0}[choice.lanes]
        batched = choice.tile == (256, 256) and choice.batch == 4
        return lanes * (0.5 if batched else 1.5 if choice.tile else 1.0)

    found = _search(tiny, milliseconds)
    assert found.best == Tuning(tile=(256, 256), batch=4, lanes=4)
    assert found.gains["lanes"] == pytest.approx(10 / 6, rel=0.1)
    assert found.gains["batch"] == pytest.approx(2, rel=0.1)
    assert found.gains["tile"] == 1.0
    text = tune.text(found)
    assert "lanes 4" in text
    assert text.count("accepted") == 2
    assert "tile 256x256, batch 4, lanes 4." in text


def test_for_latency_the_lanes_are_not_searched(tiny: Tiny) -> None:
    found = _search(tiny, lambda choice: 5.0 if choice.threads == 3 else 10.0, goal="latency")
    assert "lanes" not in {each.setting for each in found.trials}
    assert found.best == Tuning(threads=3)


def test_a_frame_smaller_than_all_tiles_is_not_tiled(tiny: Tiny) -> None:
    found = _search(tiny, lambda choice: 10.0, size=(200, 100))
    assert {each.setting for each in found.trials} == {"lanes", "threads"}


def test_the_result_is_saved_for_this_device(tiny: Tiny, tmp_path: Path) -> None:
    found = _search(tiny, lambda choice: 5.0 if choice.lanes == 4 else 10.0)
    bundle = Bundle(tmp_path, Bundle.open(tiny.bundle).manifest)
    tune.save(bundle, found)
    key = tuning.key(backends.name_and_version("onnxruntime"), "fp32")
    entry = tuning.read(tmp_path).entries[key]
    assert entry.tuning == Tuning(lanes=4)
    assert entry.size == (640, 480)
    assert entry.gains["lanes"] == pytest.approx(2, rel=0.1)
    assert json.loads((tmp_path / "tuning.json").read_text())["schema"] == 1


@pytest.mark.parametrize("goal", ["throughput", "latency"])
def test_engines_are_measured_in_turns(goal: str, tiny: Tiny) -> None:
    request = dataclasses.replace(REQUEST, goal=goal, size=(40, 30), rounds=2)
    choices = [Tuning(), Tuning(tile=(20, 20), batch=2), Tuning(lanes=2)]
    times = tune._times(Bundle.open(tiny.bundle), request, choices)
    assert [len(each) for each in times] == [2, 2, 2]
    assert min(min(each) for each in times) > 0
