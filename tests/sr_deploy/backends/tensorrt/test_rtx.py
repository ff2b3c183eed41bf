"""Portable plans of TensorRT for RTX: validated at their first use on a GPU."""

from __future__ import annotations

import dataclasses
import shutil
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import Engine
from sr_deploy.bundle import plan_store
from sr_deploy.bundle.plan_store import GpuInfo, PlanRecord, PlanRequest, StoredPlan
from sr_deploy.errors import BackendError, DriverError
from sr_deploy.files import sha256_of
from sr_deploy.tiling import native
from sr_export.trt import build, plan_trial
from tests.fakes import tensorrt as fake_tensorrt
from tests.fakes.cuda import FakeCuda
from tests.fakes.tensorrt import RTX, FakeTensorRt
from tests.sr_deploy.oracles import frame
from tests.sr_export.trt.bundles import write_bundle
from tests.sr_export.trt.conftest import InProcess

HERE = GpuInfo("Fake GPU", (9, 0), "for CUDA 12.8")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bundle(tmp_path_factory.mktemp("rtx") / "net.srd")


@pytest.fixture
def bundle(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "net.srd"))


@pytest.fixture
def install(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], FakeTensorRt]]:
    """Installs a fake library; builds and validations run in this process."""
    monkeypatch.setattr(native, "kernels", lambda: None)
    started: list[InProcess] = []

    class Process(InProcess):
        def __init__(self, _: Any) -> None:
            super().__init__()
            started.append(self)

        def __enter__(self) -> Process:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    for module in (build, plan_trial):
        monkeypatch.setattr(module, "TensorRtProcess", Process)
    functions = {
        ("sr_deploy.plan_builders", "tensorrt_rtx"): build.build_portable_plan,
        ("sr_deploy.plan_builders", "tensorrt"): build.build_plan,
        ("sr_deploy.plan_validators", "tensorrt_rtx"): plan_trial.judge_plan,
        ("sr_deploy.plan_validators", "tensorrt"): plan_trial.judge_plan,
    }

    def entry_points(group: str, name: str) -> list[Any]:
        return [types.SimpleNamespace(load=lambda: functions[group, name])]

    monkeypatch.setattr("importlib.metadata.entry_points", entry_points)
    yield lambda version: fake_tensorrt.install(monkeypatch, version, gpu)
    fake_tensorrt.uninstall()


def portable(bundle: Path) -> PlanRecord:
    """Build a portable FP16 plan, as the exporter does."""
    return build.build_portable_plan(bundle, "fp16", "rgb24", 0)


def files(bundle: Path, suffix: str) -> list[Path]:
    return sorted((bundle / "engines").glob(f"*.{suffix}"))


def test_a_portable_plan_names_no_gpu(bundle: Path, install: Callable[[str], FakeTensorRt]) -> None:
    install(RTX)
    record = portable(bundle)

    assert record.device is None
    assert (record.library, record.tensorrt, record.reach) == ("tensorrt_rtx", RTX, "rtx")
    assert record.device_memory == 4096  # as the library reported while it built
    assert "Fake" not in record.name
    other = dataclasses.replace(HERE, name="Other GPU", capability=(12, 0))
    request = PlanRequest(record.onnx, "fp16", RTX, other, library="tensorrt_rtx")
    assert len(plan_store.find(bundle, request).plans) == 1


def test_the_first_use_validates_the_plan_and_keeps_verdict_and_kernels(
    bundle: Path, install: Callable[[str], FakeTensorRt], gpu: FakeCuda
) -> None:
    library = install(RTX)
    portable(bundle)
    assert files(bundle, "verdict") == []
    image = frame(70, 80)
    with Engine(bundle, backend="tensorrt_rtx", build="never") as engine:
        assert (engine.spec.backend, engine.spec.precision) == ("tensorrt_rtx", "fp16")
        found = engine.upscale(image)
    with Engine(bundle, backend="onnxruntime", precision="fp32") as engine:
        expected = engine.upscale(image)
    assert np.abs(found.astype(int) - expected).max() <= 1

    (verdict,) = files(bundle, "verdict")
    assert "Fake-GPU-for-CUDA-12-8" in verdict.name
    (kernels,) = files(bundle, "kernels")
    assert b"1x70x80x3" in kernels.read_bytes()
    assert len(library.builds) == 1

    # The next use neither validates nor compiles again.
    before = verdict.stat().st_mtime_ns, kernels.stat().st_mtime_ns
    with Engine(bundle, backend="tensorrt_rtx", build="never") as engine:
        engine.upscale(image)
    assert (verdict.stat().st_mtime_ns, kernels.stat().st_mtime_ns) == before


def test_another_driver_needs_another_verdict(
    bundle: Path, install: Callable[[str], FakeTensorRt], gpu: FakeCuda
) -> None:
    install(RTX)
    portable(bundle)
    for version in (12080, 13000):
        gpu.driver_version = version
        Engine(bundle, backend="tensorrt_rtx", build="never").close()
    assert len(files(bundle, "verdict")) == 2
    assert len(files(bundle, "kernels")) == 2


def test_stale_kernels_are_replaced(bundle: Path, install: Callable[[str], FakeTensorRt]) -> None:
    install(RTX)
    portable(bundle)
    Engine(bundle, backend="tensorrt_rtx", build="never").close()
    (kernels,) = files(bundle, "kernels")
    kernels.write_bytes(b"of another driver:1x1x1x3")

    with Engine(bundle, backend="tensorrt_rtx", build="never") as engine:
        engine.upscale(frame(70, 80))

    assert kernels.read_bytes().startswith(RTX.encode())


@pytest.mark.parametrize("fault", ["black", "noise"])
def test_a_wrong_plan_is_not_used_and_fp32_follows(
    bundle: Path,
    install: Callable[[str], FakeTensorRt],
    fault: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    library = install(RTX)
    library.faults = [fault]
    portable(bundle)

    with Engine(bundle, backend="tensorrt_rtx") as engine:
        assert engine.spec.precision == "fp32"
    assert "dB" in caplog.text

    # The verdict is kept: the plan is not tried again.
    with pytest.raises(BackendError, match="dB"):
        Engine(bundle, backend="tensorrt_rtx", precision="fp16")


def test_a_damaged_plan_never_reaches_the_library(
    bundle: Path, install: Callable[[str], FakeTensorRt]
) -> None:
    install(RTX)
    record = portable(bundle)
    assert record.plan is not None
    path = bundle / "engines" / record.plan.file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(Exception, match="SHA-256"):
        Engine(bundle, backend="tensorrt_rtx", precision="fp16", build="never")
    assert files(bundle, "verdict") == []


def test_a_fault_of_the_driver_says_nothing_about_the_plan(
    bundle: Path, install: Callable[[str], FakeTensorRt], gpu: FakeCuda
) -> None:
    install(RTX)
    portable(bundle)
    gpu.driver_fault = "cudaError 35: CUDA driver version is insufficient"

    with pytest.raises(DriverError, match="insufficient"):
        Engine(bundle, backend="tensorrt_rtx", precision="fp16")
    assert files(bundle, "verdict") == []

    gpu.driver_fault = ""
    Engine(bundle, backend="tensorrt_rtx", precision="fp16", build="never").close()
    assert len(files(bundle, "verdict")) == 1


def test_a_fault_of_the_driver_is_no_refusal_of_a_build(
    bundle: Path, install: Callable[[str], FakeTensorRt], gpu: FakeCuda
) -> None:
    install("10.3.0")
    gpu.driver_fault = "cudaError 999: unknown error"
    with pytest.raises(DriverError):
        build.build_plan(bundle, "fp16", "rgb24", 0)
    assert files(bundle, "json") == []


def test_auto_uses_the_portable_plan_rather_than_minutes_of_building(
    bundle: Path, install: Callable[[str], FakeTensorRt], caplog: pytest.LogCaptureFixture
) -> None:
    library = install("10.3.0")
    install(RTX)
    portable(bundle)

    with Engine(bundle) as engine:
        assert (engine.spec.backend, engine.spec.precision) == ("tensorrt_rtx", "fp16")
    assert library.builds == []
    assert caplog.messages == []

    # A plan of TensorRT for this GPU is faster.
    build.build_plan(bundle, "fp16", "rgb24", 0)
    with Engine(bundle) as engine:
        assert (engine.spec.backend, engine.spec.precision) == ("tensorrt", "fp16")


def test_turing_needs_a_plan_of_its_own(
    bundle: Path, install: Callable[[str], FakeTensorRt]
) -> None:
    library = install(RTX)
    record = portable(bundle)
    request = PlanRequest(
        record.onnx, "fp16", RTX, dataclasses.replace(HERE, capability=(7, 5)), None, "tensorrt_rtx"
    )
    (reason,) = plan_store.find(bundle, request).reasons
    assert "8.0" in reason
    assert "7.5" in reason
    assert library.builds[0].capabilities == {}

    turing = dataclasses.replace(record, reach="turing", plan=None)
    stored = plan_store.write(bundle, turing, b"plan")
    assert isinstance(stored, StoredPlan)
    assert [each.record.reach for each in plan_store.find(bundle, request).plans] == ["turing"]
    assert sha256_of(stored.path) == stored.record.plan.sha256


def test_a_graph_is_not_captured_if_the_plan_allocates_memory(
    bundle: Path, install: Callable[[str], FakeTensorRt], gpu: FakeCuda
) -> None:
    library = install(RTX)
    for memory, captured in ((4096, True), (5 << 30, False)):
        library.memory = memory
        gpu.total = 32 << 30
        shutil.rmtree(bundle / "engines", ignore_errors=True)
        portable(bundle)
        flags = library.builds[-1].flags
        assert ("REQUIRE_USER_ALLOCATION" in flags) == captured
