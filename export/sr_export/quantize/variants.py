"""Building and measuring the variants of a bundle: FP16, BF16 and INT8."""

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
from sr_export.quantize.acceptance import AcceptanceCheck
from sr_export.quantize.calibration_cache import statistics
from sr_export.quantize.calibration_data import CalibrationData, Example, gather
from sr_export.quantize.half import LARGEST_FP16, VariantRecipe
from sr_export.quantize.quantizer import Quantizer
from sr_export.quantize.search import LayerSearch
from sr_export.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx
    from numpy.typing import NDArray

    from sr_export.options import Options
    from sr_export.quantize.half import Half
    from sr_export.quantize.placement import Layer
    from sr_export.quantize.qat import QatLayers

# Limits for heavy networks, in operations: a minute or two on a laptop. Above them, fewer tiles and
# smaller images are used, down to the minimum of each.
_CALIBRATION_OPERATIONS = 4e12
_HELD_OUT_OPERATIONS = 1e12
_FEWEST_TILES = 16
_SMALLEST_SIDE = 64


@dataclass(frozen=True)
class ExportedNetwork:
    """The FP32 network that variants are built from."""

    model: onnx.ModelProto
    """Float32, NCHW in [0, 1]."""
    channels: int
    scale: int
    minimum: int
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None
    operations: float
    """Operations per low-resolution pixel; for a generator, per image."""
    calibration: CalibrationData | None = None
    """None for photos."""
    trained: QatLayers | None = None
    """The layers that were trained in INT8; None to calibrate."""


@dataclass(frozen=True)
class AcceptedVariant:
    """One precision that passed the acceptance check."""

    precision: Precision
    recipe: VariantRecipe
    model: onnx.ModelProto | None
    """The graph with byte frames; None if it is run from the FP32 file."""
    quality: Quality


@dataclass(frozen=True)
class Variants:
    """The result for all precisions."""

    variants: tuple[AcceptedVariant, ...]
    refused: dict[str, str]
    int8: Quantization | None
    scenes: tuple[Scene, ...]


def build_variants(
    subject: ExportedNetwork, options: Options, report: Callable[[str], None]
) -> Variants:
    """Build and measure the requested precisions.

    Raises:
        InvalidInputError, NotFoundError: The folder of calibration images is unusable.
        ExportError: A graph fails to run.
    """
    return _VariantBuilder(subject, options, report).run()


class _VariantBuilder:
    """Builds the precisions of one network, on the same images."""

    def __init__(
        self, subject: ExportedNetwork, options: Options, report: Callable[[str], None]
    ) -> None:
        self._subject = subject
        self._options = options
        self._report = report
        self._format = pixels.formats(3 if subject.channels == 3 else 1)[0]
        self._calibration = subject.calibration or _affordable(
            _gathered(subject, options, report), subject
        )
        report("measuring: FP32")
        wrapped = pixels.wrap(subject.model, self._format)
        self._check = AcceptanceCheck(self._calibration.held_out, self._runner(wrapped))
        self._frames: dict[Precision, list[NDArray[np.uint8]]] = {"fp32": self._check.expected}
        self._variants: list[AcceptedVariant] = []
        self._refused: dict[str, str] = {}

    def run(self) -> Variants:
        """Build the requested precisions."""
        wanted = self._options.precisions
        half = self._half() if {"fp16", "int8"}.intersection(wanted) else "fp16"
        if "fp16" in wanted and half == "fp16":
            self._attempt("fp16", VariantRecipe(self._subject.model, "fp16"))
        if "bf16" in wanted or self._refused:
            self._attempt("bf16", VariantRecipe(self._subject.model, "bf16", stored=half == "bf16"))
        int8 = None
        if "int8" in wanted:
            try:
                offer = self._offer_int8 if self._subject.trained is None else self._offer_trained
                int8 = offer(half)
            except ExportError as error:
                self._refused["int8"] = str(error)
        return Variants(tuple(self._variants), self._refused, int8, self._scenes())

    def _half(self) -> Half:
        """Return the half type that can represent the network's activations."""
        largest, _ = statistics(self._subject.model, (), self._calibration.tiles, self._report)
        # Values that are infinite in FP32 are so on purpose, such as attention masks.
        reach = max(filter(math.isfinite, largest.values()), default=0.0)
        if reach <= LARGEST_FP16:
            return "fp16"
        self._refused["fp16"] = (
            f"activations reach {reach:.3g}, beyond the FP16 limit of {LARGEST_FP16:g}; bf16 is "
            "built instead"
        )
        return "bf16"

    def _runner(self, model: onnx.ModelProto) -> acceptance.Run:
        runner = OnnxRunner(model)
        batch = self._subject.fixed_batch or 1
        return lambda frame: runner(np.repeat(frame, batch, axis=0))[:1]

    def _attempt(self, precision: Precision, recipe: VariantRecipe) -> None:
        """Build and check a precision; record it as accepted or refused."""
        self._report(f"measuring: {precision.upper()}")
        try:
            model = recipe.graph(self._format) if recipe.stored else None
            found = acceptance.outputs(
                self._check.held_out, self._runner(recipe.runnable(self._format))
            )
        except ExportError as error:
            self._refused[precision] = str(error)
            return
        self._frames[precision] = found
        quality = self._check.compare(found)
        reason = acceptance.shortfall(quality, self._budget(precision))
        if reason is None:
            self._variants.append(AcceptedVariant(precision, recipe, model, quality))
        else:
            self._refused[precision] = reason

    def _offer_int8(self, half: Half) -> Quantization | None:
        workpiece = Quantizer(
            self._subject.model, self._calibration.tiles, self._options.method, self._report
        )

        def build(chosen: Sequence[Layer], fitted: bool) -> VariantRecipe:
            return VariantRecipe(workpiece.quantize(chosen, fitted=fitted), half)

        seen = sum(math.prod(each.shape[:-1]) for each in self._calibration.tiles)
        found = LayerSearch(
            workpiece.layers,
            workpiece.shares(self._subject.operations / 2 * seen),
            lambda *choice: self._check.measure(
                self._runner(build(*choice).runnable(self._format))
            ),
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
        return Quantization(self._calibration.text, self._options.method, layers, found.steps)

    def _offer_trained(self, half: Half) -> Quantization | None:
        """Build and check INT8 with the layers and scales from training."""
        trained = self._subject.trained
        assert trained is not None
        model = trained.model
        network = placement.quantize(model, trained.layers, trained.thresholds, trained.fitted)
        self._attempt("int8", VariantRecipe(network, half))
        if "int8" not in self._frames:
            return None
        quality = self._check.compare(self._frames["int8"])
        layers = placement.layers(model)
        inputs = sorted({each.input for each in layers})
        values = activations.sizes(model, inputs, self._calibration.tiles)
        seen = self._calibration.tiles[0].shape[0] * self._calibration.tiles[0].shape[1]
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
            for i, example in enumerate(self._check.held_out)
        )


def _gathered(
    subject: ExportedNetwork, options: Options, report: Callable[[str], None]
) -> CalibrationData:
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


def _affordable(calibration: CalibrationData, subject: ExportedNetwork) -> CalibrationData:
    """Reduce the calibration data for a heavy network."""
    tiles, held_out = calibration.tiles, calibration.held_out
    pixels_per_tile = max(1, tiles[0].shape[0] * tiles[0].shape[1])
    most = int(_CALIBRATION_OPERATIONS / (max(1.0, subject.operations) * pixels_per_tile))
    most = max(_FEWEST_TILES, most)
    step = -(-len(tiles) // most)
    text = calibration.text if step == 1 else f"{len(tiles[::step])} of {calibration.text}"
    if subject.fixed_size is None:
        per_image = _HELD_OUT_OPERATIONS / max(1.0, subject.operations) / len(held_out)
        side = max(_SMALLEST_SIDE, subject.minimum, int(per_image**0.5))
        held_out = tuple(_cropped(each, side, subject.scale) for each in held_out)
    return CalibrationData(tiles[::step], held_out, text)


def _cropped(example: Example, side: int, scale: int) -> Example:
    """Return the center of an image."""
    height, width = example.low.shape[:2]
    top, left = max(0, height - side) // 2, max(0, width - side) // 2
    low = example.low[top : top + side, left : left + side]
    truth = example.truth
    if truth is not None:
        rows, columns = (slice(scale * at, scale * (at + side)) for at in (top, left))
        truth = truth[rows, columns]
    return replace(example, low=low, truth=truth)
