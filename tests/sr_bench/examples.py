"""Records for tests."""

from __future__ import annotations

import dataclasses

from sr_bench import record_files
from sr_bench.environment import Environment, Hardware, MeasuredModel
from sr_bench.records import (
    BenchRun,
    Ceiling,
    Configuration,
    Deviation,
    Measurement,
    Method,
    ModelBenchmark,
    QualityRecord,
    Score,
    SpeedOptions,
    SpeedRecord,
    Timing,
    Workload,
)

SETTING = Environment(
    date="2026-11-21T05:00:00+00:00",
    commit="0123456789abcdef",
    dirty=False,
    device=Hardware("A CPU", ("avx2", "avx512_vnni"), 2, 1 << 30, "Linux x86_64"),
    versions={"Python": "3.11.7", "torch": "2.13.0"},
)
SUBJECT = MeasuredModel("tiny", "Compact", 2, "tiny.pth", "0" * 64)
EAGER = Configuration("torch", "contiguous", "fp32")
OPENVINO = Configuration("sr-deploy", "openvino", "bf16")

QUALITY = QualityRecord(
    schema=record_files.SCHEMA,
    kind="quality",
    setting=SETTING,
    subject=SUBJECT,
    images="Two",
    low_resolution="LRx2",
    methods=(
        Method("nearest", {"a.png": Score(28.0, 0.8), "b.png": Score(29.0, 0.9)}),
        Method("bicubic", {"a.png": Score(30.0, 0.9), "b.png": Score(32.0, 0.92)}),
        Method("tiny", {"a.png": Score(31.0, 0.91), "b.png": Score(34.0, 0.95)}, OPENVINO),
    ),
)
PRECISIONS = dataclasses.replace(
    QUALITY,
    methods=(
        *QUALITY.methods[:2],
        Method(
            "tiny FP32",
            {"a.png": Score(31.0, 0.91), "b.png": Score(34.0, 0.95)},
            Configuration("sr-deploy", "openvino", "fp32"),
        ),
        Method(
            "tiny INT8",
            {"a.png": Score(30.9, 0.91), "b.png": Score(33.9, 0.95)},
            Configuration("sr-deploy", "openvino", "int8"),
            {"a.png": 51.25, "b.png": None},
            48.0,
        ),
    ),
)


def row(
    contender: Configuration,
    *rounds: tuple[float, ...],
    largest: int = 0,
    psnr: float | None = None,
) -> Measurement:
    """Return a measurement with the fields of older records only."""
    return Measurement(contender, (Timing("upscale", rounds),), Deviation(largest, psnr))


SERIES = ModelBenchmark(
    setting=SETTING,
    subject=SUBJECT,
    options=SpeedOptions(2, 1.0, 3, 0.5, 0.1),
    bouts=(
        BenchRun(
            (256, 128),
            1,
            # In the second round the machine is half as fast, for both.
            (
                row(EAGER, (10.0, 11.0, 12.0), (22.0,), (12.0,)),
                row(OPENVINO, (5.5,), (10.0, 12.0), (4.0,), largest=1),
            ),
        ),
        BenchRun(
            (64, 32),
            1,
            (
                row(EAGER, (4.0,), (4.0,), (4.0,)),
                row(OPENVINO, (1.0,), (1.0,), (1.0,), largest=2, psnr=50.0),
            ),
        ),
    ),
)
SPEED = SpeedRecord(record_files.SCHEMA, "speed", (SERIES,))

WORK = Workload(
    operations=1e6, int8_share=0.0, frame_bytes=3 * 64 * 32 * 5, weights=1000, activations=10_000
)
DEFAULT = Measurement(
    contender=Configuration("sr-deploy", "auto", "auto"),
    timings=(
        Timing(
            "upscale",
            ((1.1, 0.9), (1.0,), (1.0,)),
            (0.02, 0.02, 0.04),
            {"engine": (0.1, 0.1, 0.2), "tiles": (0.0, 0.0, 0.0), "network": (0.9, 0.9, 0.9)},
        ),
        Timing("network", ((0.9,), (0.9,), (0.9,))),
        Timing("stream", ((0.8,), (0.8,), (0.8,))),
    ),
    fidelity=Deviation(3, 48.0, 0.99),
    ran=OPENVINO,
    start_seconds=0.5,
    first_ms=25.0,
    peak_memory=100 << 20,
    truth=Score(33.0, 0.9),
)
FULL = dataclasses.replace(
    SPEED,
    series=(
        dataclasses.replace(
            SERIES,
            bouts=(
                SERIES.bouts[0],
                dataclasses.replace(
                    SERIES.bouts[1],
                    rows=(*SERIES.bouts[1].rows, DEFAULT),
                    work=WORK,
                    missing={"PyTorch compiled FP32": "PyTorch compiled FP32: no compiler"},
                ),
            ),
            ceilings={
                "fp32": Ceiling("a product", (1.0, 2.0)),
                "bf16": Ceiling("a convolution", (4.0,)),
                "copy": Ceiling("a copy", (8.0,)),
            },
        ),
    ),
)
"""A record with all optional values; see `DEFAULT`."""
