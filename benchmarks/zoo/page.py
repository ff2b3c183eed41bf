"""The record of the zoo, and the page that shows it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

from sr_deploy.files import atomic_file
from zoo import catalogue

Row = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
RECORD = ROOT / "benchmarks" / "results" / "zoo" / "zoo.json"
PAGE = ROOT / "docs" / "zoo.md"
LEVELS = 2  # what rounding in 8 bits, once in a script and once in ours, can differ by

_INTRODUCTION = """\
# Checkpoints of others

{files} real files of {origins} public repositories, exported by sr-export to FP32: first without an
option, then, where that was not right, with `--expect` and one image of the origin. The reference
is the origin's own code with its own colors, ranges and enlargement, run in PyTorch, TensorFlow,
Keras or ONNX Runtime on a crop of a photo and on a drawn image. Made by `python benchmarks/zoo`
from the record in `benchmarks/results/zoo`, which names the commit of sr-export for each row; the
catalogue has {listed} files. None of them are part of this project.

- **right**: at most {levels} levels of 255 from the origin everywhere, on both images.
- **assumed**: further away, and the summary names what was assumed and the option that changes it.
- **wrong**: further away without a word.
- **refused**: exit code 1 and a line that says why.
- Figures are the largest difference in levels.
"""
_TASKS = {"sr": "Super-resolution", "restoration": "Restoration", "other": "Other networks"}


def read() -> dict[str, Row]:
    """Return the rows of the record by entry, empty if there is none yet."""
    if not RECORD.is_file():
        return {}
    rows: dict[str, Row] = json.loads(RECORD.read_text(encoding="utf-8"))
    return rows


def write(rows: dict[str, Row]) -> None:
    """Write the record."""
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(RECORD) as path:
        path.write_text(json.dumps(dict(sorted(rows.items())), indent=1) + "\n", encoding="utf-8")


def verdict(run: Row) -> str:
    """Return "right", "assumed", "wrong" or "refused", or "not run"."""
    if not run:
        return "not run"
    if run["exit"] != 0:
        return "refused"
    if run.get("max", LEVELS + 1) <= LEVELS:
        return "right"
    return "assumed" if run.get("assumed") else "wrong"


def text(rows: dict[str, Row]) -> str:
    """Return the page."""
    entries = [entry for entry in catalogue.entries() if "plain" in rows.get(entry.name, {})]
    origins = {entry.repository for entry in entries}
    listed = sum(1 for _ in catalogue.entries())
    parts = [
        _INTRODUCTION.format(files=len(entries), origins=len(origins), listed=listed, levels=LEVELS)
    ]
    parts.append(_counts(rows, [entry.name for entry in entries]))
    for task, title in _TASKS.items():
        chosen = [entry for entry in entries if entry.task == task]
        if not chosen:
            continue
        lines = [f"## {title}", ""]
        lines += ["| File | Network | Licence | No option | `--expect` |", "|---|---|---|---|---|"]
        for entry in chosen:
            row = rows[entry.name]
            link = f"https://github.com/{entry.repository}/tree/{entry.commit}"
            file = f"[{entry.repository}]({link}) {entry.path.rsplit('/', 1)[-1]}"
            results = " | ".join(_cell(row.get(mode, {})) for mode in ("plain", "expect"))
            lines.append(f"| {file} | {entry.family} | {entry.licence} | {results} |")
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


def _counts(rows: dict[str, Row], names: list[str]) -> str:
    lines = ["| | right | assumed | wrong | refused |", "|---|---|---|---|---|"]
    for mode, title in (("plain", "No option"), ("expect", "then `--expect`")):
        counts = Counter(verdict(_last_run(rows[name], mode)) for name in names)
        cells = " | ".join(str(counts[key]) for key in ("right", "assumed", "wrong", "refused"))
        lines.append(f"| {title} | {cells} |")
    return "\n".join(lines) + "\n"


def _last_run(row: Row, mode: str) -> Row:
    """Return a run, or the one before it, which made it unnecessary."""
    run: Row = row[mode] if mode in row else row["plain"]
    return run


def _cell(run: Row) -> str:
    found = verdict(run)
    if found == "not run":
        return ""
    if found == "refused":
        return "refused"
    return f"{found}, {run['max']:.0f}" if "max" in run else f"{found}: {run['error']}"
