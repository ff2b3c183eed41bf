"""Activation statistics on real images: ranges and histograms.

INT8 derives clipping thresholds from them; half precision checks that no value overflows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from sr_deploy.errors import ExportError
from sr_export import photos
from sr_export.graph import onnx_graph
from sr_export.graph.onnx_runner import OnnxSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import Method

BINS = 4096
_PERCENTILE = 99.999
_LEVELS = 127
# Thresholds that `mse` tries: every 16th bin, from where a step is as wide as a bin.
_CLIPPINGS = range(128, BINS + 1, 16)
# A tensor with smaller values counts as 0: their reciprocal overflows float32.
_NOTHING = 1e-30
# Limit for the tensors returned by one run; networks with more activations need several runs.
_GROUP_BYTES = 256 << 20


@dataclass(frozen=True, eq=False)
class Histogram:
    """Histogram of a tensor's absolute values."""

    counts: NDArray[np.int64]
    """Counts of BINS equal bins from 0 to `largest`."""
    largest: float

    def threshold(self, method: Method) -> float:
        """Return the clipping threshold; 0 for a tensor that is always 0.

        Args:
            method: `percentile` clips the largest 0.001 %; `minmax` clips nothing; `mse` minimizes
                the squared error of clipping and rounding in symmetric INT8.
        """
        if method == "minmax":
            return self.largest
        if method == "mse":
            return self._least_error() * self.largest / BINS
        cumulated = np.cumsum(self.counts)
        enough = cumulated[-1] * (_PERCENTILE / 100)
        return float(np.searchsorted(cumulated, enough) + 1) * self.largest / BINS

    def _least_error(self) -> int:
        """Return the threshold with the least squared error, in bins."""
        values = np.arange(BINS) + 0.5
        best = math.inf, BINS
        for clipping in _CLIPPINGS:
            level = clipping / _LEVELS
            restored = np.minimum(np.rint(values / level), _LEVELS) * level
            error = float(self.counts @ np.square(restored - values))
            best = min(best, (error, clipping))
        return best[1]


def largest(model: onnx.ModelProto, tiles: Sequence[NDArray[np.uint8]]) -> dict[str, float]:
    """Return the largest absolute value of every float tensor that depends on the image.

    Args:
        model: Float32, NCHW in [0, 1]; size and batch may be free or fixed.
        tiles: Low-resolution images (H, W, C), all of one size that the model accepts.

    Returns:
        Values by tensor name; infinite for a tensor with infinities or NaN.

    Raises:
        ExportError: ONNX Runtime cannot run the model.
    """
    plain = onnx_graph.copied(model)
    constants = {each.name for each in plain.graph.initializer}
    names = sorted(onnx_graph.floats(plain) - onnx_graph.shape_values(plain.graph) - constants)
    # Reduced inside the graph, so that the runtime returns one number per tensor.
    run = _watching(plain, names, "Abs", "ReduceMax")
    found = np.zeros(len(names))
    for batch in batches(model, tiles):
        found = np.maximum(found, run(batch))
    return {
        name: float(value) if math.isfinite(value) else math.inf
        for name, value in zip(names, found, strict=True)
    }


def collect(
    model: onnx.ModelProto,
    names: Sequence[str],
    tiles: Sequence[NDArray[np.uint8]],
    largest: Mapping[str, float],
    report: Callable[[str], None],
) -> dict[str, Histogram]:
    """Return the histograms of some tensors.

    Args:
        model: As for `largest`.
        names: Names of the tensors.
        tiles: As for `largest`.
        largest: The result of `largest`.
        report: Called with the progress.

    Raises:
        ExportError: ONNX Runtime cannot run the model, or a tensor has infinities or NaN.
    """
    for name in names:
        if not math.isfinite(largest[name]):
            raise ExportError(
                f"{name!r} has infinities or NaN on the calibration images, so INT8 cannot be "
                "calibrated"
            )
    counts = {name: np.zeros(BINS, np.int64) for name in names}
    groups = list(_groups(model, names, tiles))
    for part, group in enumerate(groups, 1):
        run = _watching(model, group, "Identity")
        suffix = f", part {part} of {len(groups)}" if len(groups) > 1 else ""
        done = 0
        for batch in batches(model, tiles):
            for name, values in zip(group, run(batch), strict=True):
                counts[name] += _count(values, largest[name])
            done = min(done + len(batch), len(tiles))
            report(f"calibrating: {done} of {len(tiles)} tiles{suffix}")
    return {name: Histogram(counts[name], largest[name]) for name in names}


def channel_ranges(
    model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[NDArray[np.uint8]]
) -> dict[str, NDArray[np.float32]]:
    """Return the largest absolute value per channel of some NCHW tensors.

    Raises:
        ExportError: ONNX Runtime cannot run the model.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for group in _groups(model, names, tiles):
        for values in watched(model, group, tiles):
            for name, value in zip(group, values, strict=True):
                largest = np.abs(value).max(axis=(0, 2, 3))
                found[name] = np.maximum(found.get(name, largest), largest)
    return found


def sizes(
    model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[NDArray[np.uint8]]
) -> dict[str, int]:
    """Return the number of elements of some tensors, for one batch of tiles.

    Raises:
        ExportError: ONNX Runtime cannot run the model.
    """
    if not names:
        return {}
    found = _watching(model, names, "Size")(next(batches(model, tiles)))
    return {name: int(each) for name, each in zip(names, found, strict=True)}


def watched(
    model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[NDArray[np.uint8]]
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield the values of some tensors, batch by batch.

    Raises:
        ExportError: ONNX Runtime cannot run the model.
    """
    run = _watching(model, names, "Identity")
    for batch in batches(model, tiles):
        yield run(batch)


def _count(values: NDArray[np.float32], largest: float) -> NDArray[np.int64]:
    # Much faster than np.histogram.
    scaled = np.abs(values.ravel())
    scaled *= BINS / largest if largest > _NOTHING else 0.0
    np.minimum(scaled, BINS - 1, out=scaled)
    return np.bincount(scaled.astype(np.uint16), minlength=BINS)


def _groups(
    model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[NDArray[np.uint8]]
) -> Iterator[list[str]]:
    """Divide tensors into groups that fit into memory; each has at least one."""
    group: list[str] = []
    room = _GROUP_BYTES
    for name, size in sizes(model, names, tiles).items():
        taken = size * np.float32().itemsize
        if group and taken > room:
            yield group
            group, room = [], _GROUP_BYTES
        group.append(name)
        room -= taken
    if group:
        yield group


def batches(
    model: onnx.ModelProto, tiles: Sequence[NDArray[np.uint8]]
) -> Iterator[NDArray[np.float32]]:
    """Yield tiles as NCHW batches of the model's batch size; the last batch may repeat tiles."""
    size = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or 1
    for start in range(0, len(tiles), size):
        chosen = [tiles[i % len(tiles)] for i in range(start, start + size)]
        given: NDArray[Any] = np.stack(chosen)
        # A generator's noise is float already.
        yield given if given.dtype == np.float32 else photos.as_float(given)


def _watching(
    model: onnx.ModelProto, names: Iterable[str], *operators: str
) -> Callable[[NDArray[np.float32]], list[Any]]:
    """Return a function that runs a model and applies operators to some of its tensors."""
    watching = onnx.ModelProto()
    watching.CopyFrom(model)
    graph = watching.graph
    del graph.output[:]
    for i, name in enumerate(names):
        for operator in operators:
            result = f"watched_{i}_{operator}"
            attributes: dict[str, Any] = {"keepdims": 0} if operator.startswith("Reduce") else {}
            graph.node.append(helper.make_node(operator, [name], [result], result, **attributes))
            name = result
        kind = TensorProto.INT64 if operators[-1] == "Size" else TensorProto.FLOAT
        graph.output.append(helper.make_tensor_value_info(name, kind, None))
    session = OnnxSession(watching)
    return lambda batch: session.run({session.inputs[0]: batch})
