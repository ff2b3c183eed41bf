"""Building plans from the runtime, which has no builder: the exporter's command does it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from sr_deploy.errors import BackendError

if TYPE_CHECKING:
    from pathlib import Path

    from sr_deploy.bundle.manifest import PixelFormat, Precision
    from sr_deploy.bundle.plan_store import Shapes


def build(
    bundle: Path,
    precision: Precision,
    pixel_format: PixelFormat,
    device: int,
    shapes: Shapes | None = None,
) -> None:
    """Build a TensorRT plan for this machine, which takes minutes; ask `plans.find` for it then.

    It runs in a process of its own. Two that want the same plan build it once: the other waits.

    Args:
        bundle: The bundle's folder.
        precision: Of the variant.
        pixel_format: Of the variant.
        device: Index of the GPU.
        shapes: What the plan is to take; None: what suits the GPU's memory.

    Raises:
        BackendError: it failed; the text says why.
    """
    command = [sys.executable, "-m", "sr_export", str(bundle), "--engine", precision]
    command += ["--format", pixel_format, "--device", str(device), "--no-fallback"]
    if shapes is not None:
        sides = (shapes.least, shapes.best, shapes.most)
        command += ["--range", *("x".join(map(str, each)) for each in sides)]
    path = os.pathsep.join(each for each in sys.path if each)
    done = subprocess.run(  # noqa: S603 - our own command
        command,
        env=os.environ | {"PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        last = said[-1] if said else f"exit code {done.returncode}"
        raise BackendError(f"no TensorRT plan could be built: {last}")
