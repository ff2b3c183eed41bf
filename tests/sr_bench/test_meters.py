"""Meters read what the machine provides, and return None otherwise."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_bench import meters
from sr_bench.meters import GpuMeter, ProcessorMeter


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak of a process")
def test_the_peak_includes_freed_memory() -> None:
    meters.reset_peak()
    before = meters.peak_memory()
    held = np.ones(256 << 20, np.uint8)
    del held
    after = meters.peak_memory()
    assert before is not None
    assert after is not None
    assert after - before >= 200 << 20  # other memory may have been freed since


def test_a_system_without_a_peak_has_none(tmp_path: Path) -> None:
    meters.reset_peak(tmp_path)
    assert meters.peak_memory(tmp_path) is None


def _package(root: Path, name: str, counter: int, span: int = 1_000_000) -> Path:
    folder = root / "sys/class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "energy_uj").write_text(f"{counter}\n")
    (folder / "max_energy_range_uj").write_text(f"{span}\n")
    return folder


def test_packages_are_added_up_without_their_parts(tmp_path: Path) -> None:
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        _package(tmp_path, name, 0)
    meter = ProcessorMeter(tmp_path)
    for name in ("intel-rapl:0", "intel-rapl:1", "intel-rapl:0:0"):
        _package(tmp_path, name, 250_000)
    assert meter.joules() == 0.5
    assert meter.joules() == 0.0


def test_a_counter_that_wraps_around_continues(tmp_path: Path) -> None:
    _package(tmp_path, "intel-rapl:0", 900_000)
    meter = ProcessorMeter(tmp_path)
    _package(tmp_path, "intel-rapl:0", 100_000)
    assert meter.joules() == 0.2


def test_without_counters_there_is_no_energy(tmp_path: Path) -> None:
    assert ProcessorMeter(tmp_path).joules() is None
    folder = _package(tmp_path, "intel-rapl:0", 0)
    meter = ProcessorMeter(tmp_path)
    (folder / "energy_uj").write_text("nonsense")
    assert meter.joules() is None


class FakeLibrary:
    """A fake of NVML."""

    def __init__(self, failure: int = 0) -> None:
        self.millijoules = 1000
        self._failure = failure

    def nvmlInit_v2(self) -> int:
        return self._failure

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, device: Any) -> int:
        return index

    def nvmlDeviceGetTotalEnergyConsumption(self, device: Any, counted: Any) -> int:
        ctypes.cast(counted, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return 0


def test_a_gpu_counts_in_millijoules() -> None:
    library = FakeLibrary()
    meter = GpuMeter(lambda name: library)  # type: ignore[return-value]
    library.millijoules = 3500
    assert meter.joules() == 2.5


def test_a_gpu_without_a_counter_has_no_energy() -> None:
    def missing(name: str) -> ctypes.CDLL:
        raise OSError(name)

    assert GpuMeter(missing).joules() is None
    assert GpuMeter(lambda name: FakeLibrary(failure=1)).joules() is None  # type: ignore[return-value]


def _tool(folder: Path, monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\necho '{answer}'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_driver_reports_the_gpu_and_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _tool(tmp_path, monkeypatch, "NVIDIA H100, 580.1")
    assert meters.gpu() == ("NVIDIA H100", "580.1")
    assert meters.default_device() == "cuda"
    _tool(tmp_path, monkeypatch, "4711, 512")
    assert meters.gpu_memory(4711) == 512 << 20
    assert meters.gpu_memory(4712) is None


def test_without_the_drivers_tool_there_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert meters.gpu() == (None, None)
    assert meters.default_device() == "cpu"
    assert meters.gpu_memory(1) is None
