"""The page of a record: one file without external resources, with charts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from sr_bench import charts, quality_tables, tables
from sr_bench.drawing import STYLE
from sr_bench.records import QualityRecord, size_text
from sr_export.report import comparisons, render_page, static

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_bench.environment import Environment
    from sr_bench.record_files import Record
    from sr_bench.records import BenchRun, Ceiling, Measurement, ModelBenchmark, SpeedRecord
    from sr_export.scene import Scene

_CHARTS = {
    "faster": ("Speedup", ""),
    "latency": (
        "Distribution of times",
        "Line: minimum to p99. Box: middle half. Mark: median. The axis is logarithmic.",
    ),
    "throughput": (
        "Throughput by size",
        "Megapixels of output. The numbers are those of the list below.",
    ),
    "quality": (
        "Quality by speed",
        "Right: faster. Up: better. Dashed: Pareto front. Outputs equal to FP32 are at 100 dB.",
    ),
    "stages": ("Stages of a call", "Medians, measured apart from the rounds."),
}
_NUMBERED = ("throughput", "quality")
_COLUMNS = (
    "Speedup",
    "Median",
    "p99",
    "Frames/s",
    "Of ceiling",
    "Memory",
    "Start",
    "PSNR vs first",
    "Max difference",
)
_LEGEND = (
    "Speedup: over the first row, the median of the rounds. Median and p99: time per call. Of "
    "ceiling: share of the rate of the machine's best kernels in this precision. Memory: peak of "
    "the process. Start: until ready. PSNR vs first and max difference: of one photo, against the "
    "output of the first row, the latter in levels of 255."
)


def page(record: Record, scenes: Sequence[Scene] = ()) -> str:
    """Return the HTML of a record.

    Args:
        record: A speed or quality record.
        scenes: Images with their outputs, for a quality record.
    """
    if isinstance(record, QualityRecord):
        return _quality_page(record, scenes)
    return _speed_page(record)


def _quality_page(record: QualityRecord, scenes: Sequence[Scene]) -> str:
    notes = [quality_tables.about(record), record.setting.machine()]
    if len(record.networks()) > 1:
        notes.insert(1, quality_tables.PRECISIONS_LEGEND)
    return _rendered(
        "quality.html",
        f"{record.subject.name}: quality",
        "Quality",
        record.subject.name,
        record.setting,
        images=record.images,
        tables=quality_tables.tables(record),
        scenes=comparisons(scenes, ()),
        scene_count=len(scenes),
        notes=notes,
    )


def _speed_page(record: SpeedRecord) -> str:
    names = ", ".join(dict.fromkeys(each.subject.name for each in record.series))
    notes = [tables.method(each) for each in record.series]
    notes += [each.setting.machine() for each in record.series]
    return _rendered(
        "speed.html",
        f"{names}: benchmark",
        "Benchmark",
        names,
        record.series[0].setting,
        benchmarks=[_benchmark(each) for each in record.series],
        columns=_COLUMNS,
        legend=_LEGEND,
        nothing=tables.NOTHING,
        quick=tables.QUICK,
        notes=list(dict.fromkeys(notes)),
    )


def _rendered(
    template: str,
    title: str,
    overline: str,
    heading: str,
    environment: Environment,
    **context: Any,
) -> str:
    hardware = environment.device
    facts = {
        "Processor": f"{hardware.cpu}, {hardware.cores} cores",
        "GPU": hardware.gpu or "",
        "Measured": environment.date[:10],
        "Commit": (environment.commit or "")[:10],
    }
    head = {"title": title, "overline": overline, "heading": heading, "facts": facts}
    style = static("page.css", "sr_bench")
    return render_page(template, STYLE, style, "sr_bench", **head, **context)


def _benchmark(benchmark: ModelBenchmark) -> dict[str, Any]:
    """Return the variables of one model benchmark."""
    drawn = {kind: charts.KINDS[kind](benchmark) for kind in _CHARTS}
    return {
        "subject": benchmark.subject,
        "options": benchmark.options,
        "warning": tables.warning(benchmark),
        "sizes": [
            (
                size_text(*size),
                [(str(row), _cells(run, row, benchmark)) for run, row in rows],
                tables.not_measured(rows),
            )
            for size, rows in tables.by_size(benchmark).items()
        ],
        "charts": [
            (*_CHARTS[kind], Markup(drawing.svg()), kind in _NUMBERED)  # noqa: S704  escaped there
            for kind, drawing in drawn.items()
            if drawing.height
        ],
        "numbers": charts.numbers(benchmark),
        "ceilings": [_ceiling(name, each) for name, each in benchmark.ceilings.items()],
    }


def _ceiling(name: str, ceiling: Ceiling) -> tuple[str, str, str]:
    """Return name, rate and kernel."""
    if name in ("copy", "pcie"):
        return name, f"{ceiling.best:,.0f} GB/s", ceiling.how
    return name.upper(), f"{ceiling.best:,.0f} billion operations/s", ceiling.how


def _cells(run: BenchRun, row: Measurement, benchmark: ModelBenchmark) -> tuple[str, ...]:
    return (
        tables.speedup_text(run, row),
        f"{row.upscale.percentile(50):.2f} ms",
        f"{row.upscale.percentile(99):.2f} ms",
        f"{run.batch * row.upscale.rate():.1f}",
        tables.share_text(run, row, benchmark),
        tables.memory_text(row.peak_memory),
        tables.NOTHING if row.start_seconds is None else f"{row.start_seconds:.1f} s",
        tables.psnr_text(row.fidelity),
        tables.levels(row.fidelity.largest),
    )
