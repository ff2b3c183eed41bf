"""One network made ready for INT8: equalised, calibrated, and quantised as often as is asked."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from sr_export.checkpoint.int8_record import IMAGE_THRESHOLD
from sr_export.quantize import centered_input, placement
from sr_export.quantize.calibration_cache import statistics
from sr_export.quantize.concat_scales import shared
from sr_export.quantize.equalize import equalised
from sr_export.quantize.rounding import rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Method
    from sr_export.quantize.placement import Fitted, Layer


class Quantiser:
    """Quantises any of a network's layers.

    Args:
        model: Float32, NCHW in [0, 1].
        tiles: Images (H, W, C) to calibrate on.
        method: How the clipping of activations is chosen.
        report: Called with what is being done.
        names: Of the layers to quantise; None: all that can be.

    Attributes:
        model: The graph that is quantised, in float32; it computes what it was made of does.
        layers: Those that can compute in INT8.
        thresholds: Where the input of each is clipped, by its name.
        images: Which of these inputs are the image around 0.

    Raises:
        ExportError: ONNX Runtime cannot run the model, or it gives values that are not finite.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tiles: Sequence[NDArray[np.uint8]],
        method: Method,
        report: Callable[[str], None],
        names: Collection[str] | None = None,
    ) -> None:
        able = placement.layers(model)
        chosen = {each.name for each in able if names is None or each.name in names}
        model, self.images = centered_input.centred(
            model, [each for each in able if each.name in chosen]
        )
        self.layers = tuple(each for each in placement.layers(model) if each.name in chosen)
        self._tiles = tiles
        self._report = report
        report("calibrating: how large channels get")
        self.model = equalised(model, self.layers, tiles)
        inputs = sorted({each.input for each in self.layers})
        _, self._histograms = statistics(self.model, inputs, tiles, report)
        thresholds = {name: each.threshold(method) for name, each in self._histograms.items()}
        self.thresholds = shared(self.model, thresholds)
        self.thresholds |= dict.fromkeys(self.images, IMAGE_THRESHOLD)

    @cached_property
    def fitted(self) -> Mapping[str, Fitted]:
        """Weights that are fitted to what their layers meet, by the names of these."""
        return rounded(self.model, self.layers, self.thresholds, self._tiles, self._report)

    def quantised(self, chosen: Sequence[Layer], *, fitted: bool) -> onnx.ModelProto:
        """Return the graph with some layers in INT8.

        Args:
            chosen: Which of `layers`.
            fitted: Whether their weights are fitted to what they meet, or rounded to the nearest.
        """
        weights = self.fitted if fitted else None
        return placement.quantised(self.model, chosen, self.thresholds, weights)

    def shares(self, total: float) -> dict[str, float]:
        """Return what part of all multiply-adds each layer has, by its name.

        Args:
            total: What the whole network takes for all tiles.
        """
        values = {name: float(each.counts.sum()) for name, each in self._histograms.items()}
        return placement.shares(self.layers, values, total)
