"""What changed from one record of speed to another, and whether that is more than noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_bench import intervals
from sr_bench.records import size_text
from sr_bench.tables import Table
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_bench.intervals import Interval
    from sr_bench.records import (
        Configuration,
        Measurement,
        Mode,
        ModelBenchmark,
        Run,
        Size,
        SpeedRecord,
        Timing,
    )


@dataclass(frozen=True)
class TimingKey:
    """What must be the same for two timings to be compared."""

    network: str
    """The SHA-256 of its checkpoint."""
    contender: Configuration
    size: Size
    batch: int
    form: Mode


@dataclass(frozen=True)
class TimingChange:
    """How the time of one row changed."""

    key: TimingKey
    network: str
    """Its name."""
    times: Interval
    """The time after, over the time before."""
    relative: bool
    """Whether times were first divided by those of a baseline that both records share."""

    @property
    def noteworthy(self) -> bool:
        """Whether the change is beyond noise."""
        return 1.0 not in self.times

    def slower_than(self, limit: float) -> bool:
        """Whether this is a regression: beyond noise, and by more than a limit (0.05 is 5 %)."""
        return self.noteworthy and self.times.value > 1 + limit


def changes(before: SpeedRecord, after: SpeedRecord) -> list[TimingChange]:
    """Compare two records, row by row, where both have the same.

    Times are compared after dividing them by the baseline's of the same round, if both records
    have the same baseline, with the same versions on the same processor: a machine that is slower
    today than yesterday is not a change. The baseline itself is compared as it is.

    Raises:
        InvalidInputError: the records have no row in common.
    """
    old, new = _entries(before), _entries(after)
    found = [_change(key, old[key], new[key]) for key in old if key in new]
    if not found:
        raise InvalidInputError(
            "the records have no row in common: the same checkpoint, contender, size and batch"
        )
    return found


def text(found: Sequence[TimingChange], limit: float | None) -> str:
    """Return the comparison for the terminal.

    Args:
        found: from `changes`.
        limit: what counts as a regression; None: nothing does.
    """
    rows = [
        (
            f"{each.network} {each.key.contender}",
            size_text(each.key.size, each.key.batch),
            each.key.form,
            f"{_percent(each.times.value)} %",
            f"{_percent(each.times.low)} to {_percent(each.times.high)} %",
            _verdict(each, limit),
        )
        for each in found
    ]
    table = Table(("time of", "size", "form", "change", "in 95 of 100 runs", ""), tuple(rows))
    relative = any(each.relative for each in found)
    about = "Positive is slower. What lies within the interval around no change is noise."
    if relative:
        about += "\nTimes are those over the baseline's of the same round, but for the baseline."
    return f"{table.text()}\n\n{about}"


_Entry = tuple["ModelBenchmark", "Run", "Measurement", "Timing"]


def _entries(record: SpeedRecord) -> dict[TimingKey, _Entry]:
    """Return a record's timings; of a baseline that was measured several times, the first."""
    found: dict[TimingKey, _Entry] = {}
    for series, bout in record.bouts():
        for row in bout.rows:
            for timing in row.timings:
                key = TimingKey(
                    series.subject.sha256, row.contender, bout.size, bout.batch, timing.form
                )
                found.setdefault(key, (series, bout, row, timing))
    return found


def _change(key: TimingKey, old: _Entry, new: _Entry) -> TimingChange:
    relative = _same_baseline(old, new)
    before, after = (_times(each, relative=relative) for each in (old, new))
    times = intervals.quotient(after, before, paired=False)
    return TimingChange(key, old[0].subject.name, times, relative)


def _times(entry: _Entry, *, relative: bool) -> list[float]:
    _, bout, _, timing = entry
    if not relative:
        return timing.medians()
    baseline = bout.rows[0].upscale.medians()
    return [time / base for time, base in zip(timing.medians(), baseline, strict=True)]


def _same_baseline(old: _Entry, new: _Entry) -> bool:
    """Whether both were measured beside the same thing, which is not what is compared."""
    (one, first, row, _), (other, second, _, _) = old, new
    base, against = first.rows[0], second.rows[0]
    return (
        row is not base
        and base.contender == against.contender
        and one.setting.device.cpu == other.setting.device.cpu
        and one.setting.device.gpu == other.setting.device.gpu
        and one.options.threads == other.options.threads
        and (base.versions or one.setting.versions) == (against.versions or other.setting.versions)
    )


def _percent(times: float) -> str:
    return f"{100 * (times - 1):+.1f}"


def _verdict(change: TimingChange, limit: float | None) -> str:
    if not change.noteworthy:
        return "noise"
    if limit is not None and change.slower_than(limit):
        return "REGRESSION"
    return "slower" if change.times.value > 1 else "faster"
