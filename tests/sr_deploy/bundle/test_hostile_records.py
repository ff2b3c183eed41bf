"""Records and names that are made to harm end in one line that names the file."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sr_deploy.bundle import manifest, plan_store, tuning
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Quality, Stored, Variant
from sr_deploy.bundle.tuning import Tuning, TuningEntry, TuningRecord
from sr_deploy.errors import BundleError, NotFoundError, VideoError
from tests.sr_deploy import plan_records
from tests.sr_deploy.bundle.hostile_records import hostile
from tests.sr_deploy.manifests import make

QUALITY = Quality(41.5, 0.99, 7, 0.02, 4)
MANIFEST = make(
    variants=(
        Variant("fp32.onnx", "2" * 64, "fp32", "rgb24"),
        Variant("int8.onnx", "3" * 64, "int8", "rgb24", QUALITY, {"onnxruntime": "30 dB"}),
    )
).to_json()
PLAN = plan_records.make(plan=Stored("a.plan", "0" * 64)).to_json()
TUNING = json.dumps(
    dataclasses.asdict(
        TuningRecord(
            tuning.SCHEMA,
            {
                "here": TuningEntry(
                    Tuning((64, 64), 2, 2, 4), "latency", (64, 48), "today", {"x": 2}
                )
            },
        )
    )
)
LONGEST = 700


def cases(text: str, count: int) -> pytest.MarkDecorator:
    found = dict(hostile(text, count, seed=7))
    return pytest.mark.parametrize("content", found.values(), ids=found)


def refused(work: Callable[[], object], kind: type[Exception], name: str) -> None:
    """Check that some work raises one printable line with a name, soon."""
    start = time.monotonic()
    with pytest.raises(kind) as caught:
        work()
    text = str(caught.value)
    assert time.monotonic() - start < 5
    assert name in text
    assert text.isprintable()
    assert text.encode()
    assert len(text) < LONGEST + len(str(Path.cwd()))


def test_the_honest_records_are_read(tmp_path: Path) -> None:
    (tmp_path / manifest.NAME).write_text(MANIFEST)
    (tmp_path / tuning.NAME).write_text(TUNING)
    (tmp_path / "plan.json").write_text(PLAN)
    assert Bundle.open(tmp_path).manifest.variants[1].quality == QUALITY
    assert tuning.find(tmp_path, "here").batch == 2
    assert plan_store.read(tmp_path / "plan.json").plan is not None


@cases(MANIFEST, 170)
def test_manifests(tmp_path: Path, content: bytes) -> None:
    (tmp_path / manifest.NAME).write_bytes(content)
    refused(lambda: Bundle.open(tmp_path), BundleError, manifest.NAME)


@cases(PLAN, 51)
def test_plan_records(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / plan_store.FOLDER
    folder.mkdir()
    (folder / "plan.json").write_bytes(content)
    refused(lambda: plan_store.read(folder / "plan.json"), BundleError, "plan.json")
    found = plan_store.find(tmp_path, plan_records.wanted())
    assert (found.plans, len(found.reasons)) == ((), 1)


@cases(TUNING, 34)
def test_tuning_records(tmp_path: Path, content: bytes) -> None:
    (tmp_path / tuning.NAME).write_bytes(content)
    refused(lambda: tuning.read(tmp_path), BundleError, tuning.NAME)
    assert tuning.find(tmp_path, "here") == Tuning()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("channels", True),
        ("channels", 3.0),
        ("scale", 2.0),
        ("halo", 1 << 40),
        ("fixed_batch", -1),
        ("bytes_per_pair", -0.5),
        ("gflop_per_megapixel", True),
    ],
)
def test_numbers_of_another_kind(tmp_path: Path, field: str, value: object) -> None:
    content = json.loads(MANIFEST)
    content["model"][field] = value
    (tmp_path / manifest.NAME).write_text(json.dumps(content))
    refused(lambda: Bundle.open(tmp_path), BundleError, field)


@pytest.mark.parametrize("changes", [{"size": -1}, {"device_memory": -(10**9)}])
def test_plan_records_with_negative_sizes(changes: dict[str, int]) -> None:
    with pytest.raises(BundleError, match=rf"{next(iter(changes))}.*-1"):
        plan_records.make(**changes)


NAMES = ["", ".", "..", "/etc/passwd", "../x", "a/../../x", "a\0b", "\0", "\ud800", "a\udfff"]
NAMES += ["x" * 256, "x/" * 3000, "x" * 100_000, "loop", "loop/x", "a\nb", "\x1b[2J", "folder"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_of_files(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / manifest.NAME).write_text(MANIFEST)
    opened = Bundle.open(tmp_path)
    work = lambda: opened.verified(Stored(name, "0" * 64))  # noqa: E731
    refused(work, (BundleError, NotFoundError), tmp_path.name)
    record = plan_records.make(plan=Stored(name, "0" * 64))
    folder = tmp_path / plan_store.FOLDER
    folder.mkdir()
    (folder / "loop").symlink_to("loop")
    (folder / "folder").mkdir()
    (folder / "plan.json").write_text(record.to_json())
    found = plan_store.find(tmp_path, plan_records.wanted())
    assert (found.plans, len(found.reasons)) == ((), 1)


@pytest.mark.parametrize("path", ["a\0b", "x" * 5000, "\ud800", "loop", "loop/x"], ids=ascii)
def test_paths_of_bundles(tmp_path: Path, path: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises((BundleError, NotFoundError)):
        Bundle.open(tmp_path / path)


@pytest.mark.skipif(os.name == "nt", reason="no such files")
def test_records_that_are_no_files_do_not_block(tmp_path: Path) -> None:
    for name in (manifest.NAME, tuning.NAME):
        os.mkfifo(tmp_path / name)
    refused(lambda: Bundle.open(tmp_path), BundleError, manifest.NAME)
    assert tuning.find(tmp_path, "here") == Tuning()
    (tmp_path / plan_store.FOLDER).mkdir()
    os.mkfifo(tmp_path / plan_store.FOLDER / "plan.json")
    (reason,) = plan_store.find(tmp_path, plan_records.wanted()).reasons
    assert "plan.json" in reason
    refused(lambda: manifest.read(tmp_path), BundleError, tmp_path.name)  # a folder
    refused(lambda: manifest.read(tmp_path / "none"), BundleError, "none")


def test_versions_with_digits_without_end() -> None:
    record = plan_records.make(tensorrt="9" * 5000, version_compatible=True)
    assert record.differences(plan_records.wanted(tensorrt="10.3.0"))


def test_journals(tmp_path: Path) -> None:
    from sr_deploy.video.job import Journal

    facts = {"scale": "2"}
    honest = json.dumps(
        {
            "schema": 1,
            "facts": facts,
            "segments": [
                {
                    "file": "000000.packets",
                    "bytes": 3,
                    "sha256": "0" * 64,
                    "frames": 1,
                    "first_pts": 0,
                    "last_pts": 0,
                    "depth": 0,
                }
            ],
            "remarks": ["a"],
            "finished": False,
        }
    )
    (tmp_path / "000000.packets").write_bytes(b"abc")
    path = tmp_path / "journal.json"
    path.write_text(honest)
    assert Journal.read(tmp_path, facts).facts == facts
    for _, content in hostile(honest, 34, seed=7):
        path.write_bytes(content)
        refused(lambda: Journal.read(tmp_path, facts), VideoError, "journal.json")
