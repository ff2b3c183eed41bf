r"""Measure the gain of quantization-aware training: bundles of one network, before and after it.

    python benchmarks/quantization_aware.py BUNDLE ... --ground-truth Set5/HR \
        --low-resolution Set5/LRx4 --output benchmarks/results/training/quantisation-aware-NAME.json

The record has every INT8 placement of the export with its PSNR against FP32 of the same weights,
and the scores on held-out images in FP32 and, if offered, in INT8. It also has the PSNR against
FP32 of the first bundle, since training changes the FP32 output.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sr_bench import environment, quality
from sr_deploy import Engine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.files import atomic_file
from sr_export.metrics import psnr

if TYPE_CHECKING:
    from sr_deploy.bundle.manifest import Precision


def main() -> int:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--ground-truth", type=Path, required=True)
    parser.add_argument("--low-resolution", type=Path)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    record = {
        "setting": asdict(environment.current()),
        "images": arguments.ground_truth.parent.name,
        "networks": [_measured(each, arguments) for each in arguments.bundles],
    }
    text = json.dumps(record, indent=1)
    print(text)
    if arguments.output:
        with atomic_file(arguments.output) as path:
            path.write_text(text + "\n", encoding="utf-8")
    return 0


def _measured(path: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the INT8 search of a bundle and its scores."""
    written = Bundle.open(path).manifest
    offered = [each for each in written.variants if each.quality is not None]
    return {
        "checkpoint": written.source.name,
        "sha256": written.source.sha256,
        "int8": None if written.int8 is None else asdict(written.int8),
        "refused": written.refused,
        "at_export": {each.precision: asdict(each)["quality"] for each in offered},
        "scores": {
            precision: _scores(path, precision, written.model.scale, arguments)
            for precision in ("fp32", *(each.precision for each in offered))
            if precision in ("fp32", "int8")
        },
    }


def _scores(
    path: Path, precision: Precision, scale: int, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Return PSNR and SSIM (Y channel), and PSNR against FP32 of the first bundle (RGB)."""
    found = {}
    with (
        Engine(path, precision=precision) as engine,
        Engine(arguments.bundles[0], precision="fp32") as first,
    ):
        for pair in quality.pairs(arguments.ground_truth, arguments.low_resolution, scale):
            low, truth = quality.load(pair, scale)
            output = engine.upscale(low)
            distance = psnr(first.upscale(low), output)
            found[pair.truth.name] = {
                **asdict(quality.score(truth, output, scale)),
                "against_first_fp32": distance if math.isfinite(distance) else None,
            }
    means = {
        name: sum(each[name] for each in found.values()) / len(found) for name in ("psnr", "ssim")
    }
    return {**means, "images": found}


if __name__ == "__main__":
    raise SystemExit(main())
