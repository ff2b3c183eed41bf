"""Which architectures export: every one that is registered, built with its default arguments.

    python benchmarks/architectures.py             export all; takes some hours on two cores
    python benchmarks/architectures.py --only SPAN HAT
    python benchmarks/architectures.py --table     write docs/architectures.md from the record

The weights are random, also those that training starts at zero: a network whose branches count
nothing proves nothing. So this says whether a graph can be exported and equals its network, not how
good the network is. Each runs as `sr-export` in a process of its own, and the record is written
after each: an interrupted run goes on where it was.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sr_deploy import Engine, console
from sr_deploy.bundle import Bundle
from sr_deploy.errors import SrDeployError
from sr_deploy.files import atomic_file
from sr_export import samples
from sr_export.registry import registry
from sr_export.runner import OnnxRunner

ROOT = Path(__file__).resolve().parents[1]
RECORD = ROOT / "benchmarks" / "results" / "architectures.json"
TABLE = ROOT / "docs" / "architectures.md"
TIMEOUT = 3600

# What a class needs beside its defaults, or where its defaults do not make a network.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "AuraSR": {
        "dim": 64,
        "image_size": 256,
        "input_image_size": 64,
        "style_network": {"dim_in": 128, "dim_out": 512, "depth": 4},
    },
    "DRCT": {"upscale": 4, "upsampler": "pixelshuffle"},
    "DRUNet": {"in_nc": 4, "out_nc": 3},  # RGB and a map of the noise
    "HAT": {"window_size": 16},
    "MMRealSR": {"num_in_ch": 3, "num_out_ch": 3},
    "NAFNet": {"enc_blk_nums": [1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1]},
    "SAFMN": {"dim": 36},
    "SAFMNBCIE": {"dim": 48},
    "SPAN": {"num_in_ch": 3, "num_out_ch": 3},
    "Swin2SR": {"window_size": 8},
    "SwinIR": {"window_size": 8},
}
BACKENDS = ("openvino", "onnxruntime")


def main() -> int:
    """Export what was asked for, or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these architectures, again")
    parser.add_argument("--table", action="store_true", help="write the table from the record")
    arguments = parser.parse_args()
    if not arguments.table:
        _export_all(arguments.only)
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text(_table(_read()), encoding="utf-8")
    return 0


def _read() -> dict[str, dict[str, Any]]:
    return json.loads(RECORD.read_text()) if RECORD.exists() else {}


def _export_all(only: list[str] | None) -> None:
    rows = _read()
    for support in registry():
        name = str(support.architecture.id)
        ours = not type(support.architecture).__module__.startswith("spandrel.")
        if ours or (name in rows if only is None else name not in only):
            continue
        rows[name] = _export(name, support.architecture)
        print(name, rows[name], flush=True)
        with atomic_file(RECORD) as path:
            path.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n")


def _export(name: str, architecture: object) -> dict[str, Any]:
    """Build, save and export one architecture; return what came of it."""
    torch.manual_seed(0)
    try:
        module = _class_of(architecture)(**ARGUMENTS.get(name, {}))
    except Exception as error:
        return {"error": f"cannot be built with default arguments: {error}"}
    _wake(module)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / f"{name}.pth"
        torch.save(module.state_dict(), checkpoint)
        parameters = sum(each.numel() for each in module.parameters())
        del module
        started = time.monotonic()
        command = [sys.executable, "-m", "sr_export", str(checkpoint)]
        command += ["--json", "--precision", "fp32"]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            return {
                "error": f"not exported within {TIMEOUT // 60} minutes",
                "parameters": parameters,
            }
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1].partition(": ")[2]
            return {"error": reason, "parameters": parameters}
        seconds = round(time.monotonic() - started)
        runs = {name: _run(checkpoint.with_suffix(".srd"), name) for name in BACKENDS}
    manifest = json.loads(done.stdout)
    return {
        "seconds": seconds,
        "worst_error": max(each["max_error"] for each in manifest["checks"]),
        "runs": runs,
        **manifest["model"],
    }


def _wake(module: torch.nn.Module) -> None:
    """Give weights that start at zero, and so switch off what they weigh, small random values."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if not name.endswith("bias") and not weight.any():
                weight.normal_(std=0.1)


def _run(bundle: Path, backend: str) -> str:
    """Upscale a photo on a backend; return how it compares with the others' common graph."""
    frame = samples.batch(1, 72, 101, Bundle.open(bundle).manifest.model.channels)[0]
    try:
        with Engine(bundle, backend=backend, precision="fp32") as engine:
            found = engine.upscale(frame)
    except SrDeployError as error:
        return console.describe(error)
    expected = OnnxRunner(bundle / "fp32.onnx")
    with contextlib.suppress(SrDeployError):  # of a fixed size: the engine's tiles are its own
        difference = np.abs(found.astype(int) - expected(frame[None])[0]).max()
        return "yes" if difference <= 1 else f"differs by {difference} levels"
    return "yes"


def _class_of(architecture: object) -> type[torch.nn.Module]:
    """Return the first network class that an architecture's module exports."""
    module = importlib.import_module(type(architecture).__module__)
    for name in module.__all__:
        value = getattr(module, name)
        if isinstance(value, type) and issubclass(value, torch.nn.Module):
            return value
    raise LookupError(f"{module.__name__} exports no network")


def _table(rows: dict[str, dict[str, Any]]) -> str:
    held = {name: row for name, row in rows.items() if "error" not in row}
    lines = [
        "# Architectures",
        "",
        "Made by `python benchmarks/architectures.py`, from `results/architectures.json` there.",
        f"Of the {len(rows)} architectures that spandrel registers, built with default arguments",
        f"and random weights, {len(held)} export and equal their network at every shape that the",
        "exporter tries. The others are refused, for the reason given. The architectures that",
        "sr-export adds are covered by `tests/export/test_architectures.py`.",
        "",
        "The halo is in low-resolution pixels; without one, the network is global or reaches",
        "farther than is worth paying for, and tiles are blended. The error is the largest",
        "difference from PyTorch, where white is 1. What a backend says that cannot run a graph is",
        "in the record in full.",
        "",
        "| architecture | scale | sizes | batch | halo | largest error | OpenVINO | ONNX Runtime |",
        "|---|---|---|---|---|---|---|---|",
        *(_held_row(name, row) for name, row in held.items()),
        "",
        "## Refused",
        "",
        "| architecture | why |",
        "|---|---|",
        *(f"| {name} | {row['error']} |" for name, row in rows.items() if "error" in row),
        "",
    ]
    return "\n".join(lines)


def _held_row(name: str, row: dict[str, Any]) -> str:
    if row["fixed_size"]:
        sizes = "{}x{} only".format(*row["fixed_size"])
    else:
        sizes = f"any from {row['minimum']}" if row["minimum"] > 1 else "any"
    batch = row["fixed_batch"] or "any"
    halo = "blended" if row["halo"] is None else row["halo"]
    runs = " | ".join(_cell(row["runs"][backend]) for backend in BACKENDS)
    # Default weights may give black whatever goes in; that proves nothing.
    error = f"{row['worst_error']:.0e}" if row["worst_error"] else "all black"
    return f"| {name} | {row['scale']} | {sizes} | {batch} | {halo} | {error} | {runs} |"


def _cell(run: str) -> str:
    """Return how a run went in a few words: what a backend says goes on after its first colon."""
    went = run == "yes" or run.startswith("differs")
    return run if went else f"no: {run.partition(': ')[0]}"


if __name__ == "__main__":
    sys.exit(main())
