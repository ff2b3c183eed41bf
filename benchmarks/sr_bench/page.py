"""A record as a page: one file that loads nothing, with charts, for a desk or a phone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_bench import charts, drawing, quality_tables, tables
from sr_bench.ceilings import share
from sr_bench.records import QualityRecord, size_text
from sr_deploy import machine
from sr_export.report.comparison import comparisons
from sr_export.report.markup import Markup, join, tag
from sr_export.report.page import document

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_bench.environment import Environment
    from sr_bench.record_files import Record
    from sr_bench.records import Measurement, ModelBenchmark, Run
    from sr_bench.tables import Rows, Table
    from sr_export.report import Scene

_STYLE = """
.bench-chart { display: block; width: 100%; max-width: 560px; margin-top: 32px; }
.scroll { overflow-x: auto; }
.figures th { white-space: normal; }
.figures td { padding-left: 14px; font-size: 14px; }
.numbered { margin-top: 20px; padding-left: 24px; columns: 2 220px; font-size: 14px; }
@media print { .bench-chart { break-inside: avoid; } }
"""
_HEADINGS = {
    "faster": "How many times faster",
    "latency": "How times are distributed",
    "throughput": "Throughput against size",
    "quality": "Quality against speed",
    "stages": "Where the time goes",
}
_CAPTIONS = {
    "latency": "A line from the least to the 99th of 100 times, a box for the middle half, a mark "
    "at the median; each step to the right is a ratio, not a difference.",
    "throughput": "Megapixels of the result. The numbers are those of the list below.",
    "quality": "Right is faster, up is better. The dashed line joins what nothing beats in both; "
    "what equals FP32 is drawn at 100 dB.",
    "stages": "Medians, measured in a turn of their own.",
}


def page(record: Record, scenes: Sequence[Scene] = ()) -> str:
    """Return the HTML of a record.

    Args:
        record: of speed or of quality.
        scenes: images and what became of them, for a record of quality.
    """
    if isinstance(record, QualityRecord):
        return _quality_page(record, scenes)
    names = ", ".join(dict.fromkeys(each.subject.name for each in record.series))
    head = _head("Benchmark", names, record.series[0].setting)
    content = join(head, *(_series(each, len(record.series) > 1) for each in record.series))
    return document(f"{names}: benchmark", content, drawing.STYLE, _STYLE)


def _quality_page(record: QualityRecord, scenes: Sequence[Scene]) -> str:
    tables = [quality_tables.quality_table(record.methods)]
    if any(each.mean().mse is not None for each in record.methods):
        tables.append(quality_tables.detail_table(record.methods))
    if len(record.networks()) > 1:
        tables.append(quality_tables.precision_table(record))
    content = join(
        _head("Quality", record.subject.name, record.setting),
        tag("section", tag("h2", f"On {record.images}"), *map(_scrolled, tables)),
        comparisons(scenes, ()),
        tag("footer", tag("p", quality_tables.about(record))),
    )
    return document(f"{record.subject.name}: quality", content, drawing.STYLE, _STYLE)


def _head(what: str, names: str, setting: Environment) -> Markup:
    device = setting.device
    facts = {
        "Processor": f"{device.cpu}, {device.cores} cores",
        "GPU": device.gpu or "",
        "Measured": setting.date[:10],
        "Commit": (setting.commit or "")[:10],
    }
    entries = [
        tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items() if value
    ]
    return tag(
        "header",
        tag("p", what, class_="overline"),
        tag("h1", names, dir="auto"),
        tag("dl", *entries, class_="facts"),
    )


def _series(series: ModelBenchmark, several: bool) -> Markup:
    parts = []
    if several:
        parts.append(tag("h2", str(series.subject)))
    for rows in tables.by_size(series).values():
        parts.append(_figures(rows, series))
        parts += [tag("p", each) for each in tables.not_measured(rows)]
    for kind, heading in _HEADINGS.items():
        drawn = charts.KINDS[kind](series)
        if drawn.height:
            caption = tag("p", _CAPTIONS[kind]) if kind in _CAPTIONS else ""
            parts.append(tag("section", tag("h2", heading), caption, Markup(drawn.svg())))
            if kind in ("throughput", "quality"):
                parts.append(_numbers(series))
    parts.append(_ceilings(series))
    about = (tables.method(series), series.setting.machine())
    parts.append(tag("footer", *(tag("p", each) for each in about)))
    return join(*parts)


def _figures(rows: Rows, series: ModelBenchmark) -> Markup:
    """Make the table of one size; on a phone, each row becomes a card."""
    body = []
    for bout, row in rows:
        cells = [
            tag("td", value, data_label=label, class_="nothing" if value == _NOTHING else None)
            for label, value in _cells(bout, row, series).items()
        ]
        body.append(tag("tr", tag("th", str(row), scope="row"), *cells))
    labels = ("", *_cells(*rows[0], series))
    head = tag("tr", *(tag("th", label, scope="col") for label in labels))
    table = tag("table", tag("thead", head), tag("tbody", *body), class_="wide figures")
    title = f"{size_text(rows[0][0].size, rows[0][0].batch)}, frame in to frame out"
    return tag("section", tag("h2", title), tag("div", table, class_="scroll"))


_NOTHING = tables.NOTHING


def _cells(bout: Run, row: Measurement, series: ModelBenchmark) -> dict[str, str]:
    reached = share(row, bout, series.ceilings)
    return {
        "Times faster": f"{bout.speedup(row).median:.2f}",
        "Median": f"{row.upscale.percentile(50):.2f} ms",
        "99 of 100": f"{row.upscale.percentile(99):.2f} ms",
        "Frames/s": f"{bout.batch * row.upscale.rate():.1f}",
        "Of its ceiling": _NOTHING if reached is None else f"{100 * reached.value:.0f} %",
        "Memory": _NOTHING if row.peak_memory is None else machine.format_bytes(row.peak_memory),
        "Start": _NOTHING if row.start_seconds is None else f"{row.start_seconds:.1f} s",
        "Against FP32": tables.psnr_text(row.fidelity),
    }


def _numbers(series: ModelBenchmark) -> Markup:
    return tag("ol", *(tag("li", each) for each in charts.numbers(series)), class_="numbered")


def _ceilings(series: ModelBenchmark) -> Markup:
    """Say what the machine was seen to do at best."""
    if not series.ceilings:
        return Markup()
    rows = []
    for name, ceiling in series.ceilings.items():
        bytes_ = name in ("copy", "pcie")
        unit = "GB/s" if bytes_ else "billion operations/s"
        label = tag("th", name if bytes_ else name.upper(), scope="row")
        how = tag("div", ceiling.how, class_="note")
        rows.append(tag("tr", label, tag("td", f"{ceiling.best:,.0f} {unit}", how)))
    words = "The best of several kernels, measured before and after, in the same run."
    table = tag("table", tag("tbody", *rows), class_="wide")
    title = tag("h2", "What the machine can do")
    return tag("section", title, tag("p", words), tag("div", table, class_="scroll"))


def _scrolled(table: Table) -> Markup:
    head = tag("tr", *(tag("th", each, scope="col") for each in table.header))
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", each) for each in row[1:]))
        for row in table.rows
    ]
    return tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", *body), class_="wide"),
        class_="scroll",
    )
