"""Records of measurements: raw samples, and the statistics computed from them.

A speed record is a list of model benchmarks: one model on one machine, measured by one command. A
model benchmark is a list of runs: configurations measured in interleaved rounds at one frame size.
The first measurement of a run is its baseline; ratios are taken within a run and within its rounds
only. A quality record has one score per method and image.

Field names are the JSON keys of committed records.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np

from sr_bench.environment import Environment, MeasuredModel  # noqa: TC001  fields are decoded by their types
from sr_deploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

Size = tuple[int, int]
"""Width and height of an input frame."""
Mode = Literal["upscale", "network", "stream", "video"]
"""What a timing includes: frame in to frame out with all copies; the network alone; consecutive
frames, overlapped; a whole video with decoding and encoding."""

# Rounds on an idle machine agree within a few percent; beside other work they do not.
_STEADY_SPREAD = 0.1
_NAMES = {
    "torch": "PyTorch",
    "openvino": "OpenVINO",
    "onnxruntime": "ONNX Runtime",
    "tensorrt": "TensorRT",
    "tensorrt_rtx": "TensorRT for RTX",
    "contiguous": "eager",
}


def size_text(size: Size, batch: int = 1) -> str:
    """Return a size for people: 480x270, or 480x270 x4 for a batch."""
    return "{}x{}".format(*size) + (f" x{batch}" if batch > 1 else "")


@dataclass(frozen=True)
class Configuration:
    """One way to run the model."""

    runtime: Literal["sr-deploy", "torch"]
    backend: str
    """sr-deploy: its backend, or "auto" for the one that the engine selects. torch: "contiguous"
    (as most scripts run it), "channels_last" or "compiled"."""
    precision: str
    """A precision or "auto"."""

    def __str__(self) -> str:
        runtime = _NAMES.get(self.runtime, self.runtime)
        if self.backend == "auto":
            return f"{runtime} default"
        return f"{runtime} {_NAMES.get(self.backend, self.backend)} {self.precision.upper()}"


@dataclass(frozen=True)
class Speedup:
    """Speedup over the baseline: median and quartiles of the rounds."""

    median: float
    low: float
    high: float

    @property
    def steady(self) -> bool:
        """Whether the quartiles lie within 10 % of the median."""
        return self.high - self.low <= _STEADY_SPREAD * self.median


@dataclass(frozen=True)
class Timing:
    """The samples of one mode."""

    form: Mode
    rounds: tuple[tuple[float, ...], ...]
    """Milliseconds of each call, by round. A call is one batch; for "stream" and "video", the time
    between the ends of two consecutive frames."""
    joules: tuple[float, ...] | None = None
    """Energy of processor or GPU per call, by round; None: no energy counter."""
    stages: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """Milliseconds of each stage of a call, measured apart from the rounds."""

    def __post_init__(self) -> None:
        if not self.rounds or not all(self.rounds) or min(self.samples()) <= 0:
            raise BundleError("rounds: each round needs samples, all greater than 0")

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
        """Return calls per second: the throughput of the median round."""
        return 1e3 / statistics.median(statistics.fmean(samples) for samples in self.rounds)

    def against(self, baseline: Timing) -> Speedup:
        """Return the speedup, round by round: drift of the machine slows both sides alike."""
        ratios = [
            theirs / ours for theirs, ours in zip(baseline.medians(), self.medians(), strict=True)
        ]
        low, median, high = (float(each) for each in np.percentile(ratios, [25, 50, 75]))
        return Speedup(median, low, high)


@dataclass(frozen=True)
class Deviation:
    """Difference between the output for one photo and that of the baseline."""

    largest: int
    """Largest difference of any value, in levels of 255."""
    psnr: float | None = None
    """Decibels, all channels; None: equal, or an older record."""
    ssim: float | None = None
    """Y channel; None: the image is too small, or an older record."""


@dataclass(frozen=True)
class Score:
    """Similarity of an image to its ground truth, or the mean of several images."""

    psnr: float | None
    """Decibels, Y channel; None: equal."""
    ssim: float
    """Y channel."""
    mse: float | None = None
    """Y channel, squared levels; None here and below: an older record."""
    rgb_psnr: float | None = None
    """Decibels, all three channels together."""
    rgb_ssim: float | None = None
    """Mean of the three channels."""
    rgb_mse: float | None = None


@dataclass(frozen=True)
class Measurement:
    """One configuration at one size."""

    contender: Configuration
    timings: tuple[Timing, ...]
    """"upscale" first, then other modes."""
    fidelity: Deviation
    ran: Configuration | None = None
    """What the default resolved to; None: the configuration itself."""
    versions: dict[str, str] = field(default_factory=dict)
    """Package versions of its own interpreter; empty: those of the environment."""
    start_seconds: float | None = None
    """Interpreter start, imports and loading. None here and below: not measured."""
    first_ms: float | None = None
    """Milliseconds of the first call."""
    peak_memory: int | None = None
    """Peak host memory of the process, in bytes."""
    device_memory: int | None = None
    """GPU memory of the process, in bytes."""
    truth: Score | None = None
    """Mean score against ground truth, on the images that the options name."""

    def __post_init__(self) -> None:
        if not self.timings or self.timings[0].form != "upscale":
            raise BundleError('timings: the first must have the form "upscale"')

    def __str__(self) -> str:
        if self.ran is None:
            return str(self.contender)
        return f"{self.contender} ({str(self.ran).removeprefix('sr-deploy ')})"

    @property
    def precision(self) -> str:
        """The precision that it computed in."""
        return (self.ran or self.contender).precision

    @property
    def upscale(self) -> Timing:
        """The timing of frame in to frame out."""
        return self.timings[0]

    def timing(self, mode: Mode = "upscale") -> Timing | None:
        """Return the timing of a mode; None: not measured."""
        return next((each for each in self.timings if each.form == mode), None)


@dataclass(frozen=True)
class Workload:
    """Work of one call, counted from the ONNX graph."""

    operations: float
    """Operations of convolutions and matrix products; a multiply-add counts as two."""
    int8_share: float
    """Share of the operations that the INT8 variant computes in INT8; 0: no such variant."""
    frame_bytes: int
    """Bytes of input and output frames: the least possible memory traffic."""
    weights: int
    """Number of weights."""
    activations: int
    """Values that layers read and write, without any fusion."""


@dataclass(frozen=True)
class BenchRun:
    """Configurations measured in interleaved rounds at one size."""

    size: Size
    batch: int
    rows: tuple[Measurement, ...]
    """The baseline first."""
    work: Workload | None = None
    missing: dict[str, str] = field(default_factory=dict)
    """Configurations that could not be measured, with the reason."""

    def __post_init__(self) -> None:
        counts = {len(timing.rounds) for row in self.rows for timing in row.timings}
        if len(counts) != 1:
            raise BundleError(f"rows: numbers of rounds differ: {sorted(counts)}")

    def speedup(self, row: Measurement) -> Speedup:
        """Return the speedup of a measurement over the baseline."""
        return row.upscale.against(self.rows[0].upscale)


@dataclass(frozen=True)
class Ceiling:
    """The best rate that the machine reached at one kind of work."""

    how: str
    """The kernel."""
    rates: tuple[float, ...]
    """Billions of operations, or of bytes moved, per second, one for each try."""

    @property
    def best(self) -> float:
        """The rate of the best try."""
        return max(self.rates)


@dataclass(frozen=True)
class SpeedOptions:
    """How a model benchmark was measured."""

    threads: int
    warm_up_seconds: float
    """Minimum; the warm-up then continues until calls get no faster."""
    rounds: int
    turn_seconds: float
    """Measured seconds of each configuration in each round."""
    rest_seconds: float
    """Pause before each measurement, in which threads of the previous one stop spinning."""
    device: str = "cpu"
    images: str | None = None
    """Name of the ground truth; None: no ground truth."""
    quick: bool = False
    """Whether this is a quick run: few configurations, one size, few rounds."""


@dataclass(frozen=True)
class ModelBenchmark:
    """One model on one machine, measured by one command."""

    setting: Environment
    subject: MeasuredModel
    options: SpeedOptions
    bouts: tuple[BenchRun, ...]
    ceilings: dict[str, Ceiling] = field(default_factory=dict)
    """By "fp32", "bf16", "fp16", "int8" (operations), "copy" and "pcie" (bytes); not all of them
    can be measured everywhere."""

    def unsteady(self) -> int:
        """Return the number of measurements whose rounds disagree by more than 10 %."""
        return sum(not run.speedup(row).steady for run in self.bouts for row in run.rows)


@dataclass(frozen=True)
class SpeedRecord:
    """The record of `sr-bench speed`."""

    schema: int
    kind: Literal["speed"]
    series: tuple[ModelBenchmark, ...]

    def __post_init__(self) -> None:
        if not any(each.bouts for each in self.series):
            raise BundleError("series: no measurements")

    def bouts(self) -> Iterator[tuple[ModelBenchmark, BenchRun]]:
        """Yield every run with its model benchmark."""
        for benchmark in self.series:
            for run in benchmark.bouts:
                yield benchmark, run

    def steady(self) -> bool:
        """Whether the rounds of all measurements agree within 10 %."""
        return not any(each.unsteady() for each in self.series)


@dataclass(frozen=True)
class Method:
    """One way to upscale, with its score for each image, by image name."""

    name: str
    scores: dict[str, Score]
    contender: Configuration | None = None
    """Configuration of the network; None: an interpolation filter."""
    against_fp32: dict[str, float | None] | None = None
    """PSNR between its frames and those of FP32, all channels and pixels; None: equal."""
    stated: float | None = None
    """The same figure in the manifest: the worst of the exporter's photos; None: FP32."""

    def worst_against_fp32(self) -> float | None:
        """Return the PSNR of the image that differs most from FP32; None: all are equal."""
        known = [each for each in (self.against_fp32 or {}).values() if each is not None]
        return min(known, default=None)

    def mean(self) -> Score:
        """Return the mean over the images."""
        return mean(self.scores.values())


@dataclass(frozen=True)
class QualityRecord:
    """The record of `sr-bench quality`."""

    schema: int
    kind: Literal["quality"]
    setting: Environment
    subject: MeasuredModel
    images: str
    """Name of the image set."""
    low_resolution: str | None
    """Folder of the low-resolution images; None: downscaled from the ground truth."""
    methods: tuple[Method, ...]
    """Interpolation filters first, then the bundle in one or more precisions."""

    def __post_init__(self) -> None:
        if not self.networks():
            raise BundleError("methods: none is a network")

    def networks(self) -> tuple[Method, ...]:
        """Return the methods that ran the bundle."""
        return tuple(each for each in self.methods if each.contender is not None)


def mean(scores: Iterable[Score]) -> Score:
    """Return the mean of each figure; None where an image lacks it."""
    scores = tuple(scores)
    return Score(
        _mean([each.psnr for each in scores]),
        statistics.fmean(each.ssim for each in scores),
        _mean([each.mse for each in scores]),
        _mean([each.rgb_psnr for each in scores]),
        _mean([each.rgb_ssim for each in scores]),
        _mean([each.rgb_mse for each in scores]),
    )


def _mean(values: list[float | None]) -> float | None:
    known = [each for each in values if each is not None]
    return statistics.fmean(known) if known and len(known) == len(values) else None
