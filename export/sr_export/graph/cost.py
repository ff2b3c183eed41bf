"""The cost of a graph: operations, and memory for intermediate results."""

from __future__ import annotations

import math
import tempfile
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnxruntime as ort

from sr_deploy.errors import ExportError

# Other operators cost little beside these.
MULTIPLYING = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
# Memory that grows faster than the frame shows on a frame this many times as high and wide: its
# bytes per pixel grow by more than this part. For most networks they hardly differ.
_LARGER = 4
_GROWTH = 0.1


@dataclass(frozen=True)
class Cost:
    """Cost per low-resolution pixel."""

    operations: float
    """Floating-point operations of convolutions and matrix products; a multiply-add counts two."""
    bytes: int
    """Peak memory of float32 intermediate results."""


def measure(model: onnx.ModelProto, size: tuple[int, int]) -> Cost:
    """Return the cost of one frame of (height, width), per pixel."""
    graph = with_shapes(model, size).graph
    shapes = shapes_of(graph)
    pixels = math.prod(size)
    count = sum(operations(node, shapes) for node in graph.node)
    return Cost(count / pixels, max(1, round(_peak_bytes(graph, shapes) / pixels)))


def bytes_per_pair(model: onnx.ModelProto, size: tuple[int, int], spent: Cost) -> float:
    """Return the memory per pair of pixels: nonzero only if memory grows faster than the frame.

    Args:
        model: A graph that accepts any size.
        size: The frame size that `spent` was measured with.
        spent: The cost at that size; it is compared with a larger frame.
    """
    height, width = (_LARGER * side for side in size)
    larger = measure(model, (height, width))
    more = larger.bytes - spent.bytes
    return more / (height * width) if more > _GROWTH * spent.bytes else 0.0


def shapes_of(graph: onnx.GraphProto) -> dict[str, list[int]]:
    """Return the shapes of a graph's values and weights by name."""
    shapes = {
        value.name: [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in [*graph.value_info, *graph.input, *graph.output]
    }
    return shapes | {each.name: list(each.dims) for each in graph.initializer}


def with_shapes(model: onnx.ModelProto, size: tuple[int, int]) -> onnx.ModelProto:
    """Return the graph for one frame size, with every shape known.

    ONNX Runtime folds the arithmetic on shapes first: onnx's shape inference cannot follow it.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    dims = fixed.graph.input[0].type.tensor_type.shape.dim
    # A generator reads noise (N, size) instead.
    for dim, value in zip(dims, (1, dims[1].dim_value, *size), strict=False):
        if not dim.dim_value:
            dim.dim_value = value
    for dim in fixed.graph.output[0].type.tensor_type.shape.dim:
        dim.ClearField("dim_param")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "folded.onnx"
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(path)
        try:
            ort.InferenceSession(fixed.SerializeToString(), options, ["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot load the graph: {error}") from error
        return onnx.shape_inference.infer_shapes(onnx.load_model(path), data_prop=True)


def operations(node: onnx.NodeProto, shapes: dict[str, list[int]]) -> float:
    """Return the operations of a node, given all shapes by name."""
    if node.op_type not in MULTIPLYING:
        return 0.0
    first, second = (shapes.get(name, []) for name in node.input[:2])
    output = shapes.get(node.output[0], [])
    if node.op_type == "Conv":
        return 2.0 * math.prod(output) * math.prod(second[1:])
    if node.op_type == "ConvTranspose":
        return 2.0 * math.prod(first) * math.prod(second[1:])
    return 2.0 * math.prod(output) * (first[-1] if first else 0)


def _peak_bytes(graph: onnx.GraphProto, shapes: dict[str, list[int]]) -> float:
    """Return the peak of the memory of all live intermediate results."""
    last_use = {name: i for i, node in enumerate(graph.node) for name in node.input}
    weights = {each.name for each in graph.initializer}
    sizes: dict[str, int] = {
        each.name: 4 * math.prod(shapes[each.name] or [1]) for each in graph.input
    }
    peak = 0
    for i, node in enumerate(graph.node):
        for name in node.output:
            sizes[name] = 4 * math.prod(shapes.get(name) or [1])
        peak = max(peak, sum(sizes.values()))
        for name in {*node.input, *node.output} - weights:
            if last_use.get(name, i) <= i:
                sizes.pop(name, None)
    return peak
