"""Validation of a new plan: its images of photos against FP32 on the CPU.

TensorRT has bugs that only some GPUs show: black images or noise from networks that are right on
all others. So no plan is kept without this check. The CPU computes patches instead of whole frames:
the network's halo tells which part of a frame a patch depends on. A generator gets the same random
numbers on both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy import Engine, backends
from sr_deploy.errors import SrDeployError
from sr_deploy.runtime import generator
from sr_export import photos as samples
from sr_export.metrics import psnr
from sr_export.quantize import acceptance

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Model, Variant
    from sr_deploy.bundle.plan_store import Shapes

    Frames = NDArray[Any]

_CPU_BACKENDS = ("onnxruntime", "openvino")
_PATCH = 96
# A GPU sums in another order than a CPU, so values between two levels may round differently.
_FP32_BUDGET = 60.0
# Allowed loss on the GPU beyond the exporter's measurement on a CPU: INT8 rounds at other places.
_MARGIN = 3.0
# An upscaled photo, scaled down again, is above this in any correct network; black and noise are
# below.
_RESEMBLANCE = 18.0
_SEED = 0


@dataclass(frozen=True)
class PlanQuality:
    """The result of a validation.

    Attributes:
        psnr: PSNR of the worst patch against FP32, in dB; None: equal, or not compared.
        compared: Description of the reference.
        problem: The reason to reject the plan; None: it is valid.
    """

    psnr: float | None
    compared: str
    problem: str | None


def batches(model: Model, shapes: Shapes, *, deep: bool) -> list[Frames]:
    """Return photos (N, h, w, C) of 8 or 16 bits, in the best and in the smallest shape.

    A generator gets noise, float32 (N, 1, size, 1).
    """
    found: list[Frames] = []
    for count, height, width in dict.fromkeys((shapes.best, shapes.least)):
        if model.latent is not None:
            noise = generator.draw_noise(width, count, _SEED)
            found.append(noise.reshape(count, 1, width, 1))
        else:
            photos = samples.batch(count, height, width, model.channels)
            found.append(photos.astype(np.uint16) * 257 if deep else photos)
    return found


def result_shape(model: Model, batch: Frames) -> tuple[int, int, int, int]:
    """Return the shape (N, h, w, C) of a batch's result."""
    count, height, width, _ = batch.shape
    if model.latent is not None:
        return count, model.latent.height, model.latent.width, model.channels
    return count, model.scale * height, model.scale * width, model.channels


class PlanValidator:
    """Compares the images of a variant's plans with those of FP32 on the CPU.

    Args:
        bundle: The bundle's folder.
        model: The network's description in the manifest.
        variant: The variant.
    """

    def __init__(self, bundle: Path, model: Model, variant: Variant) -> None:
        self._model = model
        self._budget = _budget(variant)
        self._engine = _cpu_engine(bundle)
        self._known: dict[tuple[int, ...], list[tuple[int, Any, Frames]]] = {}

    def close(self) -> None:
        """Free the CPU's network."""
        if self._engine is not None:
            self._engine.close()

    def validate(self, inputs: list[Frames], results: list[Frames]) -> PlanQuality:
        """Return the quality of a plan's results of some batches; see `result_shape`."""
        for batch, found in zip(inputs, results, strict=True):
            problem = self._obvious_problem(batch, found)
            if problem is not None:
                return PlanQuality(None, "the input", problem)
        if self._engine is None:
            known = "only the downscaled result" if self._model.latent is None else "nothing"
            missing = " and ".join(_CPU_BACKENDS)
            return PlanQuality(None, f"{known}: {missing} are not installed", None)
        worst = min(
            psnr(_peak(found) * expected, _peak(found) * found[index][where])
            for batch, found in zip(inputs, results, strict=True)
            for index, where, expected in self.expected(batch)
        )
        kind = "photos" if self._model.latent is None else "random numbers"
        shapes = ", ".join("x".join(map(str, each.shape[:3])) for each in inputs)
        compared = f"FP32 in {self._engine.spec.backend} on a CPU, {kind} of {shapes}"
        low = f"{worst:.1f} dB against FP32 on a CPU, below {self._budget:g} dB"
        rounded = round(worst, 2) if math.isfinite(worst) else None
        return PlanQuality(rounded, compared, low if worst < self._budget else None)

    def _obvious_problem(self, batch: Frames, found: Frames) -> str | None:
        """Return the problem of images that are wrong without a reference."""
        uniform = found.min() == found.max()
        if self._model.latent is not None:
            return "the images have one color" if uniform else None
        count, height, width, depth = batch.shape
        scale = self._model.scale
        cells = found.reshape(count, height, scale, width, scale, depth)
        peak = _peak(batch)
        resemblance = psnr(peak * cells.mean(axis=(2, 4)), peak * batch.astype(np.float64))
        if resemblance >= _RESEMBLANCE:
            return None
        kind = "have one color" if uniform else "do not resemble the photo"
        return f"the images {kind} ({resemblance:.0f} dB from the input)"

    def expected(self, batch: Frames) -> list[tuple[int, Any, Frames]]:
        """Return patches of the reference: index of the image, place in its result, pixels."""
        if batch.shape not in self._known:
            assert self._engine is not None
            if self._model.latent is None:
                self._known[batch.shape] = self._patches(batch, self._engine)
            else:  # each image is a patch
                images = self._engine.generate(batch.reshape(len(batch), -1))
                self._known[batch.shape] = [(index, ..., each) for index, each in enumerate(images)]
        return self._known[batch.shape]

    def _patches(self, photos: Frames, engine: Engine) -> list[tuple[int, Any, Frames]]:
        """Compute each patch from the part of a photo that it depends on."""
        scale = self._model.scale
        found: list[tuple[int, Any, Frames]] = []
        for number, (rows, columns) in enumerate(places(self._model, *photos.shape[1:3])):
            index = number % len(photos)
            tall = self._dependency(rows, photos.shape[1])
            wide = self._dependency(columns, photos.shape[2])
            part = photos[index, tall.start : tall.stop, wide.start : wide.stop]
            result = engine.upscale(np.ascontiguousarray(part))
            inner = _scaled(rows, tall.start, scale), _scaled(columns, wide.start, scale)
            where = _scaled(rows, 0, scale), _scaled(columns, 0, scale)
            found.append((index, where, result[inner]))
        return found

    def _dependency(self, span: range, side: int) -> range:
        """Return the pixels of one axis that a span of it depends on."""
        if _is_global(self._model):
            return range(side)
        halo, minimum = self._model.halo or 0, self._model.minimum
        start = max(0, min(span.start - halo, side - minimum))
        start -= start % self._model.multiple_of
        return range(start, min(side, max(span.stop + halo, start + minimum)))


def _peak(images: Frames) -> float:
    """Return the factor to the range 0 to 255."""
    return 1.0 if images.dtype == np.uint8 else 255 / 65535


def places(model: Model, height: int, width: int) -> list[tuple[range, range]]:
    """Return rows and columns of a frame's patches: two corners and the center.

    A small frame, and one of a network without a halo, is one patch.
    """
    if _is_global(model):
        return [(range(height), range(width))]
    tall, wide = min(_PATCH, height), min(_PATCH, width)
    spots = {(0, 0), (height - tall, width - wide), ((height - tall) // 2, (width - wide) // 2)}
    return [(range(top, top + tall), range(left, left + wide)) for top, left in sorted(spots)]


def _is_global(model: Model) -> bool:
    """Return whether a patch depends on the whole frame."""
    return model.halo is None or model.fixed_size is not None


def _scaled(span: range, origin: int, scale: int) -> slice:
    """Return a span's place in the result of a part that starts at `origin`."""
    return slice(scale * (span.start - origin), scale * (span.stop - origin))


def _budget(variant: Variant) -> float:
    """Return the minimum PSNR in dB: the exporter's measurement less a margin."""
    if variant.quality is None:
        return _FP32_BUDGET
    measured = acceptance.decibels(variant.quality)
    return min(acceptance.BUDGETS[variant.precision], measured) - _MARGIN


def _cpu_engine(bundle: Path) -> Engine | None:
    """Return an FP32 engine on the CPU; None if no backend for it is installed."""
    for backend in _CPU_BACKENDS:
        if backend in backends.available():
            try:
                return Engine(bundle, backend=backend, precision="fp32", device="cpu")
            except SrDeployError:
                continue
    return None
