from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable

import pytest

from sr_deploy.bundle import plan_store
from sr_deploy.bundle.manifest import Precision, Variant
from sr_deploy.bundle.plan_store import PlanRecord, PlanRequest, Shapes
from sr_deploy.errors import BackendError, BundleError
from sr_export.trt.build import PlanBuilder
from tests.fakes.tensorrt import VERSIONS
from tests.sr_export.trt.conftest import Workshop

Open = Callable[[str], Workshop]

SHAPES = Shapes((1, 32, 32), (1, 120, 150), (1, 200, 200))


def variant(workshop: Workshop, precision: Precision) -> Variant:
    found = workshop.bundle.variant(precision, "rgb24")
    assert found is not None
    return found


def wanted(record: PlanRecord) -> PlanRequest:
    assert record.device is not None
    return PlanRequest(record.onnx, record.precision, record.tensorrt, record.device)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_version_builds_every_precision_with_correct_images(
    workshop: Open, version: str, precision: Precision
) -> None:
    shop = workshop(version)

    record = shop.building().build(variant(shop, precision), SHAPES)

    assert record.plan is not None, record.refused
    assert record.refused == ()
    assert record.computed == "asked"
    assert record.psnr is None or record.psnr > 42
    assert record.compared.startswith("FP32 in onnxruntime on a CPU, photos of 1x120x150, 1x32x32")
    assert record.tensorrt == version
    assert record.device is not None
    assert record.device.name == "Fake GPU"
    assert record.device_memory == 4096
    (plan,) = plan_store.find(shop.bundle.folder, wanted(record)).plans
    assert plan.record == record
    assert len(plan.read()) == record.size


@pytest.mark.parametrize(
    ("version", "creation"),
    [
        ("8.6.0", {"EXPLICIT_BATCH"}),
        ("10.3.0", {"STRONGLY_TYPED"}),
        ("11.4.0.106", set()),
    ],
)
def test_int8_gets_flags_if_the_network_is_not_strongly_typed(
    workshop: Open, version: str, creation: set[str]
) -> None:
    shop = workshop(version)

    shop.building().build(variant(shop, "int8"), SHAPES)

    (config,) = shop.tensorrt.builds
    assert config.creation == creation
    precisions = {"INT8", "FP16"} if version.startswith("8.") else set()
    assert config.flags == precisions | {"TF32"}


def test_without_fast_int8_no_plan_is_built_and_the_record_has_the_reason(workshop: Open) -> None:
    shop = workshop("8.6.0")
    shop.tensorrt.fast_int8 = False

    record = shop.building().build(variant(shop, "int8"), SHAPES)

    assert record.plan is None
    assert all("INT8" in each for each in record.refused)
    assert shop.tensorrt.builds == []
    assert shop.building().build(variant(shop, "fp16"), SHAPES).plan is not None


def test_fp32_is_not_rounded_to_tf32(workshop: Open) -> None:
    shop = workshop("10.3.0")

    shop.building().build(variant(shop, "fp32"), SHAPES)

    assert "TF32" not in shop.tensorrt.builds[0].flags


def test_bf16_is_built_from_an_fp32_file_with_a_flag(workshop: Open) -> None:
    shop = workshop("10.16.1.11")

    record = shop.building().build(variant(shop, "bf16"), SHAPES)

    assert record.plan is not None, record.refused
    assert shop.tensorrt.builds[0].flags == {"BF16", "TF32"}
    assert shop.tensorrt.builds[0].creation == set()


@pytest.mark.parametrize("version", ["8.6.0", "11.4.0.106"])
def test_bf16_from_an_fp32_file_is_rejected_without_a_flag(workshop: Open, version: str) -> None:
    shop = workshop(version)

    with pytest.raises(BackendError, match=r"bf16.*fp32\.onnx"):
        shop.building().build(variant(shop, "bf16"), SHAPES)


def test_16_bit_frames(workshop: Open) -> None:
    shop = workshop("10.3.0")
    deep = shop.bundle.variant("fp32", "rgb48")
    assert deep is not None

    record = shop.building().build(deep, SHAPES)

    assert record.plan is not None, record.refused
    assert record.psnr is None or record.psnr > 60


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("black", "one color"),
        ("noise", "dB from the input"),
        ("refused", "Could not find any implementation"),
    ],
)
@pytest.mark.parametrize("version", ["8.6.0", "10.3.0", "11.4.0.106"])
def test_wrong_images_are_rejected_and_the_next_recipe_is_tried(
    workshop: Open, version: str, fault: str, reason: str
) -> None:
    shop = workshop(version)
    shop.tensorrt.faults = [fault]

    record = shop.building().build(variant(shop, "int8"), SHAPES)

    assert record.plan is not None, record.refused
    assert record.computed == "mixed"
    (refused,) = record.refused
    assert reason in refused


def test_if_every_recipe_fails_only_the_record_is_written(workshop: Open) -> None:
    shop = workshop("10.3.0")
    shop.tensorrt.faults = ["black", "noise"]

    record = shop.building().build(variant(shop, "fp16"), SHAPES)

    assert record.plan is None
    found = plan_store.find(shop.bundle.folder, wanted(record))
    assert found.plans == ()
    assert len(found.refused) == 2
    assert not list((shop.bundle.folder / plan_store.FOLDER).glob("*.plan"))


def test_a_refused_plan_is_built_again_on_request(workshop: Open) -> None:
    shop = workshop("10.3.0")
    shop.tensorrt.faults = ["black", "noise"]
    shop.building().build(variant(shop, "fp16"), SHAPES)

    record = shop.building().build(variant(shop, "fp16"), SHAPES)

    assert record.plan is not None, record.refused
    assert plan_store.find(shop.bundle.folder, wanted(record)).refused == ()


def test_an_existing_plan_is_not_built_again(workshop: Open) -> None:
    shop = workshop("10.3.0")
    first = shop.building().build(variant(shop, "fp16"), SHAPES)

    second = shop.building().build(variant(shop, "fp16"), SHAPES)

    assert second == first
    assert len(shop.tensorrt.builds) == 1
    shop.building().build(variant(shop, "fp16"), SHAPES, rebuild=True)
    assert len(shop.tensorrt.builds) == 2


def test_a_damaged_plan_is_built_again(workshop: Open) -> None:
    shop = workshop("10.3.0")
    record = shop.building().build(variant(shop, "fp16"), SHAPES)
    assert record.plan is not None, record.refused
    (shop.bundle.folder / plan_store.FOLDER / record.plan.file).write_bytes(b"damaged")

    shop.building().build(variant(shop, "fp16"), SHAPES)

    assert len(shop.tensorrt.builds) == 2
    (plan,) = plan_store.find(shop.bundle.folder, wanted(record)).plans
    plan.read()


def test_plans_of_other_machines_and_settings_are_kept(workshop: Open) -> None:
    shop = workshop("10.3.0")
    record = shop.building().build(variant(shop, "fp16"), SHAPES)
    assert record.device is not None
    elsewhere = dataclasses.replace(
        record, device=dataclasses.replace(record.device, name="NVIDIA Orin")
    )
    other = plan_store.write(shop.bundle.folder, elsewhere, b"another machine's")
    assert other is not None

    shop.building().build(variant(shop, "fp16"), SHAPES, rebuild=True)
    shop.building(optimization_level=5).build(variant(shop, "fp16"), SHAPES)

    assert other.read() == b"another machine's"
    assert len(plan_store.find(shop.bundle.folder, wanted(record)).plans) == 2


def test_settings_reach_tensorrt_and_the_record(workshop: Open) -> None:
    shop = workshop("10.16.1.11")
    building = shop.building(
        workspace=1 << 28,
        optimization_level=4,
        streams=1,
        dla=0,
        version_compatible=True,
        compatibility="capability",
    )

    record = building.build(variant(shop, "fp16"), SHAPES)

    (config,) = shop.tensorrt.builds
    assert config.limits == {"WORKSPACE": 1 << 28}
    assert (config.builder_optimization_level, config.max_aux_streams) == (4, 1)
    assert (config.DLA_core, config.default_device_type.name) == (0, "DLA")
    assert config.flags == {"TF32", "GPU_FALLBACK", "VERSION_COMPATIBLE"}
    assert config.hardware_compatibility_level.name == "SAME_COMPUTE_CAPABILITY"
    assert record.settings == {
        "workspace": str(1 << 28),
        "level": "4",
        "streams": "1",
        "dla": "0",
    }
    assert record.version_compatible
    assert record.reach == "capability"


def test_a_setting_that_the_version_lacks_is_reported(workshop: Open) -> None:
    shop = workshop("10.3.0")

    record = shop.building(compatibility="capability").build(variant(shop, "fp16"), SHAPES)

    assert record.plan is None
    assert "capability" in record.refused[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_plans_need_no_library_except_tensorrt(workshop: Open, version: str) -> None:
    shop = workshop(version)

    shop.building().build(variant(shop, "fp16"), SHAPES)

    (config,) = shop.tensorrt.builds
    tactics = {each.name for each in shop.tensorrt.TacticSource if config.tactics >> each & 1}
    assert tactics == {"EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"}
    assert bool(config.preview) == version.startswith("8.")


def test_shapes_reach_tensorrt(workshop: Open) -> None:
    shop = workshop("8.6.0")

    shop.building().build(variant(shop, "fp16"), SHAPES)

    (profile,) = shop.tensorrt.builds[0].profiles
    limits = [[1, 32, 32, 3], [1, 120, 150, 3], [1, 200, 200, 3]]
    assert profile.shapes == {"pixels": limits}


def test_kernel_timings_are_kept_for_the_next_build(workshop: Open) -> None:
    shop = workshop("10.3.0")
    shop.building().build(variant(shop, "fp16"), SHAPES)
    shop.building().build(variant(shop, "int8"), SHAPES)

    (cache,) = (shop.bundle.folder / plan_store.FOLDER).glob("*.timing.cache")

    assert cache.read_bytes() == b"timed timed "
    assert cache.name == "Fake-GPU-tensorrt-10.3.0.timing.cache"


def test_rejected_timing_caches_are_replaced(
    workshop: Open, caplog: pytest.LogCaptureFixture
) -> None:
    shop = workshop("10.3.0")
    cache = shop.bundle.folder / plan_store.FOLDER / "Fake-GPU-tensorrt-10.3.0.timing.cache"
    cache.parent.mkdir()
    cache.write_bytes(b"foreign")

    shop.building().build(variant(shop, "fp16"), SHAPES)

    assert cache.read_bytes() == b"timed "
    assert cache.name in caplog.text


def test_progress_is_reported_if_tensorrt_reports_it(workshop: Open) -> None:
    for version, told in (("8.6.0", False), ("10.3.0", True)):
        shop = workshop(version)
        shop.building().build(variant(shop, "fp16"), SHAPES)
        assert ("Building, 50%" in shop.worker.stages) == told


def test_a_changed_onnx_file_is_rejected(workshop: Open) -> None:
    shop = workshop("10.3.0")
    (shop.bundle.folder / "fp16.onnx").write_bytes(b"changed")

    with pytest.raises(BundleError, match="fp16"):
        shop.building().build(variant(shop, "fp16"), SHAPES)


def test_black_images_are_rejected_without_a_cpu_backend(
    workshop: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = workshop("10.3.0")
    monkeypatch.setattr("sr_export.trt.plan_validation._CPU_BACKENDS", ("missing",))
    shop.tensorrt.faults = ["black"]

    record = shop.building().build(variant(shop, "fp16"), SHAPES)

    assert record.computed == "mixed"
    assert record.psnr is None
    assert "missing" in record.compared


def test_the_record_equals_its_file(workshop: Open) -> None:
    shop = workshop("10.3.0")
    record = shop.building().build(variant(shop, "fp16"), SHAPES)
    assert record.plan is not None, record.refused

    path = shop.bundle.folder / plan_store.FOLDER / f"{record.name}.json"

    assert plan_store.read(path) == record
    assert json.loads(path.read_text())["shapes"]["most"] == [1, 200, 200]


def test_two_threads_build_the_same_plan_once(workshop: Open) -> None:
    shop = workshop("10.3.0")
    building = [shop.building() for _ in range(2)]
    records: list[PlanRecord] = []

    def build(each: PlanBuilder) -> None:
        records.append(each.build(variant(shop, "fp16"), SHAPES))

    threads = [threading.Thread(target=build, args=(each,)) for each in building]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)

    assert records[0] == records[1]
    assert len(shop.tensorrt.builds) == 1
