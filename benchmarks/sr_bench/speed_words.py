"""What is said below the tables of speed: how and on what they were measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sr_bench.facts import Environment, MeasuredModel
    from sr_bench.timings import ModelBenchmark, SpeedRecord

_STRONG = (
    " The channels_last rows run with an allocator that keeps freed memory (glibc's tunables), "
    "which stock PyTorch does not."
)
_COMPILED = (
    " So do the compiled ones, which are channels_last, too, through torch.compile with their "
    "weights frozen where that computes the same."
)


def about(series: ModelBenchmark) -> str:
    """Say how one series was measured."""
    first = series.bouts[0].rows[0].contender
    how = _how(series, f"{series.options.rounds} interleaved rounds")
    return f"Times faster than {first}; {subject(series.subject)}, {how}"


def about_setting(setting: Environment) -> str:
    """Say what a record was measured on, and when."""
    return f"{_machine(setting)}; {_occasion(setting)}."


def about_briefly(series: ModelBenchmark) -> str:
    """Say how one of several series was measured, without what `title` says."""
    first = series.bouts[0].rows[0].contender
    how = _how(series, "interleaved rounds")
    return f"Times faster than {first}; {how} {_machine(series.setting)}."


def title(series: ModelBenchmark) -> str:
    """Say what is one's own among several series."""
    rounds = f"{series.options.rounds} rounds, {_occasion(series.setting)}"
    return f"**{subject(series.subject)}**, {rounds}"


def about_overhead(record: SpeedRecord) -> str:
    """Say what the table of what lies beside the network shows."""
    series = record.series[0]
    return (
        "Frame in to frame out, over the network alone: the backend called bare, with nothing of "
        f"sr-deploy, or PyTorch's module on ready tensors. {subject(series.subject)}, "
        f"{series.options.threads} threads, {series.options.rounds} rounds in which both took "
        "turns in one process. The last column says what part of a call is not the network's. "
        f"{about_setting(series.setting)}"
    )


def _machine(setting: Environment) -> str:
    device = setting.device
    versions = ", ".join(f"{package} {version}" for package, version in setting.versions.items())
    gpu = f", {device.gpu} (driver {device.driver})" if device.gpu else ""
    features = ", ".join(device.features)
    return f"Measured on {device.cpu}, {device.cores} cores ({features}){gpu}; {versions}"


def _occasion(setting: Environment) -> str:
    commit = f", commit {setting.commit[:10]}" if setting.commit else ""
    return f"{setting.date[:10]}{commit}{' with changes' if setting.dirty else ''}"


def _how(series: ModelBenchmark, rounds: str) -> str:
    backends = {row.contender.backend for bout in series.bouts for row in bout.rows}
    ceiling = (
        " Its ceiling is the least time that the operations of the graph can take at the rate of "
        "the machine's best kernels in that precision, measured in the same run; at the last size."
        if series.ceilings
        else ""
    )
    return (
        f"{series.options.threads} threads for all. Frame in to "
        "frame out (8-bit, height x width x channels), so that pre- and post-processing count for "
        f"all; medians of {rounds}, each contender in a process of its own. The last column is the "
        f"largest difference from the first row's output, in levels of 255.{ceiling}"
        + (_STRONG if "channels_last" in backends else "")
        + (_COMPILED if "compiled" in backends else "")
    )


def subject(of: MeasuredModel) -> str:
    """Return what a network is called."""
    return f"{of.checkpoint} ({of.architecture} x{of.scale})"
