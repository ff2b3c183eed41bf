"""Compare GPU outputs with FP32 on a CPU, on the same machine or, without a backend, elsewhere."""

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
"""Minimum PSNR of plans on a GPU, against the FP32 ONNX file on a CPU."""


def compare(bundle_folder: Path, patches: Path) -> dict[str, Any]:
    """Return the PSNR of each precision and size, of the worst patch.

    Args:
        bundle_folder: The bundle.
        patches: The file that `on_gpu` wrote.
    """
    bundle = Bundle.open(bundle_folder)
    model = bundle.manifest.model
    found: dict[str, Any] = {}
    with np.load(patches) as kept:
        for name in dict.fromkeys(each.rpartition("-")[0] for each in kept.files):
            precision, _, size = name.partition("-")
            height, width = map(int, size.split("x"))
            variant = next(each for each in bundle.manifest.variants if each.precision == precision)
            validator = PlanValidator(bundle_folder, model, variant)
            try:
                expected = validator.expected(photos.batch(1, height, width, model.channels))
            finally:
                validator.close()
            worst = min(psnr(each, kept[f"{name}-{i}"]) for i, (*_, each) in enumerate(expected))
            budget = BUDGETS.get(precision, min(BUDGETS.values()))
            decibels = round(worst, 2) if math.isfinite(worst) else None
            found[name] = {"psnr": decibels, "budget": budget, "ok": worst >= budget}
    return found


def main() -> int:
    """Compare and write the result as JSON; return 1 if a budget is missed."""
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
