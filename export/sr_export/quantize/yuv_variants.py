"""The variants for YUV video frames, with the same acceptance check as the others."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.errors import ExportError
from sr_deploy.runtime.yuv import YuvFrame
from sr_export import photos
from sr_export.graph import pixels, verify, yuv_reference
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.quantize import acceptance
from sr_export.quantize.acceptance import AcceptanceCheck
from sr_export.quantize.calibration_data import Example

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import onnx
    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Precision, Quality, YuvFormat
    from sr_export.quantize.variants import AcceptedVariant
    from sr_export.scene import Scene


@dataclass(frozen=True)
class YuvVariant:
    """One accepted precision for one YUV format."""

    precision: Precision
    model: onnx.ModelProto | None
    """None if it is run from the FP32 file."""
    quality: Quality | None
    """None for FP32."""


@dataclass(frozen=True)
class YuvVariants:
    """All precisions for one YUV format; FP32 is the first."""

    pixel_format: YuvFormat
    variants: tuple[YuvVariant, ...]
    refused: dict[str, str]
    frames: tuple[YuvFrame, ...]
    """The held-out images."""
    expected: tuple[NDArray[np.float64], ...]
    """The sample values of FP32's outputs; see `yuv_reference.levels`."""


@dataclass(frozen=True)
class YuvVariantBuilder:
    """Builds the YUV variants of a network.

    Attributes:
        network: Float32, NCHW in [0, 1], with three channels.
        reference: The original network.
        size: Even height and width of a photo to compare the two on.
        accepted: The precisions accepted for RGB.
        scenes: The held-out images.
        budgets: Minimum PSNR of each precision in dB.
        report: Called with each stage as it begins.
    """

    network: onnx.ModelProto
    reference: verify.Run
    size: tuple[int, int]
    accepted: Sequence[AcceptedVariant]
    scenes: Sequence[Scene]
    budgets: dict[str, float]
    report: Callable[[str], None]

    def build(self, pixel_format: YuvFormat) -> YuvVariants:
        """Build and measure all precisions for a YUV format.

        Raises:
            ExportError: The conversion in the graph differs from that in numpy.
        """
        self.report(f"verifying: frames of {pixel_format}")
        exact = pixels.wrap(self.network, pixel_format)
        verify.compare_yuv(OnnxRunner(exact), self.reference, (1, *self.size), pixel_format)
        examples = [
            Example(each.name, _even(each.low), None)
            for each in self.scenes
            if min(each.low.shape[:2]) > 1
        ]
        blank = YuvFrame.empty(pixel_format, 2, 2)
        exam = AcceptanceCheck(examples, _run(exact, blank))
        variants = [YuvVariant("fp32", exact, None)]
        refused = {}
        for each in self.accepted:
            precision = each.precision
            self.report(f"measuring: {precision.upper()}, frames of {pixel_format}")
            try:
                found = exam.measure(_run(each.recipe.runnable(pixel_format), blank))
                reason = acceptance.shortfall(found, self.budgets[precision])
            except ExportError as error:
                reason = str(error)
            if reason is None:
                model = each.recipe.graph(pixel_format) if each.recipe.stored else None
                variants.append(YuvVariant(precision, model, found))
            else:
                refused[f"{precision} {pixel_format}"] = reason
        frames = tuple(_frame(each.low, blank) for each in examples)
        return YuvVariants(pixel_format, tuple(variants), refused, frames, tuple(exam.expected))


def _even(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width = image.shape[:2]
    return image[: height - height % 2, : width - width % 2]


def _frame(image: NDArray[np.uint8], like: YuvFrame) -> YuvFrame:
    return yuv_reference.frame_of(photos.as_float(image[None])[0], like)


def _run(model: onnx.ModelProto, like: YuvFrame) -> acceptance.Run:
    """Return a function from RGB (1, H, W, 3) to the sample values of the graph's YUV output."""
    runner = OnnxRunner(model)

    def run(image: NDArray[np.uint8]) -> NDArray[np.float64]:
        frame = _frame(image[0], like)
        found = np.ascontiguousarray(runner(frame.pixels[None], frame.coefficients)[0])
        result = replace(frame, samples=found.view(frame.samples.dtype)[..., 0])
        return yuv_reference.levels(result)[None]

    return run
