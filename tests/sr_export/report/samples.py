"""Manifests and scenes for reports."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.bundle.manifest import (
    SCHEMA,
    Manifest,
    Model,
    Quality,
    Quantization,
    Source,
    Step,
    Stored,
    Variant,
)
from sr_export.report import Scene

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision

QUANTIZATION = Quantization(
    calibration="a few photos",
    method="percentile",
    layers=3,
    steps=(
        Step((), False, 1.0, 38.4),
        Step(("first",), False, 0.98, 43.9),
        Step(("first", "last"), False, 0.93, 46.3),
    ),
)


def variant(precision: Precision, quality: Quality | None = None) -> Variant:
    return Variant(f"{precision}.onnx", "0" * 64, precision, "rgb24", quality)


def manifest(name: str = "net") -> Manifest:
    """Return the manifest of a bundle with FP32, FP16 and INT8."""
    return Manifest(
        schema=SCHEMA,
        name=name,
        created="2026-01-02T03:04:05+00:00",
        source=Source("net.pth", "1" * 64, "params", "[0, 1]"),
        model=Model("SomeNet", 2, 3, 8, 1, 1, None, None, 1234567, 89.0, 400),
        onnx=Stored("model.onnx", "0" * 64),
        variants=(
            variant("fp32"),
            variant("fp16", Quality(61.23, 0.99981, 2, 0.0, 5)),
            variant("int8", Quality(46.32, 0.9931, 14, 0.021, 5)),
        ),
        checks=(),
        int8=QUANTIZATION,
        refused={},
        tools={"torch": "2.0"},
    )


def refusing(reason: str) -> Manifest:
    """Return the manifest of a bundle that refused INT8."""
    given = manifest()
    return replace(given, variants=given.variants[:2], refused={"int8": reason})


def only_fp32() -> Manifest:
    given = manifest()
    return replace(given, variants=given.variants[:1], int8=None)


def plain(
    level: int | tuple[int, int, int], height: int = 80, width: int = 120
) -> NDArray[np.uint8]:
    """Return an RGB image of one color."""
    return np.full((height, width, 3), level, np.uint8)


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> NDArray[np.uint8]:
    """Return reproducible noise over the whole range, which does not compress."""
    shape = (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def colored(name: str = "flag.png") -> Scene:
    """Return a scene whose versions have different colors."""
    return Scene(
        name,
        plain(128, 40, 60),
        {"fp32": plain((200, 0, 0)), "fp16": plain((0, 200, 0)), "int8": plain((0, 0, 200))},
        plain((200, 200, 0)),
    )
