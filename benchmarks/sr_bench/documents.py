"""Tables and charts of records in documents, between markers.

A document requests the table or the chart of `benchmarks/results/NAME.json` with two markers, each
on its own line; everything between them is generated:

    <!-- table:NAME -->
    <!-- /table -->

    <!-- table:NAME:KIND -->
    <!-- /table -->

    <!-- chart:NAME:KIND -->
    <!-- /chart -->

    <!-- environment -->
    <!-- /environment -->

The KIND of a speed table is "speedups" (the default) or "overhead"; that of a chart is a key of
`charts.KINDS`, and its picture is written to `docs/charts/NAME-KIND.svg`. The environment block
gets the notes that the tables of the document share: their legends, and the machine they were
measured on. Without such a block, each table has its own notes.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from sr_bench import charts, quality_tables, record_files, tables
from sr_bench.records import QualityRecord
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

    from sr_bench.record_files import Record

RESULTS = "benchmarks/results"
CHARTS = "docs/charts"
SPEED_TABLES = {"speedups": tables.speedups, "overhead": tables.overhead}
_BLOCK = re.compile(r"(?ms)^<!-- (table|chart|environment)(:[\w:-]+)? -->$(.*?)^<!-- /\1 -->$")
_MARKER = re.compile(r"(?m)^<!-- /?(table|chart|environment)(:\S+)? -->$")


def outdated(root: Path) -> dict[Path, str]:
    """Return the documents and charts of a checkout that differ from the records, with new text.

    Raises:
        NotFoundError: The checkout has no README.md, or a requested record does not exist.
        BundleError: A record is invalid.
        InvalidInputError: A marker has no counterpart, or requests an unknown table or chart.
    """
    readme = root / "README.md"
    if not readme.is_file():
        raise NotFoundError(f"{root}: no README.md; run the command in a checkout, or use --root")
    wanted: dict[Path, str] = {}
    for path in (readme, *sorted((root / "docs").rglob("*.md"))):
        wanted[path] = _filled(path, path.read_text(encoding="utf-8"), root, wanted)
    return {path: text for path, text in wanted.items() if _content(path) != text}


def update(changed: dict[Path, str]) -> None:
    """Write documents and charts."""
    for path, text in changed.items():
        path.parent.mkdir(exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")


def markdown(record: Record, kind: str = "speedups") -> tuple[str, list[str]]:
    """Return a table with its own notes, and the notes that other tables may share.

    Raises:
        InvalidInputError: The kind of table is unknown.
    """
    if isinstance(record, QualityRecord):
        return _quality_markdown(record)
    if kind not in SPEED_TABLES:
        raise InvalidInputError(f"unknown table {kind!r}; choose one of {', '.join(SPEED_TABLES)}")
    parts, notes = [], []
    for benchmark in record.series:
        occasion = f"{benchmark.options.rounds} rounds, {benchmark.setting.occasion()}"
        parts.append(f"**{benchmark.subject}**, {occasion}")
        parts += [tables.QUICK] if benchmark.options.quick else []
        parts.append(SPEED_TABLES[kind](benchmark).markdown())
        for rows in tables.by_size(benchmark).values():
            parts += [tables.wrapped(each) for each in tables.not_measured(rows)]
        if kind == "speedups":
            if warning := tables.warning(benchmark):
                parts.append(tables.wrapped(f"**Warning:** {warning}".replace("*,", "\\*,")))
            notes.append(tables.method(benchmark))
        else:
            notes.append(
                "Overhead: frame in to frame out over the network alone, which is the backend "
                "called directly, or PyTorch's module on prepared tensors; "
                f"{benchmark.options.threads} threads, both interleaved in one process. Share of a "
                "call: the stages besides the network."
            )
    machines = [each.setting.machine() for each in record.series]
    return "\n\n".join(parts), list(dict.fromkeys([*notes, *machines]))


def _quality_markdown(record: QualityRecord) -> tuple[str, list[str]]:
    networks, notes = record.networks(), []
    if len(networks) > 1:
        table = quality_tables.precision_table(record)
        notes.append(quality_tables.PRECISIONS_LEGEND)
    else:
        bicubic = [each for each in record.methods if each.name == "bicubic"]
        table = quality_tables.quality_table([*bicubic, *networks])
    own = f"{quality_tables.about(record)} {record.setting.occasion()}."
    body = f"{table.markdown()}\n\n{tables.wrapped(own)}"
    return body, [*notes, record.setting.machine()]


def _content(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.is_file() else None


def _filled(path: Path, text: str, root: Path, wanted: dict[Path, str]) -> str:
    """Return a document with its tables and charts; add the files of the charts to `wanted`."""
    blocks = list(_BLOCK.finditer(text))
    if 2 * len(blocks) != len(_MARKER.findall(text)):
        raise InvalidInputError(
            f"{path}: a marker has no counterpart; <!-- table:NAME -->, <!-- chart:NAME:KIND --> "
            "and <!-- environment --> need <!-- /table -->, <!-- /chart --> and "
            "<!-- /environment --> on a later line"
        )
    has_environment = any(block[1] == "environment" for block in blocks)
    shared: list[str] = []

    def content(kind: str, request: str) -> str:
        name, _, what = request.removeprefix(":").partition(":")
        source = root / RESULTS / f"{name}.json"
        if kind == "chart":
            target = root / CHARTS / f"{name}-{what}.svg"
            drawn = charts.drawn(record_files.read_speed(source), what)
            wanted[target] = drawn.svg + "\n"
            return f"![{drawn.title}]({os.path.relpath(target, path.parent)})"
        body, notes = markdown(record_files.read(source), what or "speedups")
        if has_environment:
            shared.extend(notes)
            return body
        return "\n\n".join([body, *map(tables.wrapped, notes)])

    def filled(block: re.Match[str]) -> str:
        if block[1] == "environment":
            return block[0]
        request = block[2] or ""
        text = content(block[1], request)
        return f"<!-- {block[1]}{request} -->\n{text}\n<!-- /{block[1]} -->"

    def with_notes(block: re.Match[str]) -> str:
        if block[1] != "environment":
            return block[0]
        notes = "\n\n".join(map(tables.wrapped, dict.fromkeys(shared)))
        return f"<!-- environment -->\n{notes}\n<!-- /environment -->"

    return _BLOCK.sub(with_notes, _BLOCK.sub(filled, text))
