"""A machine with a GPU and TensorRT, in this process."""

from __future__ import annotations

import gc
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sr_deploy.bundle import Bundle
from sr_export.engine import worker
from sr_export.engine.building import Building, Machine
from sr_export.engine.order import Settings
from tests.export.engine.bundles import write_bundle
from tests.runtime import fake_cuda
from tests.tensorrt import fake_tensorrt
from tests.tensorrt.fake_tensorrt import FakeTensorRt


class InProcess:
    """Does what `process.Worker` does, without a process, so that fakes can be seen."""

    def __init__(self) -> None:
        self.stages: list[str] = []

    def call(self, name: str, stage: str, **arguments: object) -> dict[str, Any]:
        self.stages.append(stage)
        sent = json.loads(json.dumps(arguments))
        answer = worker._CALLS[name](sent, self.stages.append)
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

    @property
    def machine(self) -> Machine:
        return Machine.of(self.worker, 0)

    def building(self, **settings: Any) -> Building:
        return Building(self.bundle, Settings(**settings), self.machine, self.worker)


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
