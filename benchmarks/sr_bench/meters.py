"""Meters of the machine: memory, energy and GPU; None for values that are not available."""

from __future__ import annotations

import contextlib
import ctypes
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path("/")


def reset_peak(root: Path = ROOT) -> None:
    """Reset the peak memory of this process, where Linux allows it."""
    with contextlib.suppress(OSError):
        (root / "proc/self/clear_refs").write_text("5")


def peak_memory(root: Path = ROOT) -> int | None:
    """Return the peak memory of this process in bytes, since `reset_peak`."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    return None


class Meter(Protocol):
    """An energy counter."""

    def joules(self) -> float | None:
        """Return the energy used since the last call; None: not available."""


class ProcessorMeter:
    """The RAPL counters of all processor packages, for all programs together."""

    def __init__(self, root: Path = ROOT) -> None:
        found = sorted((root / "sys/class/powercap").glob("intel-rapl:[0-9]*"))
        self._packages = [each for each in found if each.name.count(":") == 1]
        self._last = self._read()

    def joules(self) -> float | None:
        """Return the energy used since the last call; see `Meter`."""
        before, self._last = self._last, self._read()
        if not before or len(before) != len(self._last):
            return None
        pairs = zip(before, self._last, strict=True)
        # A counter wraps around after its range.
        return sum((now - then) % span for (then, span), (now, _) in pairs) / 1e6

    def _read(self) -> list[tuple[int, int]]:
        """Return counter and range of each package in microjoules; empty: not readable."""
        try:
            return [
                (
                    int((each / "energy_uj").read_text()),
                    int((each / "max_energy_range_uj").read_text()),
                )
                for each in self._packages
            ]
        except (OSError, ValueError):
            return []


class GpuMeter:
    """The energy counter of the first NVIDIA GPU, through NVML."""

    def __init__(self, load: Callable[[str], ctypes.CDLL] = ctypes.CDLL) -> None:
        self._device = ctypes.c_void_p()
        self._library: ctypes.CDLL | None = None
        with contextlib.suppress(OSError, AttributeError):
            library = load("libnvidia-ml.so.1")
            failed = library.nvmlInit_v2()
            failed = failed or library.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(self._device))
            self._library = None if failed else library
        self._last = self._read()

    def joules(self) -> float | None:
        """Return the energy used since the last call; see `Meter`."""
        before, self._last = self._last, self._read()
        return None if before is None or self._last is None else self._last - before

    def _read(self) -> float | None:
        if self._library is None:
            return None
        counted = ctypes.c_ulonglong()
        failed = self._library.nvmlDeviceGetTotalEnergyConsumption(
            self._device, ctypes.byref(counted)
        )
        return None if failed else counted.value / 1e3


def meter(device: str) -> Meter:
    """Return the energy counter of a device."""
    return ProcessorMeter() if device == "cpu" else GpuMeter()


def gpu() -> tuple[str | None, str | None]:
    """Return name and driver version of the first NVIDIA GPU, if nvidia-smi is installed."""
    line = _nvidia_smi("--query-gpu=name,driver_version")[:1]
    name, _, driver = line[0].partition(", ") if line else ("", "", "")
    return name or None, driver or None


def default_device() -> str:
    """Return the default device: cuda if there is a GPU."""
    return "cpu" if gpu()[0] is None else "cuda"


def gpu_memory(process: int) -> int | None:
    """Return the GPU memory of a process in bytes, if the driver reports it."""
    for line in _nvidia_smi("--query-compute-apps=pid,used_memory"):
        number, _, mebibytes = line.partition(", ")
        if number == str(process) and mebibytes.isdecimal():
            return int(mebibytes) << 20
    return None


def _nvidia_smi(query: str) -> list[str]:
    """Return the output lines of nvidia-smi; none without the tool or a GPU."""
    command = ["nvidia-smi", query, "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in done.stdout.splitlines() if line.strip()]
