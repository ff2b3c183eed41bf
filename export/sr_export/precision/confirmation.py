"""Whether the runtimes of this machine compute each precision as well as it was measured.

The gate measures with ONNX Runtime. Others rewrite graphs in ways of their own, INT8 above all, so
those that are installed are asked, too. One that is off is noted; the runtime then does not choose
that precision by itself.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from sr_deploy import backends
from sr_deploy.engine import Engine
from sr_deploy.errors import SrDeployError
from sr_export.quality import psnr

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sr_deploy.manifest import Variant
    from sr_export.report import Scene

_log = logging.getLogger(__name__)

# What the gate measures with.
_MEASURED = "onnxruntime"
# Runtimes round in other places; what is off by more than this, in decibels, computes differently.
_LEEWAY = 1.0


def confirmed(
    folder: Path, variants: Sequence[Variant], scenes: Sequence[Scene], budgets: dict[str, float]
) -> tuple[Variant, ...]:
    """Return the variants of a bundle, each with the backends on which it is off.

    Args:
        folder: The bundle, with its manifest.
        variants: Those of the manifest.
        scenes: What FP32 makes of the held-out images.
        budgets: Decibels that each precision must hold.
    """
    names = [each for each in backends.available() if each != _MEASURED]
    result = []
    for variant in variants:
        unfit = {}
        for name in names if variant.quality is not None else ():
            budget = budgets[variant.precision]
            found = _worst(folder, name, variant, scenes)
            if found is not None and found < budget - _LEEWAY:
                unfit[name] = f"{found:.1f} dB against FP32, where {budget:g} are asked for"
        result.append(replace(variant, unfit=unfit))
    return tuple(result)


def _worst(folder: Path, backend: str, variant: Variant, scenes: Sequence[Scene]) -> float | None:
    """Return the decibels of the worst image; None where the backend does not run it here."""
    try:
        with Engine(folder, backend=backend, precision=variant.precision) as engine:
            return min(psnr(scene.outputs["fp32"], engine.upscale(scene.low)) for scene in scenes)
    except SrDeployError as error:
        _log.info("%s does not run %s here: %s", backend, variant.file, error)
        return None
