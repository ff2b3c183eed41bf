"""The gate after a build: what a plan makes of photos, beside FP32 on a CPU.

Builders have bugs that only some GPUs show: images that are black, or noise, from networks that
are right everywhere else. So no plan is kept whose images were not looked at. The CPU need not
compute whole frames for that: a network's halo says how much of one a patch depends on. A generator
is asked for images of the same random numbers instead.
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

    from sr_deploy.bundle.manifest import Model, Precision, Variant
    from sr_deploy.bundle.plan_store import Shape, Shapes

    Frames = NDArray[Any]

_CPU_BACKENDS = ("onnxruntime", "openvino")
_PATCH = 96
# A GPU sums up in other orders than a CPU; FP32 then differs in how halves are rounded.
_FP32_BUDGET = 60.0
# What a GPU may lose beside what the exporter measured on a CPU: INT8 rounds in other places.
_MARGIN = 3.0
# A photo made larger and then smaller again is hardly another: any right network is above this,
# black and noise are below.
_RESEMBLANCE = 18.0
_SEED = 0


@dataclass(frozen=True)
class Verdict:
    """What was found."""

    psnr: float | None
    """Decibels against FP32, of the worst patch; None: equal, or not compared."""
    compared: str
    """With what, in words."""
    problem: str | None
    """Why the plan must not be kept; None: it is right."""


def frames(model: Model, shapes: Shapes, *, deep: bool) -> list[Frames]:
    """Return photos in the shapes to look at, (N, h, w, C), of 8 or 16 bits.

    A generator gets random numbers, float32 (N, 1, size, 1).
    """
    distinct = dict.fromkeys((shapes.best, shapes.least))
    if model.latent is not None:
        return [
            generator.draw_noise(size, count, _SEED).reshape(count, 1, size, 1)
            for count, _, size in distinct
        ]
    return [_photos(model, shape, deep=deep) for shape in distinct]


def answer_shape(model: Model, asked: Frames) -> tuple[int, int, int, int]:
    """Return the shape of what becomes of a batch, (N, h, w, C)."""
    count, height, width, _ = asked.shape
    if model.latent is not None:
        return count, model.latent.height, model.latent.width, model.channels
    return count, model.scale * height, model.scale * width, model.channels


def _photos(model: Model, shape: Shape, *, deep: bool) -> Frames:
    photos = samples.batch(*shape, model.channels)
    return photos.astype(np.uint16) * 257 if deep else photos


class PlanValidator:
    """Compares what plans of a variant make of photos with what FP32 makes of them on a CPU.

    Args:
        bundle: The bundle's folder.
        model: What its manifest says of the network.
        variant: What the plans are of.
    """

    def __init__(self, bundle: Path, model: Model, variant: Variant) -> None:
        self._model = model
        self._budget = _budget(variant)
        self._engine = _engine_on_cpu(bundle)
        self._known: dict[tuple[int, ...], list[tuple[int, Any, Frames]]] = {}

    def close(self) -> None:
        """Give the CPU's memory back."""
        if self._engine is not None:
            self._engine.close()

    def judge(self, asked: list[Frames], answers: list[Frames]) -> Verdict:
        """Return what the answers to some photos or numbers are worth; see `answer_shape`."""
        for photos, found in zip(asked, answers, strict=True):
            problem = self._nonsense(photos, found)
            if problem is not None:
                return Verdict(None, "the input", problem)
        if self._engine is None:
            known = "only the input, made larger" if self._model.latent is None else "nothing"
            missing = " and ".join(_CPU_BACKENDS)
            return Verdict(None, f"{known}: {missing} are not installed", None)
        worst = min(
            psnr(self._peak(found) * expected, self._peak(found) * found[index][where])
            for photos, found in zip(asked, answers, strict=True)
            for index, where, expected in self.expected(photos)
        )
        what = "photos" if self._model.latent is None else "random numbers"
        shapes = ", ".join("x".join(map(str, each.shape[:3])) for each in asked)
        compared = f"FP32 in {self._engine.spec.backend} on a CPU, {what} of {shapes}"
        low = f"{worst:.1f} dB against FP32 on a CPU, below {self._budget:g} dB"
        rounded = round(worst, 2) if math.isfinite(worst) else None
        return Verdict(rounded, compared, low if worst < self._budget else None)

    @staticmethod
    def _peak(images: Frames) -> float:
        return 1.0 if images.dtype == np.uint8 else 255 / 65535

    def _nonsense(self, photos: Frames, found: Frames) -> str | None:
        """Return what is wrong with the answers, as far as they alone tell."""
        uniform = found.min() == found.max()
        if self._model.latent is not None:
            return "the images are of one colour" if uniform else None
        resemblance = self._resemblance(photos, found)
        if resemblance >= _RESEMBLANCE:
            return None
        kind = "of one colour" if uniform else "not the photo"
        return f"the images are {kind} ({resemblance:.0f} dB from the input)"

    def _resemblance(self, photos: Frames, found: Frames) -> float:
        """Return how close the answers are to the input when they are made as small."""
        count, height, width, depth = photos.shape
        scale = self._model.scale
        cells = found.reshape(count, height, scale, width, scale, depth)
        peak = self._peak(photos)
        return psnr(peak * cells.mean(axis=(2, 4)), peak * photos.astype(np.float64))

    def expected(self, photos: Frames) -> list[tuple[int, Any, Frames]]:
        """Return patches of the right answers: which image, where in its answer, and what."""
        if photos.shape not in self._known:
            self._known[photos.shape] = (
                self._patches(photos) if self._model.latent is None else self._generated(photos)
            )
        return self._known[photos.shape]

    def _generated(self, numbers: Frames) -> list[tuple[int, Any, Frames]]:
        """Have the CPU make images, each of which is a patch by itself."""
        assert self._engine is not None
        images = self._engine.generate(numbers.reshape(len(numbers), -1))
        return [(index, ..., image) for index, image in enumerate(images)]

    def _patches(self, photos: Frames) -> list[tuple[int, Any, Frames]]:
        """Have the CPU compute patches of some of the photos."""
        return [
            self._patch(photos, index % len(photos), rows, columns)
            for index, (rows, columns) in enumerate(places(self._model, *photos.shape[1:3]))
        ]

    def _patch(
        self, photos: Frames, index: int, rows: range, columns: range
    ) -> tuple[int, Any, Frames]:
        """Have the CPU compute a patch, from as much of the photo as it depends on."""
        assert self._engine is not None
        scale = self._model.scale
        tall, wide = self._around(rows, photos.shape[1]), self._around(columns, photos.shape[2])
        part = photos[index, tall.start : tall.stop, wide.start : wide.stop]
        answer = self._engine.upscale(np.ascontiguousarray(part))
        inner = _scaled(rows, tall.start, scale), _scaled(columns, wide.start, scale)
        return index, (_scaled(rows, 0, scale), _scaled(columns, 0, scale)), answer[inner]

    def _around(self, span: range, side: int) -> range:
        """Return the pixels of one axis that a span of it depends on."""
        if _needs_all(self._model):
            return range(side)
        halo, least = self._model.halo or 0, self._model.minimum
        start = max(0, min(span.start - halo, side - least))
        start -= start % self._model.multiple_of
        return range(start, min(side, max(span.stop + halo, start + least)))


def places(model: Model, height: int, width: int) -> list[tuple[range, range]]:
    """Return rows and columns of a frame's patches: at two corners and in the middle.

    It is all of the frame where that is as small, or where the network needs all of it.
    """
    if _needs_all(model):
        return [(range(height), range(width))]
    tall, wide = min(_PATCH, height), min(_PATCH, width)
    spots = {(0, 0), (height - tall, width - wide), ((height - tall) // 2, (width - wide) // 2)}
    return [(range(top, top + tall), range(left, left + wide)) for top, left in sorted(spots)]


def _needs_all(model: Model) -> bool:
    """Return whether a patch depends on all of the frame."""
    return model.halo is None or model.fixed_size is not None


def _scaled(span: range, origin: int, scale: int) -> slice:
    """Return where a span of the input is in the output of a part that begins at `origin`."""
    return slice(scale * (span.start - origin), scale * (span.stop - origin))


def _budget(variant: Variant) -> float:
    """Return the decibels that a plan must hold: nearly those that the exporter measured."""
    precision: Precision = variant.precision
    if variant.quality is None:
        return _FP32_BUDGET
    return min(acceptance.BUDGETS[precision], acceptance.decibels(variant.quality)) - _MARGIN


def _engine_on_cpu(bundle: Path) -> Engine | None:
    """Return FP32 on a CPU; None where nothing is installed that computes it."""
    for backend in _CPU_BACKENDS:
        if backend in backends.available():
            try:
                return Engine(bundle, backend=backend, precision="fp32", device="cpu")
            except SrDeployError:
                continue
    return None
