"""The acceptance check: a precision is offered if its frames match FP32 within a budget."""

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

# Minimum PSNR against FP32 of the worst image, in dB.
BUDGETS: dict[Precision, float] = {"fp16": 58.0, "bf16": 45.0, "int8": 45.0}
# Maximum loss of PSNR against the originals, in dB: less than the spread of two training runs.
MOST_LOST = 0.1


class AcceptanceCheck:
    """Compares the frames of other graphs with those of FP32.

    Args:
        held_out: Images that were not used for calibration.
        reference: The FP32 graph, bytes (1, H, W, C) in and out.
    """

    def __init__(self, held_out: Sequence[Example], reference: Run) -> None:
        self.held_out = tuple(held_out)
        self.expected = outputs(held_out, reference)

    def measure(self, run: Run) -> Quality:
        """Run a graph on all images and compare."""
        return self.compare(outputs(self.held_out, run))

    def compare(self, found: Sequence[NDArray[Any]]) -> Quality:
        """Compare the frames of a graph, as returned by `outputs`."""
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
        """Return the loss of PSNR against the originals in dB, over all images with an original."""
        exact = other = 0.0
        for example, expected, each in zip(self.held_out, self.expected, found, strict=True):
            if example.truth is not None:
                exact += _squared_error(expected, example.truth)
                other += _squared_error(each, example.truth)
        if not exact or not other:
            return None
        return round(10 * math.log10(other / exact), 3)


def outputs(held_out: Sequence[Example], run: Run) -> list[NDArray[Any]]:
    """Return a graph's output for each image, (scale*H, scale*W, C)."""
    return [run(example.low[None])[0] for example in held_out]


def decibels(quality: Quality) -> float:
    """Return the PSNR of the worst image; infinite if all are equal."""
    return math.inf if quality.psnr is None else quality.psnr


def shortfall(quality: Quality, budget: float) -> str | None:
    """Return why a precision fails the check; None if it passes."""
    if decibels(quality) < budget:
        return f"{quality.psnr:.1f} dB against FP32, below the budget of {budget:g} dB"
    if quality.loss is not None and quality.loss > MOST_LOST:
        return (
            f"{quality.loss:.2f} dB lost against the originals, above the limit of {MOST_LOST:g} dB"
        )
    return None


def _squared_error(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return float(np.sum(np.square(np.subtract(a, b, dtype=np.float64))))


def _ssim(a: NDArray[Any], b: NDArray[Any]) -> float:
    planes = [luma(each) if each.shape[2] == 3 else each[..., 0] for each in (a, b)]
    # Images smaller than SSIM's window are extended by reflection.
    padding = [(0, max(0, 11 - side)) for side in planes[0].shape]
    first, second = (np.pad(each, padding, mode="symmetric") for each in planes)
    return ssim(first, second)
