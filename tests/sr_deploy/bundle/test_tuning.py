"""The tuning record is written atomically, read strictly, and used on matching devices."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import Engine, backends, machine
from sr_deploy.backends.host import HostLane
from sr_deploy.bundle import tuning
from sr_deploy.bundle.tuning import NAME, Tuning, TuningEntry, TuningRecord
from sr_deploy.errors import BundleError
from sr_deploy.tiling.planner import TilePlan
from tests.sr_deploy import networks

ENTRY = TuningEntry(
    tuning=Tuning(tile=(128, 256), batch=2, lanes=2, threads=4),
    goal="throughput",
    size=(640, 480),
    date="2026-11-21T00:00:00+00:00",
    gains={"lanes": 1.5},
)
ONNXRUNTIME = backends.name_and_version("onnxruntime")
KEY = tuning.key(ONNXRUNTIME, "fp32")


def test_a_stored_entry_is_found(tmp_path: Path) -> None:
    tuning.keep(tmp_path, KEY, ENTRY)
    assert tuning.find(tmp_path, KEY) == ENTRY.tuning
    assert [each.name for each in tmp_path.iterdir()] == [NAME]


def test_entries_of_other_devices_are_kept(tmp_path: Path) -> None:
    tuning.keep(tmp_path, "another machine", ENTRY)
    tuning.keep(tmp_path, KEY, ENTRY)
    changed = dataclasses.replace(ENTRY, goal="latency")
    tuning.keep(tmp_path, KEY, changed)
    assert tuning.read(tmp_path).entries == {"another machine": ENTRY, KEY: changed}


def test_an_entry_is_for_one_device_backend_and_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tuning.keep(tmp_path, KEY, ENTRY)
    assert tuning.find(tmp_path, tuning.key(ONNXRUNTIME, "int8")) == Tuning()
    assert tuning.find(tmp_path, tuning.key("openvino", "fp32")) == Tuning()
    assert tuning.find(tmp_path, tuning.key(ONNXRUNTIME, "fp32", "cuda")) == Tuning()
    monkeypatch.setattr(machine, "processor", lambda: "Another Processor")
    assert tuning.find(tmp_path, tuning.key(ONNXRUNTIME, "fp32")) == Tuning()


def test_a_bundle_without_a_record_is_not_tuned(tmp_path: Path) -> None:
    assert tuning.read(tmp_path) == TuningRecord(tuning.SCHEMA, {})
    assert tuning.find(tmp_path, KEY) == Tuning()


def _text(**changes: Any) -> str:
    return json.dumps({"schema": 1, "entries": {KEY: dataclasses.asdict(ENTRY) | changes}})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "JSON"),
        ('{"schema": 9}', r"\b9\b.*\b1\b"),
        ("[]", "None"),
        (_text(goal="beauty"), r"goal.*throughput, latency.*'beauty'"),
        (_text(tuning={"lanes": 0}), r"lanes.*\b256\b.*\b0\b"),
        (_text(tuning={"tile": [0, 8]}), r"tile.*\b65536\b.*\b0\b"),
        (_text(tuning={"magic": 1}), "'magic'"),
        (" " * (1 << 20) + "{}", "1024 KiB"),
    ],
)
def test_an_invalid_record_is_reported_and_ignored(
    text: str, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / NAME).write_text(text)
    with pytest.raises(BundleError, match=message):
        tuning.read(tmp_path)
    with caplog.at_level(logging.WARNING, "sr_deploy.bundle.tuning"):
        assert tuning.find(tmp_path, KEY) == Tuning()
    assert NAME in caplog.text


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle tuned for this device, with tiles smaller than the test frames."""
    folder = networks.bundle(tmp_path / "random.srd")
    chosen = Tuning(tile=(40, 48), batch=2, lanes=2, threads=3)
    tuning.keep(folder, KEY, dataclasses.replace(ENTRY, tuning=chosen))
    return folder


def _used(engine: Engine) -> tuple[tuple[int, int], int, int, int]:
    """Upscale a frame; return tile, batch, lanes and threads."""
    plans: list[TilePlan] = []
    run = HostLane.run

    def noting(lane: HostLane, frame: Any, plan: TilePlan, out: Any, *rest: Any) -> None:
        plans.append(plan)
        run(lane, frame, plan, out, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HostLane, "run", noting)
        engine.upscale(FRAME)
    return plans[0].tile, plans[0].batch, engine.spec.lanes, engine.spec.threads


FRAME = np.random.default_rng(0).integers(0, 256, (100, 120, 3), np.uint8)


def test_an_engine_uses_the_bundles_tuning(bundle: Path) -> None:
    with Engine(bundle, backend="onnxruntime", precision="fp32") as engine:
        assert _used(engine) == ((40, 48), 2, 2, 3)


def test_the_tuning_record_sets_the_lanes_of_a_stream(bundle: Path) -> None:
    tuning.keep(bundle, KEY, dataclasses.replace(ENTRY, tuning=Tuning(lanes=1)))
    with Engine(
        bundle, backend="onnxruntime", precision="fp32", threads=2, streaming=True
    ) as engine:
        assert engine.spec.lanes == 1


def test_the_users_choices_come_first(bundle: Path) -> None:
    with Engine(
        bundle, backend="onnxruntime", precision="fp32", lanes=1, threads=1, tile=(60, 60)
    ) as engine:
        assert _used(engine) == ((60, 60), 2, 1, 1)


def test_another_tuning_may_be_tried(bundle: Path) -> None:
    with Engine(bundle, backend="onnxruntime", precision="fp32", tuning=Tuning()) as engine:
        assert _used(engine) == ((100, 120), 1, 1, machine.cores())


def test_tuning_changes_no_pixel(bundle: Path) -> None:
    """Tiles overlap by the halo; batches and lanes do not change results."""
    with Engine(bundle, backend="onnxruntime", precision="fp32") as tuned:
        found = tuned.upscale(FRAME)
    with Engine(bundle, backend="onnxruntime", precision="fp32", tuning=Tuning()) as plain:
        np.testing.assert_array_equal(found, plain.upscale(FRAME))
