"""What a call has to do, counted from the ONNX graph, and how much of a limit that is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import onnx

from sr_bench.timings import Workload
from sr_deploy.errors import ExportError
from sr_export.graph import cost

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sr_bench.facts import Size
    from sr_bench.timings import Ceiling, Measurement, Run, Timing
    from sr_deploy.bundle.bundle import Bundle

_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def count(bundle: Bundle, size: Size, batch: int) -> Workload | None:
    """Count what a call on frames of a size has to do; None: the graph takes no such frame."""
    width, height = size
    model = bundle.manifest.model
    try:
        graph = cost.with_shapes(
            onnx.load_model(bundle.verified(bundle.manifest.onnx)), (height, width)
        ).graph
    except ExportError:
        return None
    shapes = cost.shapes_of(graph)
    operations, activations = 0.0, 0
    for node in graph.node:
        if node.op_type in cost.MULTIPLYING:
            operations += cost.operations(node, shapes)
            activations += sum(
                math.prod(shapes.get(name, [0])) for name in (node.input[0], node.output[0])
            )
    steps = bundle.manifest.int8.steps if bundle.manifest.int8 else ()
    return Workload(
        operations=batch * operations,
        int8_share=steps[-1].share if steps else 0.0,
        frame_bytes=batch * math.prod(size) * model.channels * (1 + model.scale**2),
        weights=model.parameters,
        activations=batch * activations,
    )


@dataclass(frozen=True)
class CeilingShare:
    """How near a row came to what the machine can do."""

    value: float
    """The least time that the work can take over the time that it took."""
    bound: Literal["arithmetic", "memory"]
    """Which of the two limits it."""


def share(row: Measurement, bout: Run, ceilings: Mapping[str, Ceiling]) -> CeilingShare | None:
    """Return what share of its ceiling a row reached; None: something was not measured.

    The least time is that of the operations at the best rate that was seen in their precision, or
    of moving frames and weights once at the rate of a copy, whichever is longer. The network alone
    is compared where it was timed, else all of the call.
    """
    timing = row.timing("network") or row.upscale
    seconds = least(bout.work, row.precision, ceilings)
    if seconds is None:
        return None
    value, bound = seconds
    return CeilingShare(value / _typical_seconds(timing), bound)


def least(
    work: Workload | None, precision: str, ceilings: Mapping[str, Ceiling]
) -> tuple[float, Literal["arithmetic", "memory"]] | None:
    """Return the least seconds that work can take, and what limits it; None: not known."""
    if work is None or "copy" not in ceilings:
        return None
    parts = {precision: 1.0}
    if precision == "int8":
        rest = next((each for each in ("bf16", "fp16", "fp32") if each in ceilings), "fp32")
        parts = {"int8": work.int8_share, rest: 1.0 - work.int8_share}
    if precision == "fp16" and "fp16" not in ceilings:
        parts = {"fp32": 1.0}  # what has no kernels in FP16 computes in FP32
    if not parts.keys() <= ceilings.keys():
        return None
    arithmetic = sum(
        part * work.operations / (1e9 * ceilings[each].best) for each, part in parts.items()
    )
    weights = sum(part * work.weights * _BYTES[each] for each, part in parts.items())
    memory = (work.frame_bytes + weights) / (1e9 * ceilings["copy"].best)
    return (arithmetic, "arithmetic") if arithmetic > memory else (memory, "memory")


def _typical_seconds(timing: Timing) -> float:
    return timing.percentile(50) / 1e3
