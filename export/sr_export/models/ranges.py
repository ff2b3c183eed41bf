"""The pixel values of a network, and their conversion from and to RGB in [0, 1].

Some networks use [-1, 1] (tanh), [0, 255], normalized or BGR images. The difference is an affine
map per channel at each end. It becomes part of the graph: every bundle uses RGB in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

UNIT = (0.0, 1.0)
SIGNED = (-1.0, 1.0)
BYTES = (0.0, 255.0)


@dataclass(frozen=True)
class Ranges:
    """The pixel values of a network's input and output."""

    input: tuple[float, float] = UNIT
    """Black and white at the input, before `mean` and `std`."""
    output: tuple[float, float] = UNIT
    """Black and white at the output."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from the input; per channel, or one for all."""
    std: tuple[float, ...] = (1.0,)
    """Divides the input afterwards."""
    bgr: bool = False
    """Whether the channel order is blue, green, red."""

    def __str__(self) -> str:
        if self.plain:
            return "0 to 1 in and out"
        texts = ["{:g} to {:g} in, {:g} to {:g} out".format(*self.input, *self.output)]
        if (self.mean, self.std) != ((0.0,), (1.0,)):
            texts.append(f"mean {self.mean}, std {self.std}")
        return ", ".join([*texts, *(["BGR"] if self.bgr else [])])

    @property
    def plain(self) -> bool:
        """Whether no conversion is needed."""
        return self == Ranges()

    def input_map(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the factor and the offset that convert an image in [0, 1] to the input."""
        low, high = self.input
        mean, std = np.array(self.mean), np.array(self.std)
        return _plane((high - low) / std), _plane((low - mean) / std)

    def output_map(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the factor and the offset that convert the output to [0, 1]."""
        low, high = self.output
        return _plane(np.array([1 / (high - low)])), _plane(np.array([-low / (high - low)]))

    def around(self, run: Run) -> Run:
        """Wrap a function on the network's own values as one on RGB in [0, 1]."""
        if self.plain:
            return run
        order = slice(None, None, -1) if self.bgr else slice(None)

        def ranged(image: NDArray[np.float32]) -> NDArray[np.float32]:
            scale, shift = self.input_map()
            output = run(np.ascontiguousarray(image[:, order] * scale + shift))
            scale, shift = self.output_map()
            return np.ascontiguousarray((output * scale + shift)[:, order])

        return ranged

    def put_into(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Return a copy of a float NCHW graph that uses RGB in [0, 1]."""
        ranged = onnx.ModelProto()
        ranged.CopyFrom(model)
        if self.plain:
            return ranged
        graph = ranged.graph
        source, result = graph.input[0].name, graph.output[0].name
        _rename(graph, source, "ranged_input")
        _rename(graph, result, "ranged_output")
        before = _affine(source, "ranged_input", *self.input_map(), self.bgr, flip_first=True)
        after = _affine("ranged_output", result, *self.output_map(), self.bgr, flip_first=False)
        nodes = [*before[0], *graph.node, *after[0]]
        del graph.node[:]
        graph.node.extend(nodes)
        graph.initializer.extend([*before[1], *after[1]])
        onnx.checker.check_model(ranged)
        return ranged


def _plane(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32).reshape(1, -1, 1, 1)


def _rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """Rename a value inside the graph; the input or output of the graph keeps its name."""
    for node in graph.node:
        for names in (node.input, node.output):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new


def _affine(
    source: str,
    target: str,
    scale: NDArray[np.float32],
    shift: NDArray[np.float32],
    bgr: bool,
    *,
    flip_first: bool,
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and constants for `source * scale + shift`, with reversed channels if `bgr`."""
    stem = f"{target}_affine"
    steps: list[tuple[str, str, NDArray[Any]]] = [("Mul", "scale", scale), ("Add", "shift", shift)]
    if bgr:
        flip = ("Gather", "order", np.array([2, 1, 0], np.int64))
        steps.insert(0 if flip_first else len(steps), flip)
    nodes, constants = [], []
    for i, (operator, name, constant) in enumerate(steps):
        output = target if i == len(steps) - 1 else f"{stem}_{name}_out"
        attributes: dict[str, Any] = {"axis": 1} if operator == "Gather" else {}
        inputs = [source, f"{stem}_{name}"]
        nodes.append(
            helper.make_node(operator, inputs, [output], f"{stem}_{name}_node", **attributes)
        )
        constants.append(numpy_helper.from_array(constant, f"{stem}_{name}"))
        source = output
    return nodes, constants
