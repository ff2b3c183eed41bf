"""Records for tests, as the commands would make them."""

from __future__ import annotations

import dataclasses

from sr_bench import records
from sr_bench.records import (
    Contender,
    Device,
    Method,
    QualityRecord,
    Score,
    Setting,
    SpeedOptions,
    SpeedRecord,
    Subject,
    Timing,
)

SETTING = Setting(
    date="2026-11-21T05:00:00+00:00",
    commit="0123456789abcdef",
    dirty=False,
    device=Device("A CPU", ("avx2", "avx512_vnni"), 2, 1 << 30, "Linux x86_64"),
    versions={"Python": "3.11.7", "torch": "2.13.0"},
)
SUBJECT = Subject("tiny", "Compact", 2, "tiny.pth", "0" * 64)
EAGER = Contender("torch", "contiguous", "fp32")
OPENVINO = Contender("sr-deploy", "openvino", "bf16")

QUALITY = QualityRecord(
    schema=records.SCHEMA,
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
            Contender("sr-deploy", "openvino", "fp32"),
        ),
        Method(
            "tiny INT8",
            {"a.png": Score(30.9, 0.91), "b.png": Score(33.9, 0.95)},
            Contender("sr-deploy", "openvino", "int8"),
            {"a.png": 51.25, "b.png": None},
            48.0,
        ),
    ),
)
SPEED = SpeedRecord(
    schema=records.SCHEMA,
    kind="speed",
    setting=SETTING,
    subject=SUBJECT,
    options=SpeedOptions(2, 1.0, 3, 0.5, 0.1),
    timings=(
        # In the second round the machine is twice as slow, for both.
        Timing(EAGER, (256, 128), ((10.0, 11.0, 12.0), (22.0,), (12.0,)), 0),
        Timing(OPENVINO, (256, 128), ((5.5,), (10.0, 12.0), (4.0,)), 1),
        Timing(EAGER, (64, 32), ((4.0,), (4.0,), (4.0,)), 0),
        Timing(OPENVINO, (64, 32), ((1.0,), (1.0,), (1.0,)), 2),
    ),
)
