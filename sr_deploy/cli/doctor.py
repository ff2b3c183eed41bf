"""`sr-doctor`: check the installation; name missing packages and the command to install each."""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sr_deploy
from sr_deploy import backends, machine
from sr_deploy.backends.cuda import driver
from sr_deploy.cli import console
from sr_deploy.errors import SrDeployError
from sr_deploy.tiling import native

if TYPE_CHECKING:
    from collections.abc import Sequence

_DESCRIPTION = (
    "Check the installation: list the backends and devices, and how to install what is missing."
)

_NVIDIA = Path("/proc/driver/nvidia/version")
_NVIDIA_QUERY = "name,driver_version,memory.total,compute_cap"
_SECONDS = 10

# The purpose of each optional package, and the extra that installs it.
_PACKAGES = {
    "torch": ("export", "export"),
    "onnx": ("export", "export"),
    "onnxscript": ("export", "export"),
    "spandrel": ("export", "export"),
    "safetensors": ("export", "export"),
    "av": ("video", "video"),
}


@dataclass(frozen=True)
class Package:
    """An optional package.

    Attributes:
        name: The name to import.
        purpose: Its use in sr-deploy.
        version: None if it is not installed.
        problem: Why an installed package does not work, or the command that installs it.
        details: What the package reports about this machine.
    """

    name: str
    purpose: str
    version: str | None
    problem: str | None = None
    details: dict[str, str] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class Diagnosis:
    """The findings of `sr-doctor`."""

    sr_deploy: str
    python: str
    system: str
    processor: str
    features: tuple[str, ...]
    cores: int
    free_memory: int
    gpus: tuple[str, ...]
    backends: tuple[Package, ...]
    packages: tuple[Package, ...]


def diagnose() -> Diagnosis:
    """Check this machine. Problems are reported, never raised."""
    return Diagnosis(
        sr_deploy=sr_deploy.__version__,
        python=f"{platform.python_version()} at {sys.executable}",
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        processor=machine.processor(),
        features=machine.features(),
        cores=machine.cores(),
        free_memory=machine.free_memory(),
        gpus=_gpus(),
        backends=tuple(_backend(name) for name in backends.REGISTRY),
        packages=tuple(_package(name, *about) for name, about in _PACKAGES.items()),
    )


def _backend(name: str) -> Package:
    """Import a backend's package and list its devices."""
    entry = backends.REGISTRY[name]
    version = _version(entry.package)
    if name not in backends.available():
        return Package(name, "inference", None, entry.install)
    try:
        module = importlib.import_module(entry.package)
        details = _ASKED[name](module)
    except Exception as error:  # noqa: BLE001 - any failure of the package is a finding
        return Package(name, "inference", version, console.describe(error))
    return Package(name, "inference", version, None, details)


def _ask_tensorrt(_: Any) -> dict[str, str]:
    """Return the GPUs that CUDA finds, and whether the kernels for tiles are compiled."""
    found = {"cuda-python": _version("cuda") or "unknown"}
    for index in range(driver.count()):
        device = driver.describe(index)
        capability = ".".join(map(str, device.capability))
        free, total = map(machine.format_bytes, driver.memory(index))
        found[f"cuda:{index}"] = (
            f"{device.name}, compute capability {capability}, {free} of {total} free"
        )
    built = native.kernels() is not None
    found["kernels"] = "built" if built else "not built (no nvcc when sr-deploy was installed)"
    return found


def _ask_tensorrt_rtx(module: Any) -> dict[str, str]:
    """Return the same; without a GPU, the library still builds plans."""
    found = {"portable plans": "are built here, without CUDA or a driver"}
    try:
        return found | _ask_tensorrt(module)
    except SrDeployError as error:
        return found | {"running them": f"not possible: {error}"}


def _ask_openvino(openvino: Any) -> dict[str, str]:
    """Return OpenVINO's devices with their precisions."""
    return {device: _precisions("openvino", device) for device in openvino.Core().available_devices}


def _ask_onnxruntime(onnxruntime: Any) -> dict[str, str]:
    """Return ONNX Runtime's devices with their precisions."""
    providers = onnxruntime.get_available_providers()
    found = {
        device: _precisions("onnxruntime", device)
        for device in ("cpu", "cuda", "tensorrt")
        if f"{device}ExecutionProvider".lower() in map(str.lower, providers)
    }
    return {"providers": ", ".join(providers)} | found


def _precisions(backend: str, device: str) -> str:
    return ", ".join(backends.create(backend).precisions(device)) + " (fastest first)"


_ASKED = {
    "tensorrt": _ask_tensorrt,
    "tensorrt_rtx": _ask_tensorrt_rtx,
    "openvino": _ask_openvino,
    "onnxruntime": _ask_onnxruntime,
}


def _package(name: str, purpose: str, extra: str) -> Package:
    """Look up a package without importing it."""
    version = _version(name)
    problem = None if version else f"pip install sr-deploy[{extra}]"
    return Package(name, purpose, version, problem)


def _version(package: str) -> str | None:
    """Return the version of the distribution that provides a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        pass
    # onnxruntime-gpu provides `onnxruntime`, too.
    for distribution in importlib.metadata.packages_distributions().get(package, ()):
        return importlib.metadata.version(distribution)
    return None


def _gpus() -> tuple[str, ...]:
    """Return a line for each NVIDIA GPU, or one about the driver if nvidia-smi fails."""
    command = shutil.which("nvidia-smi")
    if command:
        try:
            answer = subprocess.run(  # noqa: S603 - a fixed command, found on the PATH
                [command, f"--query-gpu={_NVIDIA_QUERY}", "--format=csv,noheader"],
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=True,
            )
            return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip())
        except (OSError, subprocess.SubprocessError) as error:
            return (f"nvidia-smi fails: {console.describe(error)}",)
    try:
        return (_NVIDIA.read_text(encoding="utf-8", errors="replace").splitlines()[0],)
    except (OSError, IndexError):
        return ()


def _lines(found: Diagnosis) -> list[str]:
    """Format the findings as text."""
    lines = [
        f"sr-deploy     {found.sr_deploy}",
        f"Python        {found.python}",
        f"system        {found.system}",
        f"processor     {found.processor}",
        f"  features    {', '.join(found.features) or 'unknown'}",
        f"  cores       {found.cores} available",
        f"memory        {machine.format_bytes(found.free_memory)} free",
        *(f"GPU           {gpu}" for gpu in found.gpus or ("no NVIDIA GPU",)),
        "",
        "backends, fastest first",
    ]
    for package in found.backends:
        lines.append(_line(package))
        lines += [f"                  {name}: {value}" for name, value in package.details.items()]
    lines += ["", "packages for export and video", *map(_line, found.packages)]
    return lines


def _line(package: Package) -> str:
    if package.version is None:
        return f"  {package.name:<14}  not installed ({package.purpose}): {package.problem}"
    broken = f"  BROKEN: {package.problem}" if package.problem else ""
    return f"  {package.name:<14}  {package.version}{broken}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run `sr-doctor`."""
    parser = argparse.ArgumentParser("sr-doctor", description=_DESCRIPTION)
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    return console.run(parser, _command, argv)


def _command(arguments: argparse.Namespace) -> int:
    found = diagnose()
    if arguments.json:
        console.say_json(dataclasses.asdict(found), indent=2)
    else:
        for line in _lines(found):
            console.say(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
