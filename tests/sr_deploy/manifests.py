"""A manifest for tests, like those of the exporter."""

from __future__ import annotations

import dataclasses
from typing import Any

from sr_deploy.bundle import manifest
from sr_deploy.bundle.manifest import Manifest, Model, OnnxCheck, Source, Stored, Variant

MODEL = Model(
    architecture="Compact",
    scale=2,
    channels=3,
    halo=10,
    multiple_of=1,
    minimum=1,
    fixed_size=None,
    fixed_batch=None,
    parameters=1000,
    gflop_per_megapixel=12.5,
    bytes_per_pixel=256,
)


def make(model: Model = MODEL, **changes: Any) -> Manifest:
    """Return a valid manifest with some fields changed."""
    whole = Manifest(
        schema=manifest.SCHEMA,
        name="test",
        created="2026-11-21T00:00:00+00:00",
        source=Source("test.pth", "0" * 64, "params_ema", "0 to 1 in and out"),
        model=model,
        onnx=Stored("model.onnx", "1" * 64),
        variants=(Variant("fp32.onnx", "2" * 64, "fp32", "rgb24"),),
        checks=(OnnxCheck((1, 3, 33, 47), 1e-6),),
        int8=None,
        refused={},
        tools={"torch": "2.13.0"},
    )
    return dataclasses.replace(whole, **changes)
