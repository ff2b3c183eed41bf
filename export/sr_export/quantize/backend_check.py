"""Checking that the installed backends compute each precision as accurately as ONNX Runtime.

Quality is measured with ONNX Runtime. Other backends rewrite graphs, INT8 graphs above all, so
every installed one is checked too. If one fails, the manifest records it, and `precision="auto"`
does not choose that precision on that backend.
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
    from sr_export.quantize.yuv_variants import YuvVariants
    from sr_export.scene import Scene

    # A held-out image or video frame, and FP32's output for it.
    _Pair = tuple[Any, NDArray[Any]]

_log = logging.getLogger(__name__)

# The backend that quality is measured with.
_MEASURED = "onnxruntime"
# Tolerance in dB: backends round in different places.
_LEEWAY = 1.0


def check_backends(
    folder: Path,
    variants: Sequence[Variant],
    scenes: Sequence[Scene],
    budgets: dict[str, float],
    yuv_variants: Sequence[YuvVariants] = (),
) -> tuple[Variant, ...]:
    """Return a bundle's variants, each with the backends that fail the check.

    Args:
        folder: The bundle, with its manifest.
        variants: The variants in the manifest.
        scenes: The held-out images with FP32's outputs.
        budgets: Minimum PSNR of each precision in dB.
        yuv_variants: The same as `scenes` for YUV frames.
    """
    pictures: list[_Pair] = [(each.low, each.outputs["fp32"]) for each in scenes]
    by_format: dict[PixelFormat, list[_Pair]] = {
        each.pixel_format: list(zip(each.frames, each.expected, strict=True))
        for each in yuv_variants
    }
    names = [each for each in backends.available() if each != _MEASURED]
    result = []
    for variant in variants:
        unfit = {}
        for name in names if variant.quality is not None else ():
            budget = budgets[variant.precision]
            held_out = by_format.get(variant.pixel_format, pictures)
            found = _worst(folder, name, variant, held_out)
            if found is not None and found < budget - _LEEWAY:
                unfit[name] = f"{found:.1f} dB against FP32, below the budget of {budget:g} dB"
        result.append(replace(variant, unfit=unfit))
    return tuple(result)


def _worst(folder: Path, backend: str, variant: Variant, held_out: Sequence[_Pair]) -> float | None:
    """Return the PSNR of the worst image; None if the backend cannot run the variant here."""
    try:
        with Engine(folder, backend=backend, precision=variant.precision, build="never") as engine:
            return min(psnr(expected, _result(engine, low)) for low, expected in held_out)
    except SrDeployError as error:
        _log.info("%s cannot run %s here: %s", backend, variant.file, error)
        return None


def _result(engine: Engine, given: Any) -> NDArray[Any]:
    if isinstance(given, np.ndarray) and given.ndim == 1:  # a generator's noise
        return engine.generate(given[None])[0]
    result = engine.upscale(given)
    return yuv_reference.levels(result) if isinstance(result, YuvFrame) else result
