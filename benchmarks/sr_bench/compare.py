"""Changes from one speed record to another, and whether they exceed the noise."""

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
        BenchRun,
        Configuration,
        Measurement,
        Mode,
        ModelBenchmark,
        Size,
        SpeedRecord,
        Timing,
    )

    _Entry = tuple[ModelBenchmark, BenchRun, Measurement, Timing]


@dataclass(frozen=True)
class TimingKey:
    """The properties that two timings must share to be compared."""

    sha256: str
    """Hash of the checkpoint."""
    configuration: Configuration
    size: Size
    batch: int
    mode: Mode


@dataclass(frozen=True)
class TimingChange:
    """The change of one timing."""

    key: TimingKey
    model: str
    times: Interval
    """Time after over time before."""
    relative: bool
    """Whether the times are relative to a baseline that both records share."""

    @property
    def significant(self) -> bool:
        """Whether the change exceeds the noise."""
        return 1.0 not in self.times

    def slower_than(self, limit: float) -> bool:
        """Whether it is a regression: significant, and above a limit (0.05 is 5 %)."""
        return self.significant and self.times.value > 1 + limit


def changes(before: SpeedRecord, after: SpeedRecord) -> list[TimingChange]:
    """Compare the timings that two records have in common.

    Times are divided by those of the baseline in the same round if both records have the same
    baseline with the same versions on the same processor: a slower machine is not a change. The
    baseline itself is compared directly.

    Raises:
        InvalidInputError: The records have no timing in common.
    """
    old, new = _entries(before), _entries(after)
    found = [_change(key, old[key], new[key]) for key in old if key in new]
    if not found:
        raise InvalidInputError(
            "the records have no measurement in common: the same checkpoint, configuration, size "
            "and batch"
        )
    return found


def text(found: Sequence[TimingChange], limit: float | None) -> str:
    """Return changes for the terminal.

    Args:
        found: From `changes`.
        limit: The limit of a regression; None: no limit.
    """
    percent = intervals.percent
    rows = [
        (
            f"{each.model} {each.key.configuration}",
            size_text(each.key.size, each.key.batch),
            each.key.mode,
            f"{percent(each.times.value)} %",
            f"{percent(each.times.low)} to {percent(each.times.high)} %",
            _verdict(each, limit),
        )
        for each in found
    ]
    table = Table(("time of", "size", "mode", "change", "95 % interval", ""), tuple(rows))
    about = "Positive: slower. Noise: the interval includes no change."
    if any(each.relative for each in found):
        about += "\nTimes are relative to the baseline of the same round, except the baseline's."
    return f"{table.text()}\n\n{about}"


def _entries(record: SpeedRecord) -> dict[TimingKey, _Entry]:
    """Return the timings of a record; of a baseline measured several times, the first."""
    found: dict[TimingKey, _Entry] = {}
    for benchmark, run in record.bouts():
        sha256 = benchmark.subject.sha256
        for row in run.rows:
            for timing in row.timings:
                key = TimingKey(sha256, row.contender, run.size, run.batch, timing.form)
                found.setdefault(key, (benchmark, run, row, timing))
    return found


def _change(key: TimingKey, old: _Entry, new: _Entry) -> TimingChange:
    relative = _same_baseline(old, new)
    before, after = (_times(each, relative=relative) for each in (old, new))
    times = intervals.quotient(after, before, paired=False)
    return TimingChange(key, old[0].subject.name, times, relative)


def _times(entry: _Entry, *, relative: bool) -> list[float]:
    _, run, _, timing = entry
    if not relative:
        return timing.medians()
    baseline = run.rows[0].upscale.medians()
    return [time / base for time, base in zip(timing.medians(), baseline, strict=True)]


def _same_baseline(old: _Entry, new: _Entry) -> bool:
    """Whether both have the same baseline, and are not the baseline."""
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


def _verdict(change: TimingChange, limit: float | None) -> str:
    if not change.significant:
        return "noise"
    if limit is not None and change.slower_than(limit):
        return "REGRESSION"
    return "slower" if change.times.value > 1 else "faster"
