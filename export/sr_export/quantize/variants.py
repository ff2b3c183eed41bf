"""The precisions that a bundle offers beside FP32: made, measured, and kept if they hold."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.bundle.manifest import Precision, Quality, Quantization, Step
from sr_deploy.errors import ExportError
from sr_export.graph import pixels
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.quantize import acceptance, activations, placement
from sr_export.quantize.acceptance import Gate
from sr_export.quantize.calibration_cache import statistics
from sr_export.quantize.calibration_data import Example, Material, gather
from sr_export.quantize.half import LARGEST_FP16
from sr_export.quantize.quantizer import Quantiser
from sr_export.quantize.recipe import Recipe
from sr_export.quantize.search import LayerSearch
from sr_export.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx
    from numpy.typing import NDArray

    from sr_export.options import Options
    from sr_export.quantize.half import Half
    from sr_export.quantize.placement import Layer
    from sr_export.quantize.qat import Placed

# What looking may cost on a heavy network, in operations: a minute or two on a laptop. Less is
# looked at then, but never less than the smallest of each.
_CALIBRATION_OPERATIONS = 4e12
_EXAM_OPERATIONS = 1e12
_FEWEST_TILES = 16
_SMALLEST_SIDE = 64


@dataclass(frozen=True)
class ExportedNetwork:
    """The network to offer in other precisions."""

    model: onnx.ModelProto
    """Float32, NCHW in [0, 1]."""
    channels: int
    scale: int
    minimum: int
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None
    operations: float
    """Per low-resolution pixel; of a generator, per image."""
    material: Material | None = None
    """What to calibrate on and to judge by; None: photos."""
    trained: Placed | None = None
    """The layers that were trained in INT8; None: it is calibrated."""


@dataclass(frozen=True)
class Offered:
    """One precision that holds."""

    precision: Precision
    recipe: Recipe
    model: onnx.ModelProto | None
    """Bytes in and out; None: it is computed from the FP32 file."""
    quality: Quality


@dataclass(frozen=True)
class Offer:
    """What came of all precisions."""

    variants: tuple[Offered, ...]
    refused: dict[str, str]
    int8: Quantization | None
    scenes: tuple[Scene, ...]


def make(subject: ExportedNetwork, options: Options, report: Callable[[str], None]) -> Offer:
    """Make and measure the precisions that the user asked for.

    Raises:
        InvalidInputError, NotFoundError: there are no images to calibrate on where the user said.
        ExportError: a graph that should run does not.
    """
    return _Workshop(subject, options, report).run()


class _Workshop:
    """Makes the precisions of one network one by one, on the same images."""

    def __init__(
        self, subject: ExportedNetwork, options: Options, report: Callable[[str], None]
    ) -> None:
        self._subject = subject
        self._options = options
        self._report = report
        self._format = pixels.formats(3 if subject.channels == 3 else 1)[0]
        self._material = subject.material or _affordable(
            _gathered(subject, options, report), subject
        )
        report("measuring: FP32")
        wrapped = pixels.wrap(subject.model, self._format)
        self._gate = Gate(self._material.exam, self._runner(wrapped))
        self._frames: dict[Precision, list[NDArray[np.uint8]]] = {"fp32": self._gate.expected}
        self._variants: list[Offered] = []
        self._refused: dict[str, str] = {}

    def run(self) -> Offer:
        """Make what was asked for."""
        wanted = self._options.precisions
        half = self._half() if {"fp16", "int8"}.intersection(wanted) else "fp16"
        if "fp16" in wanted and half == "fp16":
            self._attempt("fp16", Recipe(self._subject.model, "fp16"))
        if "bf16" in wanted or self._refused:
            self._attempt("bf16", Recipe(self._subject.model, "bf16", stored=half == "bf16"))
        int8 = None
        if "int8" in wanted:
            try:
                offer = self._offer_int8 if self._subject.trained is None else self._offer_trained
                int8 = offer(half)
            except ExportError as error:
                self._refused["int8"] = str(error)
        return Offer(tuple(self._variants), self._refused, int8, self._scenes())

    def _half(self) -> Half:
        """Return the half type that the network's values fit into, by looking at them."""
        largest, _ = statistics(self._subject.model, (), self._material.tiles, self._report)
        # What is infinite in FP32 is so on purpose, as masks of attention are.
        reach = max(filter(math.isfinite, largest.values()), default=0.0)
        if reach <= LARGEST_FP16:
            return "fp16"
        self._refused["fp16"] = (
            f"values inside the network reach {reach:.3g}, and half precision ends at "
            f"{LARGEST_FP16:g}; bf16 is made in its place"
        )
        return "bf16"

    def _runner(self, model: onnx.ModelProto) -> acceptance.Run:
        runner = OnnxRunner(model)
        batch = self._subject.fixed_batch or 1
        return lambda frame: runner(np.repeat(frame, batch, axis=0))[:1]

    def _attempt(self, precision: Precision, recipe: Recipe) -> None:
        """Offer a precision, or note why not."""
        self._report(f"measuring: {precision.upper()}")
        try:
            model = recipe.graph(self._format) if recipe.stored else None
            found = acceptance.outputs(self._gate.exam, self._runner(recipe.runnable(self._format)))
        except ExportError as error:
            self._refused[precision] = str(error)
            return
        self._frames[precision] = found
        quality = self._gate.compare(found)
        reason = acceptance.misses(quality, self._budget(precision))
        if reason is None:
            self._variants.append(Offered(precision, recipe, model, quality))
        else:
            self._refused[precision] = reason

    def _offer_int8(self, half: Half) -> Quantization | None:
        workpiece = Quantiser(
            self._subject.model, self._material.tiles, self._options.method, self._report
        )

        def build(chosen: Sequence[Layer], fitted: bool) -> Recipe:
            return Recipe(workpiece.quantised(chosen, fitted=fitted), half)

        seen = sum(math.prod(each.shape[:-1]) for each in self._material.tiles)
        found = LayerSearch(
            workpiece.layers,
            workpiece.shares(self._subject.operations / 2 * seen),
            lambda *choice: self._gate.measure(self._runner(build(*choice).runnable(self._format))),
            self._budget("int8"),
            self._report,
        ).run()
        if found.chosen:
            self._attempt("int8", build(found.chosen, found.fitted))
        else:
            self._refused["int8"] = found.reason
        if not found.steps:
            return None
        layers = len(workpiece.layers)
        return Quantization(self._material.text, self._options.method, layers, found.steps)

    def _offer_trained(self, half: Half) -> Quantization | None:
        """Offer INT8 as it was in training, if that holds."""
        trained = self._subject.trained
        assert trained is not None
        model = trained.model
        network = placement.quantised(model, trained.layers, trained.thresholds, trained.fitted)
        self._attempt("int8", Recipe(network, half))
        if "int8" not in self._frames:
            return None
        quality = self._gate.compare(self._frames["int8"])
        layers = placement.layers(model)
        inputs = sorted({each.input for each in layers})
        values = activations.sizes(model, inputs, self._material.tiles)
        seen = self._material.tiles[0].shape[0] * self._material.tiles[0].shape[1]
        seen *= self._subject.fixed_batch or 1
        shares = placement.shares(layers, values, self._subject.operations / 2 * seen)
        chosen = {each.name for each in trained.layers}
        step = Step(
            restored=tuple(sorted(shares.keys() - chosen)),
            fitted=False,
            share=round(sum(shares[name] for name in chosen), 4),
            psnr=quality.psnr,
        )
        return Quantization("nothing: as trained", "trained", len(layers), (step,))

    def _budget(self, precision: Precision) -> float:
        return self._options.budgets.get(precision, acceptance.BUDGETS[precision])

    def _scenes(self) -> tuple[Scene, ...]:
        return tuple(
            Scene(
                example.name,
                example.low,
                {precision: frames[i] for precision, frames in self._frames.items()},
                example.truth,
            )
            for i, example in enumerate(self._gate.exam)
        )


def _gathered(
    subject: ExportedNetwork, options: Options, report: Callable[[str], None]
) -> Material:
    return gather(
        None if options.calibration is None else Path(options.calibration),
        channels=subject.channels,
        scale=subject.scale,
        minimum=subject.minimum,
        fixed_size=subject.fixed_size,
        low_resolution=options.low_resolution,
        seed=options.seed,
        report=report,
    )


def _affordable(material: Material, subject: ExportedNetwork) -> Material:
    """Return less of the images where the network is heavy."""
    tiles, exam = material.tiles, material.exam
    pixels_per_tile = max(1, tiles[0].shape[0] * tiles[0].shape[1])
    most = int(_CALIBRATION_OPERATIONS / (max(1.0, subject.operations) * pixels_per_tile))
    most = max(_FEWEST_TILES, most)
    step = -(-len(tiles) // most)
    text = material.text if step == 1 else f"{len(tiles[::step])} of {material.text}"
    if subject.fixed_size is None:
        per_image = _EXAM_OPERATIONS / max(1.0, subject.operations) / len(exam)
        side = max(_SMALLEST_SIDE, subject.minimum, int(per_image**0.5))
        exam = tuple(_cropped(each, side, subject.scale) for each in exam)
    return Material(tiles[::step], exam, text)


def _cropped(example: Example, side: int, scale: int) -> Example:
    """Return the middle of an image."""
    height, width = example.low.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    low = example.low[top : top + side, left : left + side]
    truth = example.truth
    if truth is not None:
        rows, columns = (slice(scale * at, scale * (at + side)) for at in (top, left))
        truth = truth[rows, columns]
    return replace(example, low=low, truth=truth)
