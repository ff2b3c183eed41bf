"""The page that the records make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from architectures import cells
from architectures.matrix import FAILURES_HEAD, HEAD, Architecture, largest_error, went

if TYPE_CHECKING:
    from architectures.exporting import Row

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "architectures"
SMALL = RESULTS / "small.json"
DEFAULT = RESULTS / "default.json"
PAGE = ROOT / "docs" / "architectures.md"

_INTRODUCTION = """\
# Architectures

How each architecture that `sr-export` knows fares: those that spandrel registers, and
sr-export's own, told by the order and shapes of their layers or, translators from image to image,
by their names. Made by `python benchmarks/architectures`, from the records in
`benchmarks/results/architectures`.

Weights are random, so this shows that the machinery holds, not how good a network is: a graph
equals its PyTorch network at every shape that the exporter tries (odd, tiny, transposed, large,
another batch), tiles equal the whole, runtimes agree. Decibels are higher or lower with weights
that were trained; each export measures its own.

How training repositories lay out what they save is another matter: those that are tried are the
table in `tests/sr_export/checkpoint/test_repositories.py`.
"""
_SMALL = """\
## In small, with all channels and scales

{ran} of {all} networks were run, {held} of them exported. They have a block or two and few
features. "All" are all combinations of the channels and scales.

- Largest error: the difference from PyTorch, where white is 1.
- FP16, INT8: the least decibels against FP32 on the exporter's photos; in brackets, the least share
  of the multiply-adds that INT8 computes. FP16 must hold 58 dB to be offered. INT8 need not hold
  its usual 45 here: random weights can lose any number, and no layers are put back for it.
- In tiles: "equal" is within one level of 255 of the whole frame; "blended" are networks that look
  at all of the image, or farther than is worth paying for; "one size" take tiles of one size only.
- OpenVINO, ONNX Runtime: whether they run the FP32 network, within one level of each other.
"""
_FAILURES = """\
### What failed, and why

Where reasons differ in their figures only, the first is given.
"""
_DEFAULT = """\
## As large as they are by default

Of the {all} architectures that spandrel registers, built with default arguments, {held} export.

The halo is in low-resolution pixels; without one, tiles are blended. What a backend says that
cannot run a graph is in the record in full.

| architecture | scale | sizes | batch | halo | largest error | OpenVINO | ONNX Runtime |
|---|---|---|---|---|---|---|---|
"""
_REFUSED = """\
| refused | why |
|---|---|
"""


def read(record: Path) -> dict[str, Row]:
    """Return what a record holds, by the networks' keys; nothing if there is none yet."""
    rows: dict[str, Row] = json.loads(record.read_text()) if record.exists() else {}
    return rows


def text(small: dict[str, Row], default: dict[str, Row]) -> str:
    """Return the page."""
    return f"{_INTRODUCTION}\n{_small(small)}\n{_default(default)}"


def _small(rows: dict[str, Row]) -> str:
    every = cells.small()
    tried = [cell for cell in every if cell.key in rows]
    names = sorted({cell.name for cell in tried}, key=str.lower)
    found = [
        Architecture(name, {cell: rows[cell.key] for cell in tried if cell.name == name})
        for name in names
    ]
    held = sum("error" not in rows[cell.key] for cell in tried)
    lines = [
        _SMALL.format(ran=len(tried), all=len(every), held=held),
        HEAD,
        *(each.line() for each in found),
        "",
        _FAILURES,
        FAILURES_HEAD,
        *(line for each in found for line in each.failures()),
    ]
    return "\n".join(lines) + "\n"


def _default(rows: dict[str, Row]) -> str:
    held = {name: row for name, row in rows.items() if "error" not in row}
    refused = {name: row["error"] for name, row in rows.items() if "error" in row}
    lines = [
        _DEFAULT.format(all=len(rows), held=len(held)).rstrip("\n"),
        *(_default_line(name, row) for name, row in held.items()),
        "",
        _REFUSED.rstrip("\n"),
        *(f"| {name} | {why} |" for name, why in refused.items()),
    ]
    return "\n".join(lines) + "\n"


def _default_line(name: str, row: Row) -> str:
    if row["fixed_size"]:
        sizes = "{}x{} only".format(*row["fixed_size"])
    else:
        sizes = f"any from {row['minimum']}" if row["minimum"] > 1 else "any"
    columns = [
        name,
        str(row["scale"]),
        sizes,
        str(row["fixed_batch"] or "any"),
        "blended" if row["halo"] is None else str(row["halo"]),
        largest_error(row["worst_error"]),
        *(went(row["runs"][backend]) for backend in ("openvino", "onnxruntime")),
    ]
    return f"| {' | '.join(columns)} |"
