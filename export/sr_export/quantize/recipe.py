"""How the graph of a precision is made, for frames of any pixel format."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_export.graph import pixels
from sr_export.quantize.half import rounded_to_bf16, to_half

if TYPE_CHECKING:
    import onnx

    from sr_deploy.bundle.manifest import PixelFormat
    from sr_export.quantize.half import Half


@dataclass(frozen=True)
class Recipe:
    """A network and the type that it computes in.

    Attributes:
        network: Float32, NCHW in [0, 1]; of INT8, quantised.
        half: The type of all that is not quantised.
        stored: Whether it has a file of its own; otherwise it is computed from that of FP32.
    """

    network: onnx.ModelProto
    half: Half
    stored: bool = True

    def graph(self, pixel_format: PixelFormat) -> onnx.ModelProto:
        """Return the graph for frames of a format.

        Raises:
            ExportError: it cannot be typed so.
        """
        return to_half(pixels.wrap(self.network, pixel_format), self.half)

    def runnable(self, pixel_format: PixelFormat) -> onnx.ModelProto:
        """Return what ONNX Runtime runs in its place, which has no bfloat16 on a CPU."""
        if self.half == "fp16":
            return self.graph(pixel_format)
        return rounded_to_bf16(pixels.wrap(self.network, pixel_format))
