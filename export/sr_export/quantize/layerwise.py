"""Running a network layer by layer, in FP32 and with layers in INT8, on the same images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
from onnx import helper

from sr_export.graph import onnx_graph
from sr_export.graph.onnx_runner import OnnxSession
from sr_export.quantize import placement
from sr_export.quantize.activations import batches

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from sr_export.quantize.placement import FittedWeights, Layer

    Values = dict[str, NDArray[Any]]

# Limit for the values kept between layers; above it, tiles are dropped.
_HELD_BYTES = 1 << 30


class LayerwiseRun:
    """Runs every node once per tile, and keeps the values that later nodes read.

    Args:
        model: Float32, NCHW; all constants are initializers.
        layers: The layers that will compute in INT8.
        thresholds: Clipping threshold of each layer's input, by value name.
        tiles: Images (H, W, C).
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        layers: Sequence[Layer],
        thresholds: Mapping[str, float],
        tiles: Sequence[NDArray[np.uint8]],
    ) -> None:
        self._model = model
        self._layers = layers
        self._thresholds = thresholds
        self._nodes = list(model.graph.node)
        self._passed = 0
        name = model.graph.input[0].name
        self._held: list[tuple[Values, Values]] = [
            ({name: batch}, {name: batch}) for batch in batches(model, tiles)
        ]

    def run_to(self, layer: str, fitted: Mapping[str, FittedWeights]) -> None:
        """Run up to a layer, without the layer itself.

        Args:
            layer: Name of a layer that has not run yet.
            fitted: Weights of the layers before it; weights not listed are rounded to nearest.

        Raises:
            ExportError: ONNX Runtime cannot run the graph.
        """
        end = next(i for i, node in enumerate(self._nodes) if node.name == layer)
        if end == self._passed:
            return
        stage = self._stage(end)
        ahead = _read(self._nodes[end:])
        exact = _step(stage, ahead)
        first = exact(self._held[0][0])
        del self._held[max(1, _HELD_BYTES // sum(2 * each.nbytes for each in first.values())) :]
        for output in stage.graph.output:
            output.CopyFrom(_declared(output.name, first[output.name]))
        in_int8 = placement.quantize(stage, self._layers, self._thresholds, fitted)
        quantized = _step(in_int8, ahead)
        # One by one: the previous values of a tile are freed before the next tile runs.
        for i, (one, other) in enumerate(self._held):
            self._held[i] = exact(one), quantized(other)
        self._passed = end

    def values(self, name: str) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Yield a value in FP32 and after the INT8 layers, batch by batch."""
        for exact, quantized in self._held:
            yield exact[name], quantized[name]

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._held)

    def _stage(self, end: int) -> onnx.ModelProto:
        """Return the part of the graph up to a node; the types of its outputs are not set yet."""
        stage = onnx.ModelProto()
        stage.CopyFrom(self._model)
        graph = stage.graph
        del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
        graph.node.extend(self._nodes[self._passed : end])
        read, ahead = _read(graph.node), _read(self._nodes[end:])
        held = self._held[0][0]
        graph.input.extend(_declared(name, held[name]) for name in held if name in read)
        made = [name for node in graph.node for name in node.output if name in ahead]
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in made)
        onnx_graph.drop_unused(graph)
        return stage


def _step(stage: onnx.ModelProto, ahead: set[str]) -> Callable[[Values], Values]:
    """Return a function from the values before a stage to those after it."""
    session = OnnxSession(stage)

    def step(values: Values) -> Values:
        found = session.run({name: values[name] for name in session.inputs})
        kept = {name: value for name, value in values.items() if name in ahead}
        return kept | dict(zip(session.outputs, found, strict=True))

    return step


def _declared(name: str, value: NDArray[Any]) -> onnx.ValueInfoProto:
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_value_info(name, kind, value.shape)


def _read(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Return the names of all values that nodes and their subgraphs read."""
    found = set()
    for node in nodes:
        found.update(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found |= _read(attribute.g.node)
    return found
