"""The gate: a precision is offered when its frames are those of FP32, to so many decibels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.bundle.manifest import Quality
from sr_export.metrics import luma, psnr, ssim

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision
    from sr_export.quantize.calibration_data import Example

    Run = Callable[[NDArray[np.uint8]], NDArray[Any]]

# Decibels against FP32, of the worst image, below which a precision is not offered.
BUDGETS: dict[Precision, float] = {"fp16": 58.0, "bf16": 45.0, "int8": 45.0}
# What may be lost against the originals; less than what two trainings of a network differ by.
MOST_LOST = 0.1


class Gate:
    """Compares the frames of other graphs with those of FP32.

    Args:
        exam: Images that nothing was tuned on.
        reference: The FP32 graph, bytes (1, H, W, C) in and out.
    """

    def __init__(self, exam: Sequence[Example], reference: Run) -> None:
        self.exam = tuple(exam)
        self.expected = outputs(exam, reference)

    def measure(self, run: Run) -> Quality:
        """Return how a graph compares on all images."""
        return self.compare(outputs(self.exam, run))

    def compare(self, found: Sequence[NDArray[Any]]) -> Quality:
        """Return how the frames of a graph compare, those that `outputs` gives."""
        pairs = list(zip(self.expected, found, strict=True))
        decibels = [psnr(expected, each) for expected, each in pairs]
        worst = min(decibels)
        difference = max(np.abs(np.subtract(a, b, dtype=np.float64)).max() for a, b in pairs)
        return Quality(
            psnr=round(worst, 2) if math.isfinite(worst) else None,
            ssim=round(min(_ssim(*pair) for pair in pairs), 5),
            largest_difference=round(float(difference)),
            loss=self._loss(found),
            images=len(pairs),
        )

    def _loss(self, found: Sequence[NDArray[Any]]) -> float | None:
        """Return the decibels lost against the originals, over all pixels that have one."""
        exact = other = 0.0
        for example, expected, each in zip(self.exam, self.expected, found, strict=True):
            if example.truth is not None:
                exact += _squared_error(expected, example.truth)
                other += _squared_error(each, example.truth)
        if not exact or not other:
            return None
        return round(10 * math.log10(other / exact), 3)


def outputs(exam: Sequence[Example], run: Run) -> list[NDArray[Any]]:
    """Return what a graph makes of each image, (scale*H, scale*W, C)."""
    return [run(example.low[None])[0] for example in exam]


def decibels(quality: Quality) -> float:
    """Return the PSNR of the worst image; infinite where all are equal."""
    return math.inf if quality.psnr is None else quality.psnr


def misses(quality: Quality, budget: float) -> str | None:
    """Return in words why a precision is not offered; None: it is."""
    if decibels(quality) < budget:
        return f"{quality.psnr:.1f} dB against FP32, below the {budget:g} dB that are asked for"
    if quality.loss is not None and quality.loss > MOST_LOST:
        return f"{quality.loss:.2f} dB lost against the originals, above the {MOST_LOST:g} allowed"
    return None


def _squared_error(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.sum(np.square(np.subtract(a, b, dtype=np.float64))))


def _ssim(a: NDArray[Any], b: NDArray[Any]) -> float:
    planes = [luma(each) if each.shape[2] == 3 else each[..., 0] for each in (a, b)]
    # Images smaller than the measure's window are repeated by reflection.
    padding = [(0, max(0, 11 - side)) for side in planes[0].shape]
    first, second = (np.pad(each, padding, mode="symmetric") for each in planes)
    return ssim(first, second)
