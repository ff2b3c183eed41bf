"""A plan record for tests, like those of the builder."""

from __future__ import annotations

import dataclasses
from typing import Any

from sr_deploy.bundle.plan_store import SCHEMA, GpuInfo, PlanRecord, PlanRequest, Shapes

DEVICE = GpuInfo("NVIDIA H100 80GB HBM3", (9, 0), "for CUDA 12.8")
SHAPES = Shapes((1, 64, 64), (1, 720, 1280), (1, 1080, 1920))
_RECORD = PlanRecord(
    schema=SCHEMA,
    onnx="a" * 64,
    precision="fp16",
    tensorrt="10.3.0",
    device=DEVICE,
    shapes=SHAPES,
    reach="gpu",
    version_compatible=False,
    settings={},
    plan=None,
    refused=(),
)


def make(**changes: Any) -> PlanRecord:
    """Return a plan record with some fields changed."""
    return dataclasses.replace(_RECORD, **changes)


def wanted(**changes: Any) -> PlanRequest:
    """Return the request that the record meets, with some fields changed."""
    return dataclasses.replace(PlanRequest("a" * 64, "fp16", "10.3.0", DEVICE), **changes)
