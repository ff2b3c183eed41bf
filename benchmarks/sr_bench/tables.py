"""Tables of speed records, for the terminal and for documents."""

from __future__ import annotations

import statistics
import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_bench import intervals
from sr_bench.ceilings import share
from sr_bench.records import size_text
from sr_deploy import machine

if TYPE_CHECKING:
    from sr_bench.records import (
        BenchRun,
        Deviation,
        Measurement,
        ModelBenchmark,
        Size,
        SpeedRecord,
    )

    Rows = list[tuple[BenchRun, Measurement]]

_WIDTH = 100
NOTHING = "-"
"""The cell of a value that was not measured."""
_MODES = {"network": "network alone", "stream": "overlapped", "video": "whole video"}
QUICK = "Quick run: few configurations, one size and few rounds; --full measures all."


@dataclass(frozen=True)
class Table:
    """Text cells; the first column is aligned left, the others right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def text(self) -> str:
        """Return aligned columns."""
        return "\n".join("  ".join(cells).rstrip() for cells in self._aligned())

    def markdown(self) -> str:
        """Return a Markdown table with aligned source."""
        header, *rows = self._aligned()
        first, *others = map(len, header)
        rule = ["-" * first, *("-" * (width - 1) + ":" for width in others)]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rows])

    def without_empty(self, nothing: str) -> Table:
        """Return the table without the columns whose cells are all `nothing`."""
        columns = [
            column
            for column in zip(self.header, *self.rows, strict=True)
            if any(cell != nothing for cell in column[1:])
        ]
        header, *rows = zip(*columns, strict=True)
        return Table(header, tuple(rows))

    def _aligned(self) -> list[list[str]]:
        lines = [self.header, *self.rows]
        # A Markdown rule with an alignment needs two characters.
        widths = [max(2, *map(len, column)) for column in zip(*lines, strict=True)]
        return [
            [
                cell.rjust(width) if column else cell.ljust(width)
                for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
            ]
            for cells in lines
        ]


def wrapped(text: str) -> str:
    """Return a paragraph of lines that fit a terminal."""
    return textwrap.fill(text, _WIDTH)


def speed_text(record: SpeedRecord) -> str:
    """Return a speed record for the terminal."""
    parts: list[str] = []
    for benchmark in record.series:
        parts.append(f"{benchmark.subject}, {benchmark.setting.date[:10]}")
        parts += [QUICK] if benchmark.options.quick else []
        for rows in by_size(benchmark).values():
            size = size_text(rows[0][0].size, rows[0][0].batch)
            scale = benchmark.subject.scale
            parts.append(f"{size}: milliseconds per call\n{_times(rows, scale).text()}")
            parts.append(f"{size}: cost and accuracy\n{_costs(rows, benchmark).text()}")
            parts += [each for each in (_modes(rows).text(), _stages(rows)) if each]
            parts += [wrapped(each) for each in not_measured(rows)]
        if unsteady := warning(benchmark):
            parts.append(wrapped(f"WARNING: {unsteady}"))
        parts.append(wrapped(f"{method(benchmark)} {benchmark.options.rounds} rounds."))
    return "\n\n".join([*parts, wrapped(LEGEND)])


LEGEND = (
    "median, p90, p99, min: milliseconds per call, frame in to frame out. MP/s: megapixels of "
    "output per second. speedup: over the first row, the median of the rounds, with its 95 % "
    "confidence interval. start: seconds until ready. first: milliseconds of the first call. "
    "memory: peak of the process, including frames and runtime. ceiling: share of the rate of the "
    "machine's best kernels in this precision. PSNR: of one photo, against the output of the first "
    "row. max diff: largest difference from that output, in levels of 255. truth: PSNR of the Y "
    "channel against ground truth. A dash: not measured."
)


def by_size(benchmark: ModelBenchmark) -> dict[tuple[Size, int], Rows]:
    """Return the measurements of each size and batch with their runs; the baseline only once."""
    found: dict[tuple[Size, int], Rows] = {}
    for run in benchmark.bouts:
        rows = found.setdefault((run.size, run.batch), [])
        rows += [(run, row) for row in (run.rows[1:] if rows else run.rows)]
    return found


def warning(benchmark: ModelBenchmark) -> str | None:
    """Return a warning if the rounds of a measurement disagree; tables mark those with *."""
    count = benchmark.unsteady()
    if not count:
        return None
    total = sum(len(run.rows) for run in benchmark.bouts)
    return (
        f"the rounds of {count} of {total} measurements, marked with *, disagree by more than 10 % "
        "(quartiles of the speedup). Measure again on an idle machine."
    )


def speedup_text(run: BenchRun, row: Measurement) -> str:
    """Return the speedup of a measurement, marked if its rounds disagree."""
    speedup = run.speedup(row)
    return f"{speedup.median:.2f}{'' if speedup.steady else '*'}"


def not_measured(rows: Rows) -> list[str]:
    """Return a line for each configuration that could not be measured, with the reason."""
    runs = {id(run): run for run, _ in rows}.values()
    return [f"Not measured: {reason}" for run in runs for reason in run.missing.values()]


def share_text(run: BenchRun, row: Measurement, benchmark: ModelBenchmark) -> str:
    """Return the share of its ceiling that a measurement reached."""
    reached = share(row, run, benchmark.ceilings)
    return NOTHING if reached is None else f"{100 * reached.value:.0f} %"


def memory_text(size: int | None) -> str:
    """Return an amount of memory."""
    return NOTHING if size is None else machine.format_bytes(size)


def psnr_text(deviation: Deviation) -> str:
    """Return the PSNR of an output against that of the baseline."""
    if deviation.psnr is not None:
        return f"{deviation.psnr:.1f} dB"
    return NOTHING if deviation.largest else "equal"


def levels(difference: int) -> str:
    """Return a difference with its unit."""
    return "1 level" if difference == 1 else f"{difference} levels"


def stage_medians(rows: Rows) -> list[tuple[str, dict[str, float]]]:
    """Return the median milliseconds of each stage, by measurement and mode."""
    found = []
    for _, row in rows:
        for timing in row.timings:
            label = str(row) + ("" if timing is row.upscale else f", {_MODES[timing.form]}")
            stages = {stage: statistics.median(each) for stage, each in timing.stages.items()}
            if stages:
                found.append((label, stages))
    return found


def speedups(benchmark: ModelBenchmark) -> Table:
    """Return the speedup of each configuration at each size."""
    sizes = by_size(benchmark)
    last = list(sizes.values())[-1]
    shares = {row.contender: share_text(run, row, benchmark) for run, row in last}
    with_shares = any(each != NOTHING for each in shares.values())
    rows = []
    names = {row.contender: str(row) for of_size in sizes.values() for _, row in of_size}
    for configuration, name in names.items():
        cells, largest = [], 0
        for of_size in sizes.values():
            found = [(run, row) for run, row in of_size if row.contender == configuration]
            cells.append(speedup_text(*found[0]) if found else NOTHING)
            largest = max([largest, *(row.fidelity.largest for _, row in found)])
        if with_shares:
            cells.append(shares.get(configuration, NOTHING))
        rows.append((name, *cells, levels(largest)))
    shown = (size_text(*each) for each in sizes)
    header = ("speedup", *shown, *(["of ceiling"] if with_shares else []), "max difference")
    return Table(header, tuple(rows))


def overhead(benchmark: ModelBenchmark) -> Table:
    """Return the cost of a call over the network alone, and the stages that cause it."""
    cells = []
    for size, rows in by_size(benchmark).items():
        for _, row in rows:
            alone = row.timing("network")
            if alone is None:
                continue
            over = intervals.quotient(row.upscale.medians(), alone.medians(), paired=True)
            stages = {stage: statistics.median(each) for stage, each in row.upscale.stages.items()}
            whole = sum(stages.values()) or 1.0
            parts = (
                f"{stage} {100 * spent / whole:.1f} %"
                for stage, spent in stages.items()
                if stage != "network"
            )
            interval = f"{intervals.percent(over.low)} to {intervals.percent(over.high)} %"
            label = f"{row}, {size_text(*size)}"
            cells.append((label, f"{intervals.percent(over.value)} %", interval, ", ".join(parts)))
    return Table(("", "overhead", "95 % interval", "share of a call"), tuple(cells))


def method(benchmark: ModelBenchmark) -> str:
    """Return how a benchmark was measured, in sentences that several benchmarks may share."""
    backends = {row.contender.backend for run in benchmark.bouts for row in run.rows}
    baseline = benchmark.bouts[0].rows[0].contender
    text = (
        f"Speedup over {baseline}, {benchmark.options.threads} threads for each configuration. "
        "Timed from frame in to frame out (8 bit, height x width x channels), including pre- and "
        "post-processing; medians of interleaved rounds, each configuration in its own process. "
        "Max difference: from the output of the first row, in levels of 255."
    )
    if benchmark.ceilings:
        text += (
            " Of ceiling: the least time for the operations of the graph, at the rate of the "
            "machine's best kernels in that precision in the same session, over the measured time, "
            "at the last size."
        )
    if "channels_last" in backends:
        text += (
            " channels_last rows run with an allocator that keeps freed memory (glibc tunables), "
            "unlike stock PyTorch."
        )
    if "compiled" in backends:
        text += (
            " compiled rows do the same; they are channels_last and use torch.compile, with frozen "
            "weights where the output stays the same."
        )
    return text


def _times(rows: Rows, scale: int) -> Table:
    cells = []
    for run, row in rows:
        timing = row.upscale
        times = (f"{timing.percentile(each):.2f}" for each in (50, 90, 99, 0))
        rate = run.batch * timing.rate()
        megapixels = rate * scale**2 * run.size[0] * run.size[1] / 1e6
        faster = intervals.quotient(run.rows[0].upscale.medians(), timing.medians(), paired=True)
        interval = f"{faster.low:.2f} to {faster.high:.2f}"
        rates = (f"{rate:.1f}", f"{megapixels:.2f}")
        cells.append((str(row), *times, *rates, speedup_text(run, row), interval))
    times_header = ("median", "p90", "p99", "min", "frames/s", "MP/s", "speedup", "95 % interval")
    return Table(("", *times_header), tuple(cells))


def _costs(rows: Rows, benchmark: ModelBenchmark) -> Table:
    cells = []
    for run, row in rows:
        joules, truth = row.upscale.joules, row.truth and row.truth.psnr
        cells.append(
            (
                str(row),
                NOTHING if row.start_seconds is None else f"{row.start_seconds:.1f} s",
                NOTHING if row.first_ms is None else f"{row.first_ms:.0f} ms",
                memory_text(row.peak_memory),
                memory_text(row.device_memory),
                f"{statistics.fmean(joules):.2f} J" if joules else NOTHING,
                share_text(run, row, benchmark),
                psnr_text(row.fidelity),
                str(row.fidelity.largest),
                NOTHING if truth is None else f"{truth:.2f} dB",
            )
        )
    header = ("start", "first", "memory", "GPU mem", "energy", "ceiling", "PSNR", "max diff")
    return Table(("", *header, "truth"), tuple(cells)).without_empty(NOTHING)


def _modes(rows: Rows) -> Table:
    """Return the other modes: the network alone, and the effect of overlapping."""
    shown = [mode for mode in _MODES if any(row.timing(mode) for _, row in rows)]  # type: ignore[arg-type]
    cells = []
    for _, row in rows:
        medians: list[str] = []
        for mode in shown:
            timing = row.timing(mode)  # type: ignore[arg-type]
            if timing is None:
                medians += [NOTHING, NOTHING]
                continue
            times = intervals.quotient(row.upscale.medians(), timing.medians(), paired=True)
            medians += [f"{timing.percentile(50):.2f} ms", f"{intervals.percent(times.value)} %"]
        cells.append((str(row), *medians))
    header = [part for mode in shown for part in (_MODES[mode], "upscale")]
    return Table(("", *header), tuple(cells)) if shown else Table((), ())


def _stages(rows: Rows) -> str:
    found = stage_medians(rows)
    width = max((len(label) for label, _ in found), default=0)
    lines = ["stages: median milliseconds"] if found else []
    for label, stages in found:
        parts = (f"{stage} {milliseconds:.2f}" for stage, milliseconds in stages.items())
        lines.append(f"{label.ljust(width)}  {', '.join(parts)}")
    return "\n".join(lines)
