"""Records of measurements: JSON files, read as strictly as a bundle's manifest.

A record holds raw samples. What is shown (medians, ratios, means) is computed from them, by the
methods here, whenever it is shown.
"""

from __future__ import annotations

import dataclasses
import json
import re
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sr_deploy import strict
from sr_deploy.errors import BundleError, NotFoundError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 2
# Rounds on an idle machine agree within a few per cent; beside other work they do not.
_STEADY_SPREAD = 0.1
_SHOWN = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime", "contiguous": "eager"}


@dataclass(frozen=True)
class Device:
    """The machine, as far as it matters for speed; nothing that names it."""

    cpu: str
    features: tuple[str, ...]
    """Instruction sets that inference uses."""
    cores: int
    """How many the process may use, by affinity and quota."""
    free_memory: int
    """Bytes, before the measurement."""
    system: str


@dataclass(frozen=True)
class Setting:
    """When, where and with what a record was made."""

    date: str
    commit: str | None
    """Of sr-deploy's own checkout; None: it ran from an installed package."""
    dirty: bool | None
    """Whether tracked files differed from the commit."""
    device: Device
    versions: dict[str, str]


@dataclass(frozen=True)
class Subject:
    """The network that was measured, as its bundle's manifest has it."""

    name: str
    architecture: str
    scale: int
    checkpoint: str
    sha256: str
    """Of the checkpoint's file."""


@dataclass(frozen=True)
class Contender:
    """One way to run the network."""

    runtime: Literal["sr-deploy", "torch"]
    backend: str
    """Of sr-deploy: its backend; of torch: the memory format of its tensors."""
    precision: str

    def __str__(self) -> str:
        runtime = "PyTorch" if self.runtime == "torch" else "sr-deploy"
        backend = _SHOWN.get(self.backend, self.backend)
        return f"{runtime} {backend} {self.precision.upper()}"


@dataclass(frozen=True)
class Score:
    """How close one image came to its ground truth."""

    psnr: float | None
    """Decibels, Y channel; None: the images are equal."""
    ssim: float


@dataclass(frozen=True)
class Method:
    """One way to upscale, and its score for each image, by the image's name."""

    name: str
    scores: dict[str, Score]
    contender: Contender | None = None
    """What ran the network; None: no network but a filter."""
    against_fp32: dict[str, float | None] | None = None
    """Decibels between its frames and those of FP32, all channels and pixels; None: equal."""

    stated: float | None = None
    """What the bundle says of that: on the exporter's photos, the worst one; None: of FP32."""

    def worst_against_fp32(self) -> float | None:
        """Return the decibels of the image that differs most; None: all are equal."""
        known = [each for each in (self.against_fp32 or {}).values() if each is not None]
        return min(known, default=None)

    def mean(self) -> Score:
        """Return the mean over the images."""
        known = [each.psnr for each in self.scores.values() if each.psnr is not None]
        complete = len(known) == len(self.scores)
        return Score(
            statistics.fmean(known) if complete else None,
            statistics.fmean(each.ssim for each in self.scores.values()),
        )


@dataclass(frozen=True)
class QualityRecord:
    """What `sr-bench quality` measured."""

    schema: int
    kind: Literal["quality"]
    setting: Setting
    subject: Subject
    images: str
    """What they are called."""
    low_resolution: str | None
    """The folder that the small images came from; None: made from the ground truth."""
    methods: tuple[Method, ...]
    """Rows to beat first, then the bundle in one precision or several."""

    def __post_init__(self) -> None:
        if not self.networks():
            raise BundleError("methods: none of them is a network's")

    def networks(self) -> tuple[Method, ...]:
        """Return the bundle's rows."""
        return tuple(each for each in self.methods if each.contender is not None)


@dataclass(frozen=True)
class Ratio:
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
    """One contender at one frame size."""

    contender: Contender
    size: tuple[int, int]
    """Width and height of the input."""
    rounds: tuple[tuple[float, ...], ...]
    """Milliseconds of each frame, by the round in which it was measured."""
    difference: int
    """The largest difference from the baseline's output, in levels of 255."""

    def __post_init__(self) -> None:
        if not self.rounds or not all(self.rounds) or min(self.samples()) <= 0:
            raise BundleError("rounds: each must hold samples, all greater than 0")

    def samples(self) -> list[float]:
        """Return the milliseconds of all frames."""
        return [each for samples in self.rounds for each in samples]

    def percentile(self, percent: float) -> float:
        """Return a percentile of all samples, in milliseconds."""
        return float(np.percentile(self.samples(), percent))

    def against(self, baseline: Timing) -> Ratio:
        """Compare round by round: a machine that drifts slows both sides of each ratio."""
        ratios = [
            statistics.median(theirs) / statistics.median(ours)
            for theirs, ours in zip(baseline.rounds, self.rounds, strict=True)
        ]
        low, median, high = (float(each) for each in np.percentile(ratios, [25, 50, 75]))
        return Ratio(median, low, high)


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


@dataclass(frozen=True)
class SpeedRecord:
    """What `sr-bench speed` measured."""

    schema: int
    kind: Literal["speed"]
    setting: Setting
    subject: Subject
    options: SpeedOptions
    timings: tuple[Timing, ...]
    """By size; the first of each size is the baseline."""

    def __post_init__(self) -> None:
        counts = {len(each.rounds) for each in self.timings}
        if counts != {self.options.rounds}:
            raise BundleError(f"timings: each needs {self.options.rounds} rounds, found {counts}")

    def steady(self) -> bool:
        """Whether every row's rounds agree well enough to be quoted."""
        rows = self.by_size().values()
        return all(each.against(timings[0]).steady for timings in rows for each in timings)

    def by_size(self) -> dict[tuple[int, int], list[Timing]]:
        """Return the timings of each size, the baseline first."""
        found: dict[tuple[int, int], list[Timing]] = {}
        for each in self.timings:
            found.setdefault(each.size, []).append(each)
        return found


Record = QualityRecord | SpeedRecord
_KINDS: dict[object, type[QualityRecord] | type[SpeedRecord]] = {
    "quality": QualityRecord,
    "speed": SpeedRecord,
}


def write(path: Path, record: Record) -> None:
    """Write a record, whole or not at all."""
    text = json.dumps(dataclasses.asdict(record), indent=1, allow_nan=False)
    # One line for each list of numbers, not one for each number.
    text = re.sub(r"\[[\d\s.,]+\]", lambda found: " ".join(found[0].split()), text)
    with atomic_file(path) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def read(path: Path) -> Record:
    """Read and check a record.

    Raises:
        NotFoundError: there is no such file.
        BundleError: it is not a record, of another schema, or a field does not fit.
    """
    if not path.is_file():
        raise NotFoundError(f"{path}: no such record; `sr-bench ... --json FILE` makes one")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BundleError(f"{path}: not valid JSON: {error}") from None
    found = (value.get("schema"), value.get("kind")) if isinstance(value, dict) else (None, None)
    if found[0] != SCHEMA or found[1] not in _KINDS:
        raise BundleError(
            f"{path}: schema {found[0]!r} and kind {found[1]!r}, but this version reads "
            f"schema {SCHEMA} and the kinds {', '.join(map(str, _KINDS))}"
        )
    return strict.decode(_KINDS[found[1]], value, str(path))
