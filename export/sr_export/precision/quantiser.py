"""One network made ready for INT8: equalised, calibrated, and quantised as often as is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_export.precision import image, placement
from sr_export.precision.cache import statistics
from sr_export.precision.equalising import equalised
from sr_export.precision.joins import shared
from sr_export.precision.rounding import rounded

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from sr_deploy.manifest import Method
    from sr_export.precision.placement import Fitted, Layer


class Quantiser:
    """Quantises any of a network's layers.

    Args:
        model: Float32, NCHW in [0, 1].
        tiles: Images (H, W, C) to calibrate on.
        method: How the clipping of activations is chosen.
        report: Called with what is being done.

    Raises:
        ExportError: ONNX Runtime cannot run the model, or it gives values that are not finite.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        tiles: Sequence[NDArray[np.uint8]],
        method: Method,
        report: Callable[[str], None],
    ) -> None:
        model, images = image.centred(model)
        self.layers = placement.layers(model)
        self._tiles = tiles
        self._report = report
        report("calibrating: how large channels get")
        self._model = equalised(model, self.layers, tiles)
        inputs = sorted({each.input for each in self.layers})
        _, self._histograms = statistics(self._model, inputs, tiles, report)
        thresholds = {name: each.threshold(method) for name, each in self._histograms.items()}
        self._thresholds = shared(self._model, thresholds)
        self._thresholds |= dict.fromkeys(images, image.THRESHOLD)
        self._fitted: dict[str, Fitted] | None = None

    def quantised(self, chosen: Sequence[Layer], *, fitted: bool) -> onnx.ModelProto:
        """Return the graph with some layers in INT8.

        Args:
            chosen: Which of `layers`.
            fitted: Whether their weights are fitted to what they meet, or rounded to the nearest.
        """
        if fitted and self._fitted is None:
            self._fitted = rounded(
                self._model, self.layers, self._thresholds, self._tiles, self._report
            )
        weights = self._fitted if fitted else None
        return placement.quantised(self._model, chosen, self._thresholds, weights)

    def shares(self, total: float) -> dict[str, float]:
        """Return what part of all multiply-adds each layer has, by its name.

        Args:
            total: What the whole network takes for all tiles.
        """
        values = {name: float(each.counts.sum()) for name, each in self._histograms.items()}
        return placement.shares(self.layers, values, total)
