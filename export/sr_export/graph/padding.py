"""Padding inside an exported graph, for networks that cannot be padded in PyTorch."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper


def pad_inside(model: onnx.ModelProto, grid: int, scale: int) -> onnx.ModelProto:
    """Return a copy that pads its input to the grid by reflection, and crops its output."""
    padded = onnx.ModelProto()
    padded.CopyFrom(model)
    if grid == 1:
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
    constants = {
        "grid_first": np.array([2], np.int64),
        "grid_end": np.array([4], np.int64),
        "grid_size": np.array([grid, grid], np.int64),
        "grid_rest": np.array([grid - 1, grid - 1], np.int64),
        "grid_none": np.zeros(6, np.int64),
        "grid_scale": np.array([scale, scale], np.int64),
        "grid_start": np.zeros(2, np.int64),
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
        helper.make_node("Concat", ["grid_none", "grid_lacking"], ["grid_pads"], axis=0),
        helper.make_node("Pad", [source, "grid_pads"], ["grid_input"], mode="reflect"),
    ]
    after = [
        helper.make_node("Mul", ["grid_sides", "grid_scale"], ["grid_crop"]),
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
    onnx.checker.check_model(padded)
    return padded
