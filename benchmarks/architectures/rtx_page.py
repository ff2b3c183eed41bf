"""The page about portable plans, made from the record of `--rtx`."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from architectures.page import RESULTS, ROOT
from architectures.rtx import FORMS

if TYPE_CHECKING:
    from pathlib import Path

    from architectures.rtx import PlanResult, PlanResults

RECORD = RESULTS / "rtx.json"
PAGE = ROOT / "docs" / "rtx-architectures.md"

_INTRODUCTION = """\
# Portable plans by architecture

Results of NVIDIA's real parser and builder (TensorRT for RTX {version}) for {networks} small
networks with random weights, on a machine **without a GPU**. Made by
`python benchmarks/architectures --rtx` from `benchmarks/results/architectures/rtx.json`.
**No plan was run**: the table shows that the compiler accepts the graphs, how long it takes, and
how much GPU memory it reports; not speed, and not images.

{built} of {all} plans were built. Each cell: processor seconds of parsing and building, size of the
plan, and GPU memory for intermediates at the largest shape. That is a frame of 1080p, or, for
networks that would need more than 8 GiB, the tile in the second column. Turing needs a plan of its
own. NV12 are frames of decoded videos.

| network | height x width | {forms} |
|---|---|{rule}|
"""
_FAILURES = """\
## Failures

| network | form | reason |
|---|---|---|
"""


def read(record: Path) -> dict[str, PlanResults]:
    """Return the results by network; empty if there is no record yet."""
    rows: dict[str, PlanResults] = json.loads(record.read_text()) if record.exists() else {}
    return rows


def text(rows: dict[str, PlanResults]) -> str:
    """Return the page."""
    results = {
        (key, form): plan
        for key, row in rows.items()
        for form, plan in row.get("plans", {}).items()
    }
    failed = {where: plan["error"] for where, plan in results.items() if "error" in plan}
    failed |= {(key, "export"): row["error"] for key, row in rows.items() if "error" in row}
    head = _INTRODUCTION.format(
        version=", ".join(sorted({row["library"] for row in rows.values() if "library" in row})),
        networks=len(rows),
        built=len(results) - sum("error" in each for each in results.values()),
        all=len(results),
        forms=" | ".join(FORMS),
        rule="|".join("---" for _ in FORMS),
    )
    lines = [_line(key, row.get("plans", {})) for key, row in sorted(rows.items())]
    reasons = [f"| {key} | {form} | {_short(why)} |" for (key, form), why in failed.items()]
    failures = "\n".join([f"\n{_FAILURES}".rstrip("\n"), *reasons]) if failed else ""
    return head + "\n".join(lines) + f"\n{failures}\n".replace("\n\n\n", "\n\n")


def _line(key: str, plans: dict[str, PlanResult]) -> str:
    shapes = [plan["shape"] for plan in plans.values() if "shape" in plan]
    size = "{}x{}".format(*shapes[0][1:]) if shapes else "-"
    return f"| {key} | {size} | {' | '.join(_cell(plans.get(form)) for form in FORMS)} |"


def _cell(plan: PlanResult | None) -> str:
    if plan is None:
        return "-"
    if "error" in plan:
        return "no"
    megabytes, gibibytes = plan["bytes"] / 1e6, plan["memory"] / 2**30
    return f"{plan['seconds']:.1f} s, {megabytes:.1f} MB, {gibibytes:.1f} GiB"


def _short(reason: str) -> str:
    """Return the first sentence of a reason, in a form that fits a table."""
    plain = re.sub(r"\s+", " ", reason).replace("|", "/")
    return plain if len(plain) <= 300 else plain[:297] + "..."
