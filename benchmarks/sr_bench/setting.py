"""When, where and with what a measurement is made; nothing that names the machine or its user."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from sr_bench import meters
from sr_bench.facts import Environment, Hardware, MeasuredModel
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
    "av",
)


def current() -> Environment:
    """Look at this machine, its packages and the checkout that the code runs from."""
    folder = Path(__file__).parent
    commit = _git(folder, "rev-parse", "HEAD")
    changes = _git(folder, "status", "--porcelain", "--untracked-files=no")
    gpu, driver = meters.gpu()
    return Environment(
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        commit=commit,
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


def subject(bundle: Bundle) -> MeasuredModel:
    """Return what is measured."""
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
    """Return the versions of Python and of what is installed."""
    found = {"Python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    """Return what git says; None without git, or where sr-deploy is in no checkout of its own."""
    try:
        # A virtual environment inside another project's checkout has that project's commits.
        tracked = ["git", "-C", str(folder), "ls-files", "--error-unmatch", "__init__.py"]
        subprocess.run(tracked, check=True, capture_output=True)
        command = ["git", "-C", str(folder), *arguments]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
