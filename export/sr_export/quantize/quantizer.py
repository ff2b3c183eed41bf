"""Preparing one network for INT8 (equalization, calibration), and quantizing sets of its layers."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from sr_export.checkpoint.int8_record import IMAGE_THRESHOLD
from sr_export.quantize import centered_input, placement
from sr_export.quantize.calibration_cache import statistics
from sr_export.quantize.equalize import equalize
from sr_export.quantize.rounding import optimize_rounding

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    import numpy as np
    import onnx
    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Method
    from sr_export.quantize.placement import FittedWeights, Layer


_CHANNELS = 1


class Quantizer:
    """Quantizes any set of a network's layers.

    Args:
        model: Float32, NCHW in [0, 1].
        tiles: Images (H, W, C) for calibration.
        method: How clipping thresholds of activations are chosen.
        report: Called with each stage as it begins.
        names: Names of the layers to quantize; None for all that can compute in INT8.

    Attributes:
        model: The prepared float32 graph, equivalent to the original.
        layers: The layers that can compute in INT8.
        thresholds: Clipping threshold of each layer's input, by value name.
        images: Names of those inputs that are the centered image.

    Raises:
        ExportError: ONNX Runtime cannot run the model, or a value is not finite.
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
        model, self.images = centered_input.center(
            model, [each for each in able if each.name in chosen]
        )
        self.layers = tuple(each for each in placement.layers(model) if each.name in chosen)
        self._tiles = tiles
        self._report = report
        report("calibrating: channel ranges")
        self.model = equalize(model, self.layers, tiles)
        inputs = sorted({each.input for each in self.layers})
        _, self._histograms = statistics(self.model, inputs, tiles, report)
        thresholds = {name: each.threshold(method) for name, each in self._histograms.items()}
        self.thresholds = share_thresholds(self.model, thresholds)
        self.thresholds |= dict.fromkeys(self.images, IMAGE_THRESHOLD)

    @cached_property
    def fitted(self) -> Mapping[str, FittedWeights]:
        """Weights with optimized rounding, by layer name."""
        return optimize_rounding(
            self.model, self.layers, self.thresholds, self._tiles, self._report
        )

    def quantize(self, chosen: Sequence[Layer], *, fitted: bool) -> onnx.ModelProto:
        """Return the graph with some layers in INT8.

        Args:
            chosen: A subset of `layers`.
            fitted: Use weights with optimized rounding instead of rounding to nearest.
        """
        weights = self.fitted if fitted else None
        return placement.quantize(self.model, chosen, self.thresholds, weights)

    def shares(self, total: float) -> dict[str, float]:
        """Return each layer's share of the multiply-adds, by layer name.

        Args:
            total: Multiply-adds of the whole network for all tiles.
        """
        values = {name: float(each.counts.sum()) for name, each in self._histograms.items()}
        return placement.shares(self.layers, values, total)


def share_thresholds(model: onnx.ModelProto, thresholds: Mapping[str, float]) -> dict[str, float]:
    """Return thresholds in which concatenations with common parts share the largest one.

    In a dense block, convolutions read ever longer concatenations of the same values. With a shared
    threshold, a runtime quantizes every value once and concatenates bytes.

    Args:
        model: The graph.
        thresholds: The absolute value at which each layer's input is clipped, by value name.
    """
    joins = {node.output[0]: node for node in model.graph.node if _joins(node)}
    parts = {name: _parts(name, joins) for name in thresholds}
    groups: list[frozenset[str]] = []
    for each in parts.values():
        touched = [group for group in groups if group & each]
        groups = [group for group in groups if group not in touched] + [each.union(*touched)]
    found: dict[str, float] = {}
    for group in groups:
        names = [name for name, each in parts.items() if each <= group]
        found |= dict.fromkeys(names, max(thresholds[name] for name in names))
    return found


def _joins(node: onnx.NodeProto) -> bool:
    return node.op_type == "Concat" and node.attribute[0].i == _CHANNELS


def _parts(name: str, joins: Mapping[str, onnx.NodeProto]) -> frozenset[str]:
    """Return the values that a value is concatenated from, recursively."""
    if name not in joins:
        return frozenset({name})
    return frozenset().union(*(_parts(each, joins) for each in joins[name].input))
