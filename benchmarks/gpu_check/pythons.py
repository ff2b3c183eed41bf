"""The interpreters of a machine and their packages."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FOLDERS = (ROOT, ROOT / "export", ROOT / "benchmarks")
_SECONDS = 120
_QUERY = """
import importlib, importlib.util, json, os, platform
found = {"python": platform.python_version(), "keeps_path": "PYTHONPATH" in os.environ}
for name in ("numpy", "PIL", "tensorrt", "cuda.bindings", "torch", "onnxruntime", "openvino",
             "pytest"):
    try:
        module = importlib.import_module(name)
        found[name] = str(getattr(module, "__version__", "installed"))
    except Exception as error:
        if importlib.util.find_spec(name.split(".")[0]) is not None:
            found["broken " + name] = f"{type(error).__name__}: {error}"[:200]
if "torch" in found:
    import torch
    found["torch"] += " with CUDA" if torch.cuda.is_available() else " without a GPU"
print(json.dumps(found))
"""


@dataclass(frozen=True)
class Python:
    """An interpreter."""

    command: str
    """The executable; it can import the packages of this project."""
    found: dict[str, str]
    """Versions of its packages, by name."""

    def has(self, *names: str) -> bool:
        """Whether all of these packages are installed."""
        return all(name in self.found for name in names)


def environment(packages: Path | None) -> dict[str, str]:
    """Return the variables with which interpreters import this project and additional packages."""
    folders = [*map(str, _FOLDERS), *([] if packages is None else [str(packages)])]
    path = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | {"PYTHONPATH": path}


def search(named: list[str], variables: dict[str, str], scratch: Path) -> list[Python]:
    """Return the named interpreters and those on the PATH, each set of packages once.

    Args:
        named: Paths of interpreters.
        variables: See `environment`.
        scratch: Folder for scripts that start interpreters which drop PYTHONPATH.
    """
    usual = [sys.executable, str(ROOT / ".venv/bin/python"), shutil.which("python3") or ""]
    pythons: dict[str, Python] = {}
    for command in dict.fromkeys([*named, *usual]):
        if not Path(command).is_file():
            continue
        found = _query(command, variables)
        if found is not None and not found.pop("keeps_path"):
            script = scratch / f"python-{len(pythons)}"
            shim = Path(__file__).with_name("shim.py")
            call = " ".join(shlex.quote(each) for each in (command, str(shim)))
            script.write_text(f'#!/bin/sh\nexport SR_PATH="$PYTHONPATH"\nexec {call} "$@"\n')
            script.chmod(0o755)
            command = str(script)
            found = _query(command, variables)
        if found is not None:
            found.pop("keeps_path", None)
            pythons.setdefault(json.dumps(found), Python(command, found))
    return list(pythons.values())


def _query(command: str, variables: dict[str, str]) -> dict[str, str] | None:
    try:
        done = subprocess.run(
            [command, "-c", _QUERY],
            env=variables,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=True,
        )
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
    return found
