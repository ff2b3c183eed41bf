"""Records of speed as pictures: SVG that stands alone in documents, or in a page.

In all of them a contender has the same number, so that what does not fit into a picture stands in
one list beside it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_bench import drawing, plotting, tables
from sr_bench.axes import Axis
from sr_bench.drawing import Drawing
from sr_bench.records import size_text
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_bench.records import Measurement, ModelBenchmark, SpeedRecord
    from sr_bench.tables import Rows

_EQUAL = 100.0
"""Decibels at which what equals FP32 is drawn."""


@dataclass(frozen=True)
class Chart:
    """A picture and its title, which is also what a screen reader reads first."""

    title: str
    svg: str


def drawn(record: SpeedRecord, kind: str) -> Chart:
    """Draw all series of a record, one below the other.

    Raises:
        InvalidInputError: there is no such kind of chart.
    """
    if kind not in KINDS:
        raise InvalidInputError(f"there is no chart {kind!r}; choose one of {', '.join(KINDS)}")
    found = drawing.stacked([KINDS[kind](series) for series in record.series])
    return Chart(found.title, found.svg())


def numbers(series: ModelBenchmark) -> dict[str, int]:
    """Number the contenders of a series, by their names."""
    names = [str(row) for rows in _sizes(series) for _, row in rows]
    return {name: number for number, name in enumerate(dict.fromkeys(names), start=1)}


def faster(series: ModelBenchmark) -> Drawing:
    """Draw how many times faster than the baseline each contender is, at the last size."""
    rows = _sizes(series)[-1]
    values = [(str(row), row.upscale.against(bout.rows[0].upscale).median) for bout, row in rows]
    title = f"{_network(series)}, {_at(rows)}: times faster than {values[0][0]}"
    return drawing.bars(title, values, "{:.2f}")


def latency(series: ModelBenchmark) -> Drawing:
    """Draw how the times of single frames are distributed, at the last size."""
    rows = _sizes(series)[-1]
    spreads = [
        (
            str(row),
            tuple(row.upscale.percentile(each) for each in (0, 25, 50, 75, 99)),
        )
        for _, row in rows
    ]
    title = f"{_network(series)}, {_at(rows)}: milliseconds of a frame"
    return drawing.spreads(title, spreads)


def throughput(series: ModelBenchmark) -> Drawing:
    """Draw megapixels per second against the size of frames."""
    numbered = numbers(series)
    scale = series.subject.scale
    lines: dict[int, list[tuple[float, float]]] = {}
    for rows in _sizes(series):
        for bout, row in rows:
            pixels = bout.size[0] * bout.size[1] / 1e6
            rate = bout.batch * row.upscale.rate() * pixels * scale**2
            lines.setdefault(numbered[str(row)], []).append((pixels, rate))
    across = Axis.logarithmic([x for line in lines.values() for x, _ in line])
    up = Axis.linear([0.0, *(y for line in lines.values() for _, y in line)])
    title = f"{_network(series)}: megapixels of result per second against the frame's megapixels"
    ordered = [(number, sorted(line)) for number, line in lines.items()]
    return plotting.plot(title, across, up, ordered, ("megapixels of the frame", "MP/s"))


def quality(series: ModelBenchmark) -> Drawing:
    """Draw decibels against frames per second, at the last size: best is top right."""
    rows = _sizes(series)[-1]
    numbered = numbers(series)
    against_truth = any(row.truth is not None for _, row in rows)
    points = []
    for bout, row in rows:
        decibels = _decibels(row, against_truth=against_truth)
        if decibels is not None:
            rate = bout.batch * row.upscale.rate()
            points.append((numbered[str(row)], [(rate, decibels)]))
    if not points:
        return Drawing.empty()
    across = Axis.logarithmic([point[0][0] for _, point in points])
    up = Axis.linear([point[0][1] for _, point in points])
    measure = f"dB on {series.options.images}" if against_truth else "dB against FP32"
    title = f"{_network(series)}, {_at(rows)}: {measure} against frames per second"
    return plotting.plot(title, across, up, points, ("frames per second", measure), front=True)


def stages(series: ModelBenchmark) -> Drawing:
    """Draw what a frame's time is spent on, at the last size."""
    rows = _sizes(series)[-1]
    parts = tables.stage_medians(rows)
    if not parts:
        return Drawing.empty()
    title = f"{_network(series)}, {_at(rows)}: what a frame's time is spent on, in milliseconds"
    return drawing.parts(title, parts)


KINDS: dict[str, Callable[[ModelBenchmark], Drawing]] = {
    "faster": faster,
    "latency": latency,
    "throughput": throughput,
    "quality": quality,
    "stages": stages,
}


def _sizes(series: ModelBenchmark) -> Sequence[Rows]:
    return list(tables.by_size(series).values())


def _network(series: ModelBenchmark) -> str:
    return f"{series.subject.name} ({series.subject.architecture} x{series.subject.scale})"


def _at(rows: Rows) -> str:
    bout = rows[0][0]
    return size_text(bout.size, bout.batch)


def _decibels(row: Measurement, *, against_truth: bool) -> float | None:
    if against_truth:
        return None if row.truth is None else row.truth.psnr
    if row.fidelity.psnr is None and row.fidelity.largest:
        return None
    return _EQUAL if row.fidelity.psnr is None else row.fidelity.psnr
