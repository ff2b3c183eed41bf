"""Plans built by NVIDIA's real TensorRT for RTX, which needs neither CUDA nor a driver for it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from sr_deploy import Engine, backends
from sr_deploy.backends.tensorrt.contexts import LoadedPlan, library
from sr_deploy.bundle import plan_store
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Precision
from sr_deploy.bundle.plan_store import Compatibility, GpuInfo, PlanRequest, Shapes, StoredPlan
from sr_deploy.errors import BackendMissingError, BundleError, DriverError
from sr_export import cli
from sr_export.trt import command
from sr_export.trt.build import Machine, PlanBuilder
from sr_export.trt.build_request import BuildSettings
from sr_export.trt.worker import TensorRtProcess

pytestmark = pytest.mark.skipif(
    "tensorrt_rtx" not in backends.available(), reason="needs TensorRT for RTX: sr-deploy[rtx]"
)
without_gpu = pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="needs no GPU")

BLACKWELL = GpuInfo("NVIDIA GeForce RTX 5090", (12, 0), "580.65.06 for CUDA 13.0")
TURING = GpuInfo("NVIDIA GeForce RTX 2080", (7, 5), "580.65.06 for CUDA 13.0")
SHAPES = Shapes((1, 32, 32), (1, 120, 160), (1, 200, 200))


@pytest.fixture(scope="module")
def plans(exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with real plans: of all precisions, and one for Turing."""
    folder = Path(shutil.copytree(exported, tmp_path_factory.mktemp("real") / "net.srd"))
    bundle = Bundle.open(folder)
    kinds: list[tuple[Precision, Compatibility]] = [
        ("fp32", "rtx"),
        ("fp16", "rtx"),
        ("int8", "rtx"),
        ("fp16", "turing"),
    ]
    with TensorRtProcess(lambda _: None) as process:
        machine = Machine.of(process, "tensorrt_rtx", None)
        for precision, compatibility in kinds:
            variant = bundle.variant(precision, "rgb24")
            assert variant is not None
            settings = BuildSettings(compatibility=compatibility)
            record = PlanBuilder(bundle, settings, machine, process).build(variant, SHAPES)
            assert record.plan is not None, record.refused
    return folder


def found(folder: Path, precision: Precision, gpu: GpuInfo) -> plan_store.FoundPlan:
    variant = Bundle.open(folder).variant(precision, "rgb24")
    assert variant is not None
    version = library("tensorrt_rtx").__version__
    request = PlanRequest(variant.sha256, precision, version, gpu, library="tensorrt_rtx")
    return plan_store.find(folder, request)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_every_precision_is_built_and_found_on_every_rtx_gpu(
    plans: Path, precision: Precision
) -> None:
    for capability in ((8, 6), (8, 9), (12, 0)):
        gpu = GpuInfo(f"GPU {capability}", capability, "")
        (plan,) = found(plans, precision, gpu).plans
        record = plan.record
        assert (record.library, record.reach, record.device) == ("tensorrt_rtx", "rtx", None)
        assert record.tensorrt == library("tensorrt_rtx").__version__
        # The library reports what the plan needs: at least a layer of 8 half features.
        assert record.device_memory > 200 * 200 * 8 * 2
        assert len(plan.read()) == record.size > 10_000
        assert record.psnr is None


def test_turing_gets_its_own_plan_and_refuses_the_others(plans: Path) -> None:
    (plan,) = found(plans, "fp16", TURING).plans
    assert plan.record.reach == "turing"
    (reason,) = found(plans, "fp32", TURING).reasons
    assert "8.0" in reason
    assert "7.5" in reason
    assert [each.record.reach for each in found(plans, "fp16", BLACKWELL).plans] == ["rtx"]


def test_a_flipped_bit_is_found(plans: Path, tmp_path: Path) -> None:
    (plan,) = found(plans, "fp16", BLACKWELL).plans
    content = bytearray(plan.read())
    content[len(content) // 2] ^= 1
    copy = StoredPlan(tmp_path, plan.record)
    copy.path.write_bytes(content)
    with pytest.raises(BundleError, match="SHA-256"):
        copy.read()


@without_gpu
def test_without_a_driver_the_plan_is_refused_and_nothing_is_recorded(plans: Path) -> None:
    (plan,) = found(plans, "fp16", BLACKWELL).plans
    before = sorted(each.name for each in plan.folder.iterdir())

    with pytest.raises(DriverError, match=r"driver"):
        LoadedPlan(library("tensorrt_rtx"), plan.read(), plan.path.name)
    with pytest.raises((BackendMissingError, DriverError), match=r"driver|cuda-python"):
        Engine(plans, backend="tensorrt_rtx")

    assert sorted(each.name for each in plan.folder.iterdir()) == before
    with Engine(plans) as engine:  # auto
        assert engine.spec.backend in ("openvino", "onnxruntime")


def test_a_refused_network_is_recorded_in_the_librarys_words(plans: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plans, tmp_path / "net.srd"))
    bundle = Bundle.open(folder)
    variant = bundle.variant("fp32", "rgb24")
    assert variant is not None
    with TensorRtProcess(lambda _: None) as process:
        machine = Machine.of(process, "tensorrt_rtx", None)
        settings = BuildSettings(compatibility="rtx")
        beyond = Shapes.exactly((1, 1 << 20, 1 << 20))
        record = PlanBuilder(bundle, settings, machine, process).build(variant, beyond)
    assert record.plan is None
    (refused,) = record.refused
    assert "TensorRT for RTX" in refused


def test_the_command_needs_no_gpu(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(exported, tmp_path / "net.srd")
    options = ["--engine", "--compatibility", "rtx", "--tile", "64x80"]

    assert cli.main([str(folder), *options]) == 0

    output = capsys.readouterr().out
    assert "fp16 for 1x64x80, TensorRT for RTX" in output
    assert "not validated yet" in output


@pytest.mark.parametrize(
    "option",
    [["--workspace", "1GiB"], ["--dla", "0"], ["--optimization-level", "5"], ["--streams", "2"]],
)
def test_settings_that_the_library_lacks_are_refused(
    exported: Path, capsys: pytest.CaptureFixture[str], option: list[str]
) -> None:
    assert cli.main([str(exported), "--engine", "--compatibility", "rtx", *option]) == 1
    text = capsys.readouterr().err
    assert option[0] in text
    assert "TensorRT for RTX" in text


def test_an_export_brings_a_plan(plans: Path) -> None:
    line = command.build_portable(plans, lambda _: None)

    assert "fp16" in line
    assert any("1080x1920-rtx" in each.name for each in (plans / "engines").glob("*.plan"))
