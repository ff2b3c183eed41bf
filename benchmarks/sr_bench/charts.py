"""Charts of speed records: SVG that stands alone in documents or in a page.

A configuration has the same number in all charts of a page, where one list explains the numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sr_bench import drawing, tables
from sr_bench.drawing import Drawing
from sr_bench.records import size_text
from sr_deploy.errors import InvalidInputError
from sr_export.report import Axis

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_bench.records import Measurement, ModelBenchmark, SpeedRecord
    from sr_bench.tables import Rows

_EQUAL = 100.0
"""Decibels at which outputs equal to FP32 are drawn."""


class Chart(NamedTuple):
    """A drawing and its title, which a screen reader reads first."""

    title: str
    svg: str


def drawn(record: SpeedRecord, kind: str) -> Chart:
    """Return the charts of all model benchmarks of a record, below one another.

    Raises:
        InvalidInputError: The kind of chart is unknown.
    """
    if kind not in KINDS:
        raise InvalidInputError(f"unknown chart {kind!r}; choose one of {', '.join(KINDS)}")
    found = drawing.stacked([KINDS[kind](benchmark) for benchmark in record.series])
    return Chart(found.title, found.svg())


def numbers(benchmark: ModelBenchmark) -> dict[str, int]:
    """Return the number of each configuration, by name."""
    sizes = tables.by_size(benchmark).values()
    names = dict.fromkeys(str(row) for rows in sizes for _, row in rows)
    return {name: number for number, name in enumerate(names, start=1)}


def faster(benchmark: ModelBenchmark) -> Drawing:
    """Draw the speedup of each configuration, at the last size."""
    rows = _last(benchmark)
    values = [(str(row), run.speedup(row).median) for run, row in rows]
    title = f"{_title(benchmark, rows)}: speedup over {values[0][0]}"
    return drawing.bars(title, values, "{:.2f}")


def latency(benchmark: ModelBenchmark) -> Drawing:
    """Draw the distribution of the times of single calls, at the last size."""
    rows = _last(benchmark)
    spreads = [
        (str(row), tuple(row.upscale.percentile(each) for each in (0, 25, 50, 75, 99)))
        for _, row in rows
    ]
    return drawing.spreads(f"{_title(benchmark, rows)}: milliseconds per call", spreads)


def throughput(benchmark: ModelBenchmark) -> Drawing:
    """Draw megapixels per second by frame size."""
    numbered = numbers(benchmark)
    lines: dict[int, list[tuple[float, float]]] = {}
    for rows in tables.by_size(benchmark).values():
        for run, row in rows:
            pixels = run.size[0] * run.size[1] / 1e6
            rate = run.batch * row.upscale.rate() * pixels * benchmark.subject.scale**2
            lines.setdefault(numbered[str(row)], []).append((pixels, rate))
    across = Axis.logarithmic([x for line in lines.values() for x, _ in line])
    up = Axis.linear([0.0, *(y for line in lines.values() for _, y in line)])
    title = f"{_title(benchmark)}: output megapixels per second by frame size"
    ordered = [(number, sorted(line)) for number, line in lines.items()]
    return drawing.plot(title, across, up, ordered, ("megapixels of the frame", "MP/s"))


def quality(benchmark: ModelBenchmark) -> Drawing:
    """Draw PSNR by frames per second, at the last size."""
    rows = _last(benchmark)
    numbered = numbers(benchmark)
    against_truth = any(row.truth is not None for _, row in rows)
    points = []
    for run, row in rows:
        decibels = _decibels(row, against_truth=against_truth)
        if decibels is not None:
            rate = run.batch * row.upscale.rate()
            points.append((numbered[str(row)], [(rate, decibels)]))
    if not points:
        return Drawing.empty()
    across = Axis.logarithmic([point[0][0] for _, point in points])
    up = Axis.linear([point[0][1] for _, point in points])
    unit = f"dB on {benchmark.options.images}" if against_truth else "dB against FP32"
    title = f"{_title(benchmark, rows)}: {unit} by frames per second"
    return drawing.plot(title, across, up, points, ("frames per second", unit), front=True)


def stages(benchmark: ModelBenchmark) -> Drawing:
    """Draw the time of each stage of a call, at the last size."""
    rows = _last(benchmark)
    parts = tables.stage_medians(rows)
    if not parts:
        return Drawing.empty()
    return drawing.parts(f"{_title(benchmark, rows)}: stages of a call in milliseconds", parts)


KINDS: dict[str, Callable[[ModelBenchmark], Drawing]] = {
    "faster": faster,
    "latency": latency,
    "throughput": throughput,
    "quality": quality,
    "stages": stages,
}


def _last(benchmark: ModelBenchmark) -> Rows:
    return list(tables.by_size(benchmark).values())[-1]


def _title(benchmark: ModelBenchmark, rows: Rows | None = None) -> str:
    model = benchmark.subject
    name = f"{model.name} ({model.architecture} x{model.scale})"
    return f"{name}, {size_text(rows[0][0].size, rows[0][0].batch)}" if rows else name


def _decibels(row: Measurement, *, against_truth: bool) -> float | None:
    if against_truth:
        return None if row.truth is None else row.truth.psnr
    if row.fidelity.psnr is None and row.fidelity.largest:
        return None
    return _EQUAL if row.fidelity.psnr is None else row.fidelity.psnr
