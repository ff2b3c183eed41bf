from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from sr_deploy.bundle import plan_store
from sr_deploy.bundle.manifest import Stored
from sr_deploy.bundle.plan_store import GpuInfo, Shapes, StoredPlan
from sr_deploy.errors import BundleError, NotFoundError
from tests.sr_deploy.plan_records import DEVICE, SHAPES, make, wanted

ORIN = GpuInfo("Orin", (8, 7), "for CUDA 12.2")
TURING = GpuInfo("NVIDIA T4", (7, 5), "for CUDA 12.2")


def written(folder: Path, content: bytes = b"a plan", **changes: Any) -> StoredPlan:
    plan = plan_store.write(folder, make(**changes), content)
    assert plan is not None
    return plan


def test_a_stored_plan_is_found_and_read(tmp_path: Path) -> None:
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


def test_unusable_plans_have_reasons(tmp_path: Path) -> None:
    plan = written(tmp_path)

    found = plan_store.find(tmp_path, wanted(tensorrt="11.4.0"))

    assert found.plans == ()
    name = f"{plan.record.name}.json"
    (reason,) = found.reasons
    assert reason.startswith(f"{name}: ")
    assert "10.3.0" in reason
    assert "11.4.0" in reason


def test_plans_of_other_networks_are_not_mentioned(tmp_path: Path) -> None:
    written(tmp_path, precision="int8")
    written(tmp_path, onnx="c" * 64)
    assert plan_store.find(tmp_path, wanted()) == plan_store.FoundPlan()


def test_plans_for_exactly_the_shape_come_first_then_the_closest(tmp_path: Path) -> None:
    shape = (1, 480, 640)
    limits = (1, 64, 64), (1, 1080, 1920)
    far = written(tmp_path, shapes=Shapes(limits[0], limits[1], limits[1]))
    near = written(tmp_path, shapes=Shapes(limits[0], (1, 512, 640), limits[1]))
    exact = written(tmp_path, shapes=Shapes.exactly(shape))

    assert plan_store.find(tmp_path, wanted(shape=shape)).plans == (exact, near, far)


def test_without_a_shape_the_largest_plans_come_first(tmp_path: Path) -> None:
    small = written(tmp_path, shapes=Shapes.exactly((1, 256, 256)))
    large = written(tmp_path, shapes=Shapes.exactly((1, 720, 1280)))
    assert plan_store.find(tmp_path, wanted()).plans == (large, small)


def test_failed_builds_are_listed_separately(tmp_path: Path) -> None:
    assert plan_store.write(tmp_path, make(refused=("as exported: black",)), None) is None

    found = plan_store.find(tmp_path, wanted())

    assert found.plans == ()
    assert found.reasons == ()
    assert found.refused == (f"{make().name}.json: as exported: black",)


@pytest.mark.parametrize("content", [b"", b"a plat", b"a plan!"])
def test_a_damaged_plan_is_never_returned(tmp_path: Path, content: bytes) -> None:
    plan = written(tmp_path)
    plan.path.write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256"):
        plan.read()


def test_a_missing_plan_is_a_reason(tmp_path: Path) -> None:
    plan = written(tmp_path)
    plan.path.unlink()

    (reason,) = plan_store.find(tmp_path, wanted()).reasons

    assert plan.record.plan is not None
    assert plan.record.plan.file in reason
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

    found = plan_store.find(bundle, wanted())

    assert found.plans == ()
    assert "outside.plan" in found.reasons[0]
    moved = dataclasses.replace(plan.record, plan=Stored("../../outside.plan", "0" * 64))
    with pytest.raises(BundleError, match=r"outside\.plan"):
        StoredPlan(plan.folder, moved).read()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", "JSON"),
        ("[]", "None"),
        ('{"schema": 99}', "99"),
        ('{"schema": 1}', "'onnx'"),
        (" " * (1 << 17), "64 KiB"),
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


def test_nothing_is_written_without_a_bundle(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"gone\.srd"):
        plan_store.write(tmp_path / "gone.srd", make(), b"a plan")


def test_a_plan_meets_the_request_it_was_built_for() -> None:
    assert make().differences(wanted()) == ()
    assert make().differences(wanted(shape=(1, 720, 1280))) == ()


def test_the_driver_may_change() -> None:
    updated = dataclasses.replace(DEVICE, driver="for CUDA 13.0")
    assert make().differences(wanted(device=updated)) == ()


def test_every_difference_is_named() -> None:
    request = wanted(
        onnx="b" * 64,
        precision="int8",
        tensorrt="10.16.1.11",
        device=ORIN,
        shape=(2, 720, 1280),
    )

    found = make().differences(request)

    facts = (
        ("a" * 12, "b" * 12),
        ("fp16", "int8"),
        ("10.3.0", "10.16.1.11"),
        ("9.0", "8.7"),
        ("NVIDIA H100 80GB HBM3", "Orin"),
        (str(SHAPES), "2x720x1280"),
    )
    for reason, both in zip(found, facts, strict=True):
        assert all(each in reason for each in both)


@pytest.mark.parametrize(
    ("reach", "device", "serves"),
    [
        ("gpu", GpuInfo("NVIDIA H100 PCIe", (9, 0), ""), False),
        ("capability", GpuInfo("NVIDIA H100 PCIe", (9, 0), ""), True),
        ("capability", ORIN, False),
        ("ampere", ORIN, True),
        ("ampere", TURING, False),
    ],
)
def test_compatible_plans_run_on_other_gpus(reach: Any, device: GpuInfo, serves: bool) -> None:
    assert (make(reach=reach).differences(wanted(device=device)) == ()) == serves


@pytest.mark.parametrize(
    ("running", "serves"),
    [
        ("10.3.0", True),
        ("10.16.1.11", True),
        ("10.13.3.9.post1", True),
        ("10.2.0", False),
        ("11.0.0.114", False),
        ("8.6.0", False),
    ],
)
def test_version_compatible_plans_run_on_later_releases_of_the_major_version(
    running: str, serves: bool
) -> None:
    record = make(version_compatible=True)
    assert (record.differences(wanted(tensorrt=running)) == ()) == serves


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ((1, 64, 64), True),
        ((1, 1080, 1920), True),
        ((1, 63, 64), False),
        ((1, 1080, 1921), False),
        ((2, 720, 1280), False),
    ],
)
def test_shapes_accept_those_in_their_range(shape: Any, taken: bool) -> None:
    assert SHAPES.accept(shape) == taken


def test_shapes_as_text() -> None:
    assert str(SHAPES) == "1x64x64 to 1x1080x1920, best at 1x720x1280"
    assert str(Shapes.exactly((1, 8, 9))) == "1x8x9"


@pytest.mark.parametrize(
    "sides", [((1, 9, 9), (1, 8, 8), (1, 9, 9)), ((0, 8, 8), (1, 8, 8), (1, 8, 8))]
)
def test_shapes_that_shrink_are_rejected(sides: Any) -> None:
    with pytest.raises(BundleError, match="best"):
        Shapes(*sides)


@pytest.mark.parametrize(
    "changes",
    [
        {"onnx": "b" * 64},
        {"precision": "int8"},
        {"tensorrt": "10.3.1"},
        {"device": dataclasses.replace(DEVICE, name="NVIDIA H100 PCIe")},
        {"device": dataclasses.replace(DEVICE, capability=(9, 1))},
        {"shapes": Shapes((1, 65, 64), *dataclasses.astuple(SHAPES)[1:])},
        {"reach": "ampere"},
        {"version_compatible": True},
        {"settings": {"level": "5"}},
    ],
)
def test_different_plans_have_different_names(changes: dict[str, Any]) -> None:
    assert make(**changes).name != make().name


def test_names_are_readable_and_fit_every_file_system() -> None:
    name = make().name
    assert name.startswith("fp16-1x1080x1920-NVIDIA-H100-80GB-HBM3-tensorrt-10.3.0-")
    assert re.fullmatch(r"[A-Za-z0-9.-]+", name)


def test_the_results_of_a_build_do_not_change_the_name() -> None:
    assert make(seconds=5.0, built="now", psnr=60.0, computed="mixed").name == make().name
