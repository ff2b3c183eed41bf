"""Records in documents: tables between their markers, and charts as pictures beside them.

A document asks for what becomes of `benchmarks/results/NAME.json` with two markers, each on a line
of its own; what is between them is ours to write:

    <!-- table:NAME -->
    <!-- /table -->

    <!-- table:NAME:KIND -->
    <!-- /table -->

    <!-- chart:NAME:KIND -->
    <!-- /chart -->

Of a table of speed, KIND is one of `speed_documents.TABLES`; of a chart, one of `charts.KINDS`, and
the picture is written to `docs/charts/NAME-KIND.svg`.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from sr_bench import charts, quality_tables, records, speed_documents, speed_tables
from sr_bench.scores import QualityRecord
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

    from sr_bench.records import Record

RESULTS = "benchmarks/results"
CHARTS = "docs/charts"
_BLOCK = re.compile(r"(?ms)^<!-- (table|chart):([\w:-]+) -->$(.*?)^<!-- /\1 -->$")
_MARKER = re.compile(r"(?m)^<!-- ((table|chart):\S+|/table|/chart) -->$")


def documents(root: Path) -> list[Path]:
    """Return the documents of a checkout that may hold tables and charts.

    Raises:
        NotFoundError: it has no README.md.
    """
    readme = root / "README.md"
    if not readme.is_file():
        raise NotFoundError(f"{root}: has no README.md; run it in a checkout, or name one")
    return [readme, *sorted((root / "docs").glob("*.md"))]


def outdated(root: Path) -> dict[Path, str]:
    """Return the documents and charts that differ from the records, with what they should be.

    Raises:
        NotFoundError: a record that a document asks for is not there.
        BundleError: a record does not hold.
        InvalidInputError: a marker has no counterpart, or asks for a chart that there is not.
    """
    wanted: dict[Path, str] = {}
    for path in documents(root):
        text = path.read_text(encoding="utf-8")
        wanted[path] = _filled(path, text, root, wanted)
    return {path: text for path, text in wanted.items() if _content(path) != text}


def update(changed: dict[Path, str]) -> None:
    """Write documents and charts."""
    for path, text in changed.items():
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def markdown(record: Record, kind: str = "ratios") -> str:
    """Return a record's table for documents, and below it what it was measured on.

    Args:
        record: of speed or of quality.
        kind: of table; a record of quality has one only.
    """
    if isinstance(record, QualityRecord):
        return quality_tables.markdown(record)
    return speed_documents.markdown(record, kind)


def text(record: Record) -> str:
    """Return a record for the terminal."""
    if isinstance(record, QualityRecord):
        return quality_tables.text(record)
    return speed_tables.text(record)


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _filled(path: Path, text: str, root: Path, wanted: dict[Path, str]) -> str:
    """Return a document with its tables and charts; the charts themselves go into `wanted`."""
    blocks = list(_BLOCK.finditer(text))
    if 2 * len(blocks) != len(_MARKER.findall(text)):
        raise InvalidInputError(
            f"{path}: a table marker has no counterpart; a table begins with a line "
            "<!-- table:NAME --> and ends with a line <!-- /table -->, a chart likewise"
        )

    def filled(block: re.Match[str]) -> str:
        kind = block[1]
        name, _, what = block[2].partition(":")
        if kind == "table":
            content = markdown(records.read(root / RESULTS / f"{name}.json"), what or "ratios")
        else:
            target = root / CHARTS / f"{name}-{what}.svg"
            record = records.read_speed(root / RESULTS / f"{name}.json")
            drawn = charts.drawn(record, what)
            wanted[target] = drawn.svg + "\n"
            content = f"![{drawn.title}]({os.path.relpath(target, path.parent)})"
        return f"<!-- {kind}:{block[2]} -->\n{content}\n<!-- /{kind} -->"

    return _BLOCK.sub(filled, text)
