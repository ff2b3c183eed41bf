"""Records of speed as tables for documents."""

from __future__ import annotations

import statistics
import textwrap
from typing import TYPE_CHECKING

from sr_bench import noise, speed_tables, speed_words
from sr_bench.facts import size_text
from sr_bench.table import Table
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from sr_bench.facts import Size
    from sr_bench.speed_tables import Rows
    from sr_bench.timings import Measurement, ModelBenchmark, Run, SpeedRecord

_WIDTH = 100


def markdown(record: SpeedRecord, kind: str = "ratios") -> str:
    """Return a record's tables for documents, and below them what they were measured on.

    Args:
        record: of speed.
        kind: one of `TABLES`.

    Raises:
        InvalidInputError: there is no such kind of table.
    """
    if kind not in TABLES:
        raise InvalidInputError(f"there is no table {kind!r}; choose one of {', '.join(TABLES)}")
    parts = []
    for series in record.series:
        if len(record.series) > 1:
            parts.append(speed_words.title(series))
        parts.append(TABLES[kind](series).markdown())
        parts += [
            textwrap.fill(each, _WIDTH)
            for rows in speed_tables.sizes(series).values()
            for each in speed_tables.missing(rows)
        ]
    if kind == "overhead":
        return "\n\n".join([*parts, textwrap.fill(speed_words.about_overhead(record), _WIDTH)])
    below = [
        f"{speed_words.about(each)} {speed_words.about_setting(each.setting)}"
        for each in record.series
    ]
    if len(below) > 1:
        below = list(dict.fromkeys(speed_words.about_briefly(each) for each in record.series))
    return "\n\n".join([*parts, *(textwrap.fill(each, _WIDTH) for each in below)])


def ratios(series: ModelBenchmark) -> Table:
    """Return how many times faster than the baseline each contender is, at each size."""
    by_size = speed_tables.sizes(series)
    shares = [_shares(rows, series) for rows in by_size.values()]
    measured = any(share != speed_tables.NOTHING for found in shares for share in found.values())
    rows = []
    for contender, label in _labels(by_size).items():
        cells, largest = [], 0
        for of_size in by_size.values():
            found = [(bout, row) for bout, row in of_size if row.contender == contender]
            cells.append(_ratio(*found[0]) if found else speed_tables.NOTHING)
            largest = max([largest, *(row.fidelity.largest for _, row in found)])
        if measured:
            cells.append(shares[-1].get(label, speed_tables.NOTHING))
        rows.append((label, *cells, speed_tables.levels(largest)))
    shown = (size_text(*each) for each in by_size)
    header = ("", *shown, *(["of its ceiling"] if measured else []), "differs by")
    return Table(header, tuple(rows))


def overhead(series: ModelBenchmark) -> Table:
    """Return what frame in to frame out costs over the network alone, and where that goes."""
    cells = []
    for size, rows in speed_tables.sizes(series).items():
        for _, row in rows:
            alone = row.timing("network")
            if alone is None:
                continue
            over = noise.quotient(row.upscale.medians(), alone.medians(), paired=True)
            stages = {stage: statistics.median(each) for stage, each in row.upscale.stages.items()}
            whole = sum(stages.values()) or 1.0
            parts = (
                f"{stage} {100 * spent / whole:.1f} %"
                for stage, spent in stages.items()
                if stage != "network"
            )
            spread = f"{_percent(over.low)} to {_percent(over.high)} %"
            label = f"{speed_tables.name(row)}, {size_text(*size)}"
            cells.append((label, f"{_percent(over.value)} %", spread, ", ".join(parts)))
    return Table(("", "over bare", "in 95 of 100 runs", "of a call"), tuple(cells))


def _labels(by_size: dict[tuple[Size, int], Rows]) -> dict[object, str]:
    return {row.contender: speed_tables.name(row) for rows in by_size.values() for _, row in rows}


def _ratio(bout: Run, row: Measurement) -> str:
    return f"{row.upscale.against(bout.rows[0].upscale).median:.2f}"


def _shares(rows: Rows, series: ModelBenchmark) -> dict[str, str]:
    return {
        speed_tables.name(row): speed_tables.share_text(bout, row, series) for bout, row in rows
    }


def _percent(quotient: float) -> str:
    return f"{100 * (quotient - 1):+.1f}"


TABLES = {"ratios": ratios, "overhead": overhead}
