"""Whether the runtimes of this machine compute each precision as well as it was measured.

The gate measures with ONNX Runtime. Others rewrite graphs in ways of their own, INT8 above all, so
those that are installed are asked, too. One that is off is noted; the runtime then does not choose
that precision by itself.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy import backends
from sr_deploy.engine import Engine
from sr_deploy.errors import SrDeployError
from sr_deploy.runtime.yuv import YuvFrame
from sr_export.graph import yuv_reference
from sr_export.metrics import psnr

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import PixelFormat, Variant
    from sr_export.quantize.yuv_variants import Film
    from sr_export.scene import Scene

    # A held-out image, or frame of video, and what FP32 makes of it.
    _Pair = tuple[Any, NDArray[Any]]

_log = logging.getLogger(__name__)

# What the gate measures with.
_MEASURED = "onnxruntime"
# Runtimes round in other places; what is off by more than this, in decibels, computes differently.
_LEEWAY = 1.0


def confirmed(
    folder: Path,
    variants: Sequence[Variant],
    scenes: Sequence[Scene],
    budgets: dict[str, float],
    films: Sequence[Film] = (),
) -> tuple[Variant, ...]:
    """Return the variants of a bundle, each with the backends on which it is off.

    Args:
        folder: The bundle, with its manifest.
        variants: Those of the manifest.
        scenes: What FP32 makes of the held-out images.
        budgets: Decibels that each precision must hold.
        films: The same as `scenes` for frames of video.
    """
    pictures: list[_Pair] = [(each.low, each.outputs["fp32"]) for each in scenes]
    exams: dict[PixelFormat, list[_Pair]] = {
        each.pixel_format: list(zip(each.frames, each.expected, strict=True)) for each in films
    }
    names = [each for each in backends.available() if each != _MEASURED]
    result = []
    for variant in variants:
        unfit = {}
        for name in names if variant.quality is not None else ():
            budget = budgets[variant.precision]
            exam = exams.get(variant.pixel_format, pictures)
            found = _worst(folder, name, variant, exam)
            if found is not None and found < budget - _LEEWAY:
                unfit[name] = f"{found:.1f} dB against FP32, where {budget:g} are asked for"
        result.append(replace(variant, unfit=unfit))
    return tuple(result)


def _worst(folder: Path, backend: str, variant: Variant, exam: Sequence[_Pair]) -> float | None:
    """Return the decibels of the worst image; None where the backend does not run it here."""
    try:
        with Engine(folder, backend=backend, precision=variant.precision, build="never") as engine:
            return min(psnr(expected, _result(engine, low)) for low, expected in exam)
    except SrDeployError as error:
        _log.info("%s does not run %s here: %s", backend, variant.file, error)
        return None


def _result(engine: Engine, given: Any) -> NDArray[Any]:
    if isinstance(given, np.ndarray) and given.ndim == 1:  # what a generator takes
        return engine.generate(given[None])[0]
    result = engine.upscale(given)
    return yuv_reference.levels(result) if isinstance(result, YuvFrame) else result
