"""Records of speed: raw samples, and how what is shown is computed from them.

A record is a list of series: one network on one machine, measured by one command. A series is a
list of bouts: contenders that took turns, round after round, at one size of frame. The first row
of a bout is its baseline; ratios are taken within a bout, and within its rounds, only.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from sr_bench.facts import Configuration, Environment, MeasuredModel, Size  # noqa: TC001  fields are decoded by their types
from sr_bench.scores import Score  # noqa: TC001  fields are decoded by their types
from sr_deploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Rounds on an idle machine agree within a few per cent; beside other work they do not.
_STEADY_SPREAD = 0.1

Form = Literal["upscale", "network", "stream", "video"]
"""What is included: frame in to frame out, with all copies; the network alone; frames that follow
one another, overlapped; a whole video, with decoding and encoding."""


@dataclass(frozen=True)
class Speedup:
    """How many times faster, over the rounds: the median, and the middle half of them."""

    median: float
    low: float
    high: float

    @property
    def steady(self) -> bool:
        """Whether the rounds agree well enough to be quoted."""
        return self.high - self.low <= _STEADY_SPREAD * self.median


@dataclass(frozen=True)
class Timing:
    """One form of one contender at one size."""

    form: Form
    rounds: tuple[tuple[float, ...], ...]
    """Milliseconds of each call, by the round in which it was measured. A call is one batch; of
    "stream" and "video", the time from one frame's end to the next one's."""
    joules: tuple[float, ...] | None = None
    """Energy of the processor or GPU per call, by round; None: the machine does not tell."""
    stages: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Milliseconds of each part of a call, by its name, in a turn of its own."""

    def __post_init__(self) -> None:
        if not self.rounds or not all(self.rounds) or min(self.samples()) <= 0:
            raise BundleError("rounds: each must hold samples, all greater than 0")

    def samples(self) -> list[float]:
        """Return the milliseconds of all calls."""
        return [each for samples in self.rounds for each in samples]

    def percentile(self, percent: float) -> float:
        """Return a percentile of all samples, in milliseconds."""
        return float(np.percentile(self.samples(), percent))

    def medians(self) -> list[float]:
        """Return the median of each round, in milliseconds."""
        return [statistics.median(samples) for samples in self.rounds]

    def rate(self) -> float:
        """Return the calls per second: of the median round, what it got through."""
        return 1e3 / statistics.median(statistics.fmean(samples) for samples in self.rounds)

    def against(self, baseline: Timing) -> Speedup:
        """Compare round by round: a machine that drifts slows both sides of each ratio."""
        ratios = [
            theirs / ours for theirs, ours in zip(baseline.medians(), self.medians(), strict=True)
        ]
        low, median, high = (float(each) for each in np.percentile(ratios, [25, 50, 75]))
        return Speedup(median, low, high)


@dataclass(frozen=True)
class Deviation:
    """How a contender's output of one photo compares with that of the bout's first row."""

    largest: int
    """Difference of any value, in levels of 255."""
    psnr: float | None = None
    """Decibels, all channels; None: equal, or an older record."""
    ssim: float | None = None
    """Y channel; None: too small a picture, or an older record."""


@dataclass(frozen=True)
class Measurement:
    """One contender at one size: what its process did from start to end."""

    contender: Configuration
    timings: tuple[Timing, ...]
    """Of "upscale" first, then of other forms."""
    fidelity: Deviation
    ran: Configuration | None = None
    """What the default turned out to be; None: just the contender."""
    versions: dict[str, str] = field(default_factory=dict)
    """Of its own interpreter; empty: those of the setting."""
    start_seconds: float | None = None
    """From nothing to ready: interpreter, imports, loading. None here and below: not measured."""
    first_ms: float | None = None
    """Of the first call."""
    peak_memory: int | None = None
    """Bytes of the host's memory that the whole process held at most."""
    device_memory: int | None = None
    """Bytes of the GPU's memory that it held."""
    truth: Score | None = None
    """Against ground truth, the mean over the images that the options name."""

    @property
    def precision(self) -> str:
        """In which it computed."""
        return (self.ran or self.contender).precision

    def timing(self, form: Form = "upscale") -> Timing | None:
        """Return the timing of a form, if it was measured."""
        return next((each for each in self.timings if each.form == form), None)

    @property
    def upscale(self) -> Timing:
        """The timing of frame in to frame out, which every row has."""
        return self.timings[0]

    def __post_init__(self) -> None:
        if not self.timings or self.timings[0].form != "upscale":
            raise BundleError('timings: the first must be of the form "upscale"')


@dataclass(frozen=True)
class Workload:
    """What one call has to do, counted from the ONNX graph."""

    operations: float
    """Of convolutions and matrix products; a multiply-add is two."""
    int8_share: float
    """Of the operations that the INT8 variant computes in INT8; 0: there is none."""
    frame_bytes: int
    """Of the frames, in and out: nobody can move less."""
    weights: int
    """How many numbers the weights are."""
    activations: int
    """How many numbers layers read and write, if nothing is fused."""


@dataclass(frozen=True)
class Run:
    """Contenders that took turns at one size."""

    size: Size
    batch: int
    rows: tuple[Measurement, ...]
    """The baseline first."""
    work: Workload | None = None
    missing: dict[str, str] = field(default_factory=dict)
    """Contenders that could not be measured, each with the reason."""

    def __post_init__(self) -> None:
        counts = {len(timing.rounds) for row in self.rows for timing in row.timings}
        if len(counts) != 1:
            raise BundleError(f"rows: all need the same number of rounds, found {sorted(counts)}")

    def steady(self) -> bool:
        """Whether every row's rounds agree with the baseline's well enough to be quoted."""
        return all(row.upscale.against(self.rows[0].upscale).steady for row in self.rows)


@dataclass(frozen=True)
class Ceiling:
    """The best that this machine was seen to do at something."""

    how: str
    """The kernel that did it."""
    rates: tuple[float, ...]
    """In each try: billions of operations, or of bytes moved, per second."""

    @property
    def best(self) -> float:
        """The rate of the best try."""
        return max(self.rates)


@dataclass(frozen=True)
class SpeedOptions:
    """How it was measured."""

    threads: int
    warm_up_seconds: float
    """At the least; then until frames get no faster."""
    rounds: int
    turn_seconds: float
    """How long each contender measures in each round."""
    rest_seconds: float
    """The pause before each turn, in which threads of the one before stop spinning."""
    device: str = "cpu"
    images: str | None = None
    """What the ground truth is called; None: there was none."""


@dataclass(frozen=True)
class ModelBenchmark:
    """One network on one machine, measured by one command."""

    setting: Environment
    subject: MeasuredModel
    options: SpeedOptions
    bouts: tuple[Run, ...]
    ceilings: dict[str, Ceiling] = field(default_factory=dict)
    """Of "fp32", "bf16", "fp16", "int8" (operations), "copy" and "pcie" (bytes), as far as they
    were measured."""


@dataclass(frozen=True)
class SpeedRecord:
    """What `sr-bench` measured of speed."""

    schema: int
    kind: Literal["speed"]
    series: tuple[ModelBenchmark, ...]

    def __post_init__(self) -> None:
        if not any(each.bouts for each in self.series):
            raise BundleError("series: nothing was measured")

    def bouts(self) -> Iterator[tuple[ModelBenchmark, Run]]:
        """Yield every bout with its series."""
        for series in self.series:
            for bout in series.bouts:
                yield series, bout

    def steady(self) -> bool:
        """Whether all rounds agree well enough to be quoted."""
        return all(bout.steady() for _, bout in self.bouts())
