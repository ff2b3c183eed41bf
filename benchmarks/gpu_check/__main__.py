"""Run all checks that need a GPU: plans, tests, images, speed, a soak test, memory of the kernels.

    python3 benchmarks/gpu_check BUNDLE ... [--python PATH ...] [--output FOLDER]

It needs an NVIDIA GPU, but no network connection and no package. It searches the given interpreters
and those on the PATH for TensorRT and PyTorch; a step that cannot run reports what is missing. All
output is written to FOLDER; `gpu_check.json` there is the summary.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gpu_check import pythons
from gpu_check.steps import CheckPlan, GpuCheck

_SIZES = ["720x1280", "1080x1920"]


def main() -> int:
    """Run all steps; return 1 if one failed, 2 without a GPU."""
    arguments = _parser().parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    gpu = _gpu()
    if gpu is None:
        sys.stderr.write("gpu-check: no NVIDIA GPU found (nvidia-smi does not answer)\n")
        return 2
    variables = pythons.environment(arguments.packages)
    found = pythons.search(arguments.python, variables, arguments.output)
    sys.stdout.write(f"GPU: {gpu}\n")
    for each in found:
        sys.stdout.write(f"{each.command}: {json.dumps(each.found)}\n")
    plan = CheckPlan(
        bundles=arguments.bundles,
        precisions=arguments.precisions,
        sizes=arguments.sizes,
        soak=arguments.soak,
        end=time.monotonic() + 60 * arguments.minutes,
    )
    check = GpuCheck(plan, found, variables, arguments.output)
    check.facts = {"gpu": gpu, "interpreters": [vars(each) for each in found]}
    steps = arguments.steps or list(check.steps)
    for name in steps:
        check.run(name)
    sys.stdout.write("\n" + "\n".join(check.summary()) + "\n")
    return int(any(step.get("ok") is False for step in check.results.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "gpu-check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundles", nargs="+", type=Path, help="bundles; some steps use only the first"
    )
    parser.add_argument(
        "--python",
        nargs="+",
        default=[],
        metavar="PATH",
        help="interpreters to search for packages",
    )
    parser.add_argument(
        "--packages", type=Path, help="folder of additional packages, such as pytest"
    )
    parser.add_argument("--output", type=Path, default=Path("out/gpu"), metavar="FOLDER")
    parser.add_argument("--precisions", nargs="+", default=["fp16", "int8"])
    parser.add_argument("--sizes", nargs="+", default=_SIZES, metavar="HxW")
    parser.add_argument(
        "--soak", type=float, default=120.0, metavar="S", help="seconds of the soak test"
    )
    parser.add_argument(
        "--minutes", type=float, default=30.0, help="no step starts after this time"
    )
    parser.add_argument("--steps", nargs="+", choices=GpuCheck.steps, help="default: all")
    return parser


def _gpu() -> str | None:
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = "--query-gpu=name,driver_version,memory.total,compute_cap,clocks.max.sm,power.limit"
    try:
        done = subprocess.run(
            [command, query, "--format=csv,noheader"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip() or None


if __name__ == "__main__":
    sys.exit(main())
