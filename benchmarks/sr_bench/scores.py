"""Records of quality: how close pictures come to the ground truth, and precisions to FP32."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sr_bench.facts import Configuration, Environment, MeasuredModel  # noqa: TC001  fields are decoded by their types
from sr_deploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Score:
    """How close one image came to its ground truth, or several on average."""

    psnr: float | None
    """Decibels, Y channel; None: the images are equal."""
    ssim: float
    """Y channel."""
    mse: float | None = None
    """Y channel, in squared levels; None here and below: an older record, which lacks them."""
    rgb_psnr: float | None = None
    """Decibels, the three channels together."""
    rgb_ssim: float | None = None
    """The mean of the channels' own."""
    rgb_mse: float | None = None


@dataclass(frozen=True)
class Method:
    """One way to upscale, and its score for each image, by the image's name."""

    name: str
    scores: dict[str, Score]
    contender: Configuration | None = None
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
        return mean(self.scores.values())


@dataclass(frozen=True)
class QualityRecord:
    """What `sr-bench quality` measured."""

    schema: int
    kind: Literal["quality"]
    setting: Environment
    subject: MeasuredModel
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
