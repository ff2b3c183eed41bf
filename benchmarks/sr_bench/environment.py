"""The environment of a measurement: machine, package versions and commit.

Nothing here identifies the machine or its user.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sr_bench import meters
from sr_deploy import machine

if TYPE_CHECKING:
    from sr_deploy.bundle.bundle import Bundle

_PACKAGES = (
    "sr-deploy",
    "numpy",
    "pillow",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "openvino",
    "tensorrt",
    "tensorrt-rtx-cu13-bindings",
    "av",
)


@dataclass(frozen=True)
class Hardware:
    """The hardware that determines speed."""

    cpu: str
    features: tuple[str, ...]
    """Instruction sets that inference uses."""
    cores: int
    """Cores that the process may use, after affinity and quota."""
    free_memory: int
    """Bytes, before the measurement."""
    system: str
    gpu: str | None = None
    """None: no GPU, or no driver tools to query."""
    driver: str | None = None
    """Version of the GPU driver."""


@dataclass(frozen=True)
class Environment:
    """Date, code, hardware and package versions of a record."""

    date: str
    commit: str | None
    """Commit of the sr-deploy checkout; None: an installed package."""
    dirty: bool | None
    """Whether tracked files differed from the commit."""
    device: Hardware
    versions: dict[str, str]

    def machine(self) -> str:
        """Return the sentence that describes hardware and versions."""
        hardware = self.device
        versions = ", ".join(f"{package} {version}" for package, version in self.versions.items())
        gpu = f", {hardware.gpu} (driver {hardware.driver})" if hardware.gpu else ""
        features = ", ".join(hardware.features)
        return f"Measured on {hardware.cpu}, {hardware.cores} cores ({features}){gpu}; {versions}."

    def occasion(self) -> str:
        """Return date and commit."""
        commit = f", commit {self.commit[:10]}" if self.commit else ""
        return f"{self.date[:10]}{commit}{' with changes' if self.dirty else ''}"


@dataclass(frozen=True)
class MeasuredModel:
    """The measured model, from the manifest of its bundle."""

    name: str
    architecture: str
    scale: int
    checkpoint: str
    sha256: str
    """Hash of the checkpoint file."""
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of the ONNX files of the bundle, by file name."""

    def __str__(self) -> str:
        return f"{self.checkpoint} ({self.architecture} x{self.scale})"


def current() -> Environment:
    """Return the environment of this process."""
    folder = Path(__file__).parent
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    gpu, driver = meters.gpu()
    return Environment(
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commit=_git(folder, "rev-parse", "HEAD"),
        dirty=None if changes is None else bool(changes),
        device=Hardware(
            cpu=machine.processor(),
            features=machine.features(),
            cores=machine.cores(),
            free_memory=machine.free_memory(),
            system=f"{platform.system()} {platform.machine()}",
            gpu=gpu,
            driver=driver,
        ),
        versions=versions(),
    )


def measured_model(bundle: Bundle) -> MeasuredModel:
    """Return the model of a bundle."""
    manifest = bundle.manifest
    return MeasuredModel(
        name=manifest.name,
        architecture=manifest.model.architecture,
        scale=manifest.model.scale,
        checkpoint=manifest.source.name,
        sha256=manifest.source.sha256,
        files={manifest.onnx.file: manifest.onnx.sha256}
        | {each.file: each.sha256 for each in manifest.variants},
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the installed packages that matter."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    """Return the output of git; None without git, or outside a checkout of sr-deploy."""
    try:
        # A virtual environment inside the checkout of another project would report its commits.
        tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py"]
        subprocess.run(tracked, check=True, capture_output=True)
        command = ["git", "-C", str(folder), *arguments]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
