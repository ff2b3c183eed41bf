"""A machine with a GPU and TensorRT, in this process."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sr_deploy.bundle.bundle import Bundle
from sr_export.trt import worker
from sr_export.trt.build import Machine, PlanBuilder
from sr_export.trt.build_request import BuildSettings
from tests.fakes import cuda as fake_cuda
from tests.fakes import tensorrt as fake_tensorrt
from tests.fakes.tensorrt import FakeTensorRt
from tests.sr_export.trt.bundles import write_bundle


class InProcess:
    """Calls the child's functions in this process, where the fakes are."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def call(self, name: str, stage: str, **arguments: object) -> dict[str, Any]:
        self.stages.append(stage)
        sent = json.loads(json.dumps(arguments))
        answer = getattr(worker, name)(progress=self.stages.append, **sent)
        result: dict[str, Any] = json.loads(json.dumps(answer))
        return result


class Workshop:
    """Builds with a fake TensorRT.

    Attributes:
        tensorrt: The fake.
        bundle: A bundle of a small network in FP32, FP16 and INT8.
        worker: What was called.
    """

    def __init__(self, tensorrt: FakeTensorRt, folder: Path) -> None:
        self.tensorrt = tensorrt
        self.bundle = Bundle.open(folder)
        self.worker = InProcess()

    def building(self, **settings: Any) -> PlanBuilder:
        """Return a builder; with TensorRT for RTX, of portable plans."""
        if self.tensorrt.rtx:
            settings = {"compatibility": "rtx"} | settings
        chosen = BuildSettings(**settings)
        index = None if self.tensorrt.rtx else 0
        machine = Machine.of(self.worker, chosen.library, index)
        return PlanBuilder(self.bundle, chosen, machine, self.worker)


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that nobody changes."""
    return write_bundle(tmp_path_factory.mktemp("engine") / "net.srd")


@pytest.fixture
def workshop(
    monkeypatch: pytest.MonkeyPatch, exported: Path, tmp_path: Path
) -> Iterator[Callable[[str], Workshop]]:
    """Makes a machine with a version of TensorRT, and a bundle of its own."""
    cuda = fake_cuda.install(monkeypatch)
    folder = tmp_path / "net.srd"
    shutil.copytree(exported, folder)
    yield lambda version: Workshop(fake_tensorrt.install(monkeypatch, version, cuda), folder)
    fake_tensorrt.uninstall()
    gc.collect()
    assert cuda.leaks == {}
