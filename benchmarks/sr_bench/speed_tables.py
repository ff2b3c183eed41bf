"""Records of speed as tables: all of it for the terminal, ratios for documents."""

from __future__ import annotations

import statistics
import textwrap
from typing import TYPE_CHECKING

from sr_bench import noise, speed_words, work
from sr_bench.facts import size_text
from sr_bench.table import Table
from sr_deploy import machine

if TYPE_CHECKING:
    from sr_bench.facts import Size
    from sr_bench.timings import Deviation, Measurement, ModelBenchmark, Run, SpeedRecord

_WIDTH = 100
NOTHING = "-"
"""Where nothing was measured."""
_FORMS = {"network": "network alone", "stream": "overlapped", "video": "whole video"}


def text(record: SpeedRecord) -> str:
    """Return a record for the terminal."""
    parts: list[str] = []
    for series in record.series:
        parts.append(f"{speed_words.subject(series.subject)}, {series.setting.date[:10]}")
        for rows in sizes(series).values():
            parts.append(_times(rows, series.subject.scale).text())
            parts.append(_costs(rows, series).text())
            parts += [each.text() for each in (_forms(rows), _stages(rows)) if each.rows]
            parts += missing(rows)
        parts.append(textwrap.fill(speed_words.about(series), _WIDTH))
    parts.append(textwrap.fill(_LEGEND, _WIDTH))
    return "\n\n".join(parts)


_LEGEND = (
    "Median, p90, p99 and min are of a call, frame in to frame out. MP/s: megapixels of the "
    "result. Faster: than the first row, by the median over rounds, and where that lies in 95 of "
    "100 runs. Memory: the most that the process held, frames and runtime included. Ceiling: the "
    "share of what the machine's best kernels reach in this precision. Differs: how far the result "
    "of one photo is from the first row's, and the largest difference in levels of 255. A dash: "
    "not measured."
)

Rows = list[tuple["Run", "Measurement"]]


def sizes(series: ModelBenchmark) -> dict[tuple[Size, int], Rows]:
    """Return the rows of each size and batch, the baseline once, each with its own bout."""
    found: dict[tuple[Size, int], Rows] = {}
    for bout in series.bouts:
        rows = found.setdefault((bout.size, bout.batch), [])
        rows += [(bout, row) for row in (bout.rows[1:] if rows else bout.rows)]
    return found


def name(row: Measurement) -> str:
    """Return what a row is called."""
    if row.ran is None:
        return str(row.contender)
    return f"{row.contender} ({str(row.ran).removeprefix('sr-deploy ')})"


def share_text(bout: Run, row: Measurement, series: ModelBenchmark) -> str:
    """Return what share of its ceiling a row reached."""
    share = work.share(row, bout, series.ceilings)
    return NOTHING if share is None else f"{100 * share.value:.0f} %"


def _times(rows: Rows, scale: int) -> Table:
    cells = []
    for bout, row in rows:
        timing = row.upscale
        times = (f"{timing.percentile(each):.2f}" for each in (50, 90, 99, 0))
        rate = bout.batch * timing.rate()
        megapixels = rate * scale**2 * bout.size[0] * bout.size[1] / 1e6
        faster = noise.quotient(bout.rows[0].upscale.medians(), timing.medians(), paired=True)
        spread = f"{faster.value:.2f} ({faster.low:.2f}-{faster.high:.2f})"
        cells.append((name(row), *times, f"{rate:.1f}", f"{megapixels:.2f}", spread))
    size = size_text(rows[0][0].size, rows[0][0].batch)
    header = (f"{size}, ms", "median", "p90", "p99", "min", "frames/s", "MP/s", "faster")
    return Table(header, tuple(cells))


def _costs(rows: Rows, series: ModelBenchmark) -> Table:
    cells = [
        (
            name(row),
            NOTHING if row.start_seconds is None else f"{row.start_seconds:.1f} s",
            NOTHING if row.first_ms is None else f"{row.first_ms:.0f} ms",
            *(NOTHING if each is None else machine.format_bytes(each) for each in _memories(row)),
            _energy(row),
            share_text(bout, row, series),
            fidelity(row.fidelity),
            NOTHING if row.truth is None or row.truth.psnr is None else f"{row.truth.psnr:.2f}",
        )
        for bout, row in rows
    ]
    header = ("", "start", "first", "memory", "GPU's", "energy", "ceiling", "differs", "PSNR Y")
    return Table(header, tuple(cells)).without_empty(NOTHING)


def _memories(row: Measurement) -> tuple[int | None, int | None]:
    return row.peak_memory, row.device_memory


def _energy(row: Measurement) -> str:
    joules = row.upscale.joules
    return NOTHING if not joules else f"{sum(joules) / len(joules):.2f} J"


def _forms(rows: Rows) -> Table:
    """Return other forms: what lies beside the network, and what overlapping gains."""
    shown = [form for form in _FORMS if any(row.timing(form) for _, row in rows)]  # type: ignore[arg-type]
    cells = []
    for _, row in rows:
        medians = []
        for form in shown:
            timing = row.timing(form)  # type: ignore[arg-type]
            if timing is None:
                medians += [NOTHING, NOTHING]
                continue
            times = noise.quotient(row.upscale.medians(), timing.medians(), paired=True)
            medians += [f"{timing.percentile(50):.2f} ms", f"{100 * (times.value - 1):+.1f} %"]
        cells.append((name(row), *medians))
    header = [part for form in shown for part in (_FORMS[form], "upscale")]
    return Table(("", *header), tuple(cells) if shown else ())


def _stages(rows: Rows) -> Table:
    cells = []
    for label, stages in staged(rows):
        parts = (f"{stage} {milliseconds:.2f}" for stage, milliseconds in stages.items())
        cells.append((label, ", ".join(parts)))
    return Table(("", "stages, ms"), tuple(cells))


def staged(rows: Rows) -> list[tuple[str, dict[str, float]]]:
    """Return the median milliseconds of stages, by row, and by form where it is another."""
    found = []
    for _, row in rows:
        for timing in row.timings:
            label = name(row) + ("" if timing is row.upscale else f", {_FORMS[timing.form]}")
            stages = {stage: statistics.median(each) for stage, each in timing.stages.items()}
            if stages:
                found.append((label, stages))
    return found


def missing(rows: Rows) -> list[str]:
    """Say what could not be measured, and why."""
    bouts = {id(bout): bout for bout, _ in rows}.values()
    return [f"Not measured: {reason}" for bout in bouts for reason in bout.missing.values()]


def fidelity(of: Deviation) -> str:
    """Return how far a row's output is from the first row's."""
    return f"{of.psnr:.1f} dB, {of.largest}" if of.psnr is not None else levels(of.largest)


def levels(difference: int) -> str:
    """Return a difference in words."""
    return "1 level" if difference == 1 else f"{difference} levels"
