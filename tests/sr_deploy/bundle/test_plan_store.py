from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sr_deploy.bundle import plan_store
from sr_deploy.bundle.plan_record import Shapes
from sr_deploy.bundle.plan_store import StoredPlan
from sr_deploy.errors import BundleError, NotFoundError
from tests.sr_deploy.plan_records import make, wanted


def written(folder: Path, content: bytes = b"a plan", **changes: Any) -> StoredPlan:
    plan = plan_store.write(folder, make(**changes), content)
    assert plan is not None
    return plan


def test_what_was_written_is_found_and_read(tmp_path: Path) -> None:
    plan = written(tmp_path, seconds=12.5, psnr=61.5)

    found = plan_store.find(tmp_path, wanted())

    assert found.plans == (plan,)
    assert found.reasons == ()
    assert found.refused == ()
    assert plan.read() == b"a plan"
    assert plan.record.size == 6
    assert sorted(path.suffix for path in plan.folder.iterdir()) == [".json", ".plan"]


def test_a_bundle_without_plans_has_none(tmp_path: Path) -> None:
    assert plan_store.find(tmp_path, wanted()) == plan_store.FoundPlan()


def test_what_does_not_serve_says_why(tmp_path: Path) -> None:
    plan = written(tmp_path)

    found = plan_store.find(tmp_path, wanted(tensorrt="11.4.0"))

    assert found.plans == ()
    name = f"{plan.record.name}.json"
    assert found.reasons == (f"{name}: built with TensorRT 10.3.0, here it is 11.4.0",)


def test_plans_of_other_files_are_not_worth_a_word(tmp_path: Path) -> None:
    written(tmp_path, precision="int8")
    written(tmp_path, onnx="c" * 64)
    assert plan_store.find(tmp_path, wanted()) == plan_store.FoundPlan()


def test_those_for_exactly_the_shape_come_first_then_those_tuned_closest(tmp_path: Path) -> None:
    shape = (1, 480, 640)
    limits = (1, 64, 64), (1, 1080, 1920)
    far = written(tmp_path, shapes=Shapes(limits[0], limits[1], limits[1]))
    near = written(tmp_path, shapes=Shapes(limits[0], (1, 512, 640), limits[1]))
    exact = written(tmp_path, shapes=Shapes.exactly(shape))

    assert plan_store.find(tmp_path, wanted(shape=shape)).plans == (exact, near, far)


def test_without_a_shape_those_tuned_for_the_largest_come_first(tmp_path: Path) -> None:
    small = written(tmp_path, shapes=Shapes.exactly((1, 256, 256)))
    large = written(tmp_path, shapes=Shapes.exactly((1, 720, 1280)))
    assert plan_store.find(tmp_path, wanted()).plans == (large, small)


def test_what_was_refused_is_told_apart(tmp_path: Path) -> None:
    assert plan_store.write(tmp_path, make(refused=("as exported: black",)), None) is None

    found = plan_store.find(tmp_path, wanted())

    assert found.plans == ()
    assert found.reasons == ()
    assert found.refused == (f"{make().name}.json: as exported: black",)


@pytest.mark.parametrize("content", [b"", b"a plat", b"a plan!"])
def test_a_damaged_plan_is_never_given_out(tmp_path: Path, content: bytes) -> None:
    plan = written(tmp_path)
    plan.path.write_bytes(content)
    with pytest.raises(BundleError, match="damaged or changed since it was built"):
        plan.read()


def test_a_plan_that_is_gone_is_a_reason(tmp_path: Path) -> None:
    plan = written(tmp_path)
    plan.path.unlink()

    (reason,) = plan_store.find(tmp_path, wanted()).reasons

    assert "is gone" in reason
    with pytest.raises(NotFoundError):
        plan.read()


def test_a_plan_outside_of_the_bundle_is_not_read(tmp_path: Path) -> None:
    bundle = tmp_path / "net.srd"
    bundle.mkdir()
    plan = written(bundle)
    (tmp_path / "outside.plan").write_bytes(b"a plan")
    path = plan.folder / f"{plan.record.name}.json"
    value = json.loads(path.read_text())
    value["plan"]["file"] = "../../outside.plan"
    path.write_text(json.dumps(value))

    (found,) = plan_store.find(bundle, wanted()).plans

    with pytest.raises(BundleError, match="leads out"):
        found.read()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "not valid JSON"),
        ("[]", "schema None"),
        ('{"schema": 99}', "schema 99, but this version reads 1"),
        ('{"schema": 1}', "the field 'onnx' is missing"),
        (" " * (1 << 17), "larger than"),
    ],
)
def test_a_damaged_record_is_a_reason_and_hides_no_other(
    tmp_path: Path, text: str, reason: str
) -> None:
    plan = written(tmp_path)
    (plan.folder / "damaged.json").write_text(text)

    found = plan_store.find(tmp_path, wanted())

    assert found.plans == (plan,)
    assert reason in found.reasons[0]
    assert "damaged.json" in found.reasons[0]


def test_writing_again_replaces_the_plan_and_nothing_else(tmp_path: Path) -> None:
    written(tmp_path, b"old")
    other = written(tmp_path, b"other", tensorrt="8.6.0")

    written(tmp_path, b"new")

    (found,) = plan_store.find(tmp_path, wanted()).plans
    assert found.read() == b"new"
    assert other.read() == b"other"
    assert len(list(other.folder.iterdir())) == 4


def test_where_there_is_no_bundle_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no such bundle"):
        plan_store.write(tmp_path / "gone.srd", make(), b"a plan")
