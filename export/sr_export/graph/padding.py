"""Padding inside an exported graph, for networks that cannot be padded in PyTorch.

Two kinds of networks need it. Some accept only sides that are multiples of a grid: images are
padded by reflection. Others return less than scale times the image, since their convolutions pad
nothing (waifu2x): images get a border that repeats their edge, as the programs of such networks do.
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

    Run = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Padding:
    """How an image is padded for a network, and its output cropped.

    Args:
        grid: Sides that the network accepts are multiples of this.
        scale: Scale of the network.
        missing: Pixels by which each side of its output is shorter than scale times the input.
    """

    grid: int
    scale: int
    missing: int = 0

    @property
    def border(self) -> int:
        """Pixels to add on each side of the image."""
        return -(-self.missing // (2 * self.scale))

    @property
    def start(self) -> int:
        """Rows and columns to drop at the top and left of the output."""
        return (2 * self.scale * self.border - self.missing) // 2

    @property
    def mode(self) -> str:
        """How images are padded: the name is the same in numpy and in ONNX."""
        return "edge" if self.border else "reflect"

    def around(self, run: Run) -> Run:
        """Wrap a function on images of the grid as one on images of any size."""

        def padded(image: NDArray[Any]) -> NDArray[Any]:
            before = self.border
            after = [before + -(side + 2 * before) % self.grid for side in image.shape[2:]]
            pads = ((0, 0), (0, 0), (before, after[0]), (before, after[1]))
            output = run(np.pad(image, pads, mode=self.mode))  # type: ignore[call-overload]
            rows, columns = (
                slice(self.start, self.start + side * self.scale) for side in image.shape[2:]
            )
            return np.ascontiguousarray(output[:, :, rows, columns])

        return padded


def pad_inside(model: onnx.ModelProto, padding: Padding) -> onnx.ModelProto:
    """Return a copy that pads its input and crops its output."""
    padded = onnx.ModelProto()
    padded.CopyFrom(model)
    if padding.grid == 1 and not padding.missing:
        return padded
    graph = padded.graph
    source, result = graph.input[0].name, graph.output[0].name
    for node in graph.node:
        for names, old, new in (
            (node.input, source, "grid_input"),
            (node.input, result, "grid_output"),
            (node.output, result, "grid_output"),
        ):
            for i, name in enumerate(names):
                if name == old:
                    names[i] = new
    border, scale = padding.border, padding.scale
    constants = {
        "grid_first": np.array([2], np.int64),
        "grid_end": np.array([4], np.int64),
        "grid_size": np.array([padding.grid] * 2, np.int64),
        "grid_rest": np.array([2 * border + padding.grid - 1] * 2, np.int64),
        "grid_before": np.array([0, 0, border, border, 0, 0], np.int64),
        "grid_border": np.array([border] * 2, np.int64),
        "grid_scale": np.array([scale] * 2, np.int64),
        "grid_start": np.array([padding.start] * 2, np.int64),
        "grid_axes": np.array([2, 3], np.int64),
    }
    before = [
        helper.make_node("Shape", [source], ["grid_shape"]),
        helper.make_node("Slice", ["grid_shape", "grid_first", "grid_end"], ["grid_sides"]),
        # Not a remainder: TensorRT cannot bound its result, see `to_onnx.Padded`.
        helper.make_node("Add", ["grid_sides", "grid_rest"], ["grid_above"]),
        helper.make_node("Div", ["grid_above", "grid_size"], ["grid_cells"]),
        helper.make_node("Mul", ["grid_cells", "grid_size"], ["grid_whole"]),
        helper.make_node("Sub", ["grid_whole", "grid_sides"], ["grid_lacking"]),
        helper.make_node("Sub", ["grid_lacking", "grid_border"], ["grid_after"]),
        helper.make_node("Concat", ["grid_before", "grid_after"], ["grid_pads"], axis=0),
        helper.make_node("Pad", [source, "grid_pads"], ["grid_input"], mode=padding.mode),
    ]
    after = [
        helper.make_node("Mul", ["grid_sides", "grid_scale"], ["grid_length"]),
        helper.make_node("Add", ["grid_length", "grid_start"], ["grid_crop"]),
        helper.make_node(
            "Slice", ["grid_output", "grid_start", "grid_crop", "grid_axes"], [result]
        ),
    ]
    nodes = [*before, *graph.node, *after]
    del graph.node[:]
    graph.node.extend(nodes)
    graph.initializer.extend(
        numpy_helper.from_array(each, name) for name, each in constants.items()
    )
    surplus = 2 * border * scale - padding.missing
    for value, length in ((graph.input[0], 2 * border), (graph.output[0], surplus)):
        for dim in value.type.tensor_type.shape.dim[2:]:
            if dim.dim_value:
                dim.dim_value -= length
    onnx.checker.check_model(padded)
    return padded
