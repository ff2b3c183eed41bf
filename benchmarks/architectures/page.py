"""The page about architectures, made from the records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from architectures import cells
from architectures.matrix import FAILURES_HEAD, HEAD, Architecture, largest_error, run_result

if TYPE_CHECKING:
    from architectures.exporting import ExportResult

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "architectures"
SMALL = RESULTS / "small.json"
DEFAULT = RESULTS / "default.json"
PAGE = ROOT / "docs" / "architectures.md"

_INTRODUCTION = """\
# Architectures

Export results of every architecture that `sr-export` supports: those of spandrel, and sr-export's
own, which are recognized by the order and shapes of their layers or, for image-to-image
translators, by tensor names. Made by `python benchmarks/architectures` from the records in
`benchmarks/results/architectures`.

The weights are random. The results show that the exported graph equals its PyTorch network at every
tested shape (odd, tiny, transposed, large, another batch), that tiled output equals untiled output,
and that runtimes agree; they do not show image quality. With trained weights, PSNR differs; each
export measures its own.

The checkpoint layouts of training repositories are listed in
`tests/sr_export/checkpoint/test_repositories.py`.
"""
_SMALL = """\
## Small networks, all channels and scales

{ran} of {all} networks were tested, {held} of them exported. They have one or two blocks and few
features. "All" means all combinations of channels and scales.

- Largest error: largest difference from PyTorch; white is 1.
- FP16, INT8: lowest PSNR against FP32 on the exporter's photos; in brackets, the lowest share of
  the multiply-adds that INT8 computes. FP16 needs 58 dB to be offered. INT8 does not need its usual
  45 dB here: random weights can lose any number of decibels, and no layers return to FP16.
- In tiles: "equal" is within one level of 255 of the untiled frame; "blended" networks depend on
  the whole image, or on a halo that is too large; "one size" networks accept one tile size only.
- OpenVINO, ONNX Runtime: whether they run the FP32 network, within one level of each other.
"""
_FAILURES = """\
### Failures

Of reasons that differ only in figures, the first is shown.
"""
_DEFAULT = """\
## Default networks

Of the {all} architectures of spandrel, built with default arguments, {held} export.

The halo is in low-resolution pixels; networks without one are blended. The record has the complete
messages of backends that cannot run a graph.

| architecture | scale | sizes | batch | halo | largest error | OpenVINO | ONNX Runtime |
|---|---|---|---|---|---|---|---|
"""
_REFUSED = """\
| refused | reason |
|---|---|
"""


def read(record: Path) -> dict[str, ExportResult]:
    """Return the results of a record by network; empty if there is no record yet."""
    rows: dict[str, ExportResult] = json.loads(record.read_text()) if record.exists() else {}
    return rows


def text(small: dict[str, ExportResult], default: dict[str, ExportResult]) -> str:
    """Return the page."""
    return f"{_INTRODUCTION}\n{_small(small)}\n{_default(default)}"


def _small(rows: dict[str, ExportResult]) -> str:
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


def _default(rows: dict[str, ExportResult]) -> str:
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


def _default_line(name: str, row: ExportResult) -> str:
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
        *(run_result(row["runs"][backend]) for backend in ("openvino", "onnxruntime")),
    ]
    return f"| {' | '.join(columns)} |"
