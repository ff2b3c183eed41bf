"""Compares what a GPU computed with FP32 on a CPU: there or, if it has no backend, elsewhere."""

from __future__ import annotations

import argparse
import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sr_deploy.bundle.bundle import Bundle
from sr_export import photos
from sr_export.metrics import psnr
from sr_export.trt.plan_validation import PlanValidator

BUDGETS = {"fp16": 55.0, "int8": 42.0}
"""Decibels that plans must hold on a GPU, against the FP32 ONNX on a CPU."""


def compare(bundle_folder: Path, patches: Path) -> dict[str, Any]:
    """Return the decibels of each precision and size, of the worst patch.

    Args:
        bundle_folder: The bundle.
        patches: What `on_gpu` kept of it.
    """
    bundle = Bundle.open(bundle_folder)
    model = bundle.manifest.model
    found: dict[str, Any] = {}
    with np.load(patches) as kept:
        for name in dict.fromkeys(each.rpartition("-")[0] for each in kept.files):
            precision, _, size = name.partition("-")
            height, width = map(int, size.split("x"))
            variant = next(each for each in bundle.manifest.variants if each.precision == precision)
            examiner = PlanValidator(bundle_folder, model, variant)
            try:
                right = examiner.expected(photos.batch(1, height, width, model.channels))
            finally:
                examiner.close()
            worst = min(psnr(each, kept[f"{name}-{i}"]) for i, (*_, each) in enumerate(right))
            budget = BUDGETS.get(precision, min(BUDGETS.values()))
            decibels = round(worst, 2) if math.isfinite(worst) else None
            found[name] = {"psnr": decibels, "budget": budget, "ok": worst >= budget}
    return found


def main() -> int:
    """Compare, and write what was found as JSON; 1 if a budget is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("patches", type=Path)
    parser.add_argument("result", type=Path)
    arguments = parser.parse_args()
    found = compare(arguments.bundle, arguments.patches)
    arguments.result.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return int(not all(each["ok"] for each in found.values()))


if __name__ == "__main__":
    sys.exit(main())
