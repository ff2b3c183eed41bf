"""Placing Q/DQ nodes: at the inputs and the weights of convolutions.

This is the placement that TensorRT recommends. All scales are symmetric; those of weights are per
output channel. No Q/DQ pair follows a convolution, so bias, activation or addition fuse with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_export.checkpoint.int8_record import LEVELS, SMALLEST_SCALE
from sr_export.graph import onnx_graph

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

# The first opset that allows half-precision scales; nothing else in our graphs changed with it.
_OPSET = 19
# The axis of a weight that holds the output channels.
OUTPUT_AXIS = {"Conv": 0, "ConvTranspose": 1}
# With fewer channels per group, a grouped convolution has too few multiplications for INT8 to pay.
_LEAST_GROUP = 4


@dataclass(frozen=True)
class Layer:
    """A convolution that can compute in INT8."""

    name: str
    """Name of the node."""
    input: str
    """Name of the input value."""
    multiply_adds_per_value: float
    """Multiply-adds per element of the input."""


@dataclass(frozen=True, eq=False)
class FittedWeights:
    """The weights of one layer on INT8 levels, and the matching bias."""

    weights: NDArray[np.float32]
    scales: NDArray[np.float32]
    bias: NDArray[np.float32]


def layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """Return the layers that can compute in INT8, in execution order.

    Not depthwise convolutions: they are limited by memory bandwidth and lose most quality. Not
    grouped transposed convolutions: their weights have no axis of output channels. Not matrix
    products: in attention, both operands depend on the image.
    """
    graph = onnx_graph.copied(model).graph
    weights = {
        each.name: tuple(each.dims)
        for each in graph.initializer
        if each.data_type == TensorProto.FLOAT
    }
    found = []
    for node in graph.node:
        if node.op_type in OUTPUT_AXIS and node.input[1] in weights:
            shape = weights[node.input[1]]
            if _worthwhile(node, shape):
                cost = _multiply_adds_per_value(node, shape)
                found.append(Layer(node.name, node.input[0], cost))
    return tuple(found)


def _worthwhile(node: onnx.NodeProto, weights: tuple[int, ...]) -> bool:
    groups = _attribute(node, "group", 1)
    if groups == 1:
        return True
    return node.op_type == "Conv" and weights[1] >= _LEAST_GROUP


def _multiply_adds_per_value(node: onnx.NodeProto, weights: tuple[int, ...]) -> float:
    """Return the multiply-adds of a layer per element of its input, ignoring padding."""
    groups = _attribute(node, "group", 1)
    if node.op_type == "ConvTranspose":
        return math.prod(weights) / weights[0]
    strides = next((list(each.ints) for each in node.attribute if each.name == "strides"), [1])
    return math.prod(weights) / (weights[1] * groups) / math.prod(strides)


def _attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((each.i for each in node.attribute if each.name == name), default)


def shares(layers: Iterable[Layer], values: Mapping[str, float], total: float) -> dict[str, float]:
    """Return each layer's share of the multiply-adds, by layer name.

    Args:
        layers: All layers that can compute in INT8.
        values: Number of elements of each layer's input, by value name.
        total: Multiply-adds of the whole network.
    """
    spent = {each.name: each.multiply_adds_per_value * values[each.input] for each in layers}
    # Padding inside the graph counts here, but not in the total.
    total = max(total, sum(spent.values()))
    return {name: each / total for name, each in spent.items()}


def quantize(
    model: onnx.ModelProto,
    chosen: Iterable[Layer],
    thresholds: Mapping[str, float],
    fitted: Mapping[str, FittedWeights] | None = None,
) -> onnx.ModelProto:
    """Return a copy of a float32 graph in which some layers compute in INT8.

    Args:
        model: The graph.
        chosen: The layers to quantize.
        thresholds: Clipping threshold of each layer's input, by value name.
        fitted: Weights that are on INT8 levels already, by layer name; others are rounded to
            nearest.
    """
    copy = onnx_graph.copied(model)
    graph = copy.graph
    onnx_graph.raise_opset(copy, _OPSET)
    names = {each.name for each in chosen}
    constants = {each.name: each for each in graph.initializer}
    concatenated = {node.output[0] for node in graph.node if node.op_type == "Concat"}
    nodes: list[onnx.NodeProto] = []
    pairs: dict[str, str] = {}
    for node in graph.node:
        if node.name in names:
            axis = OUTPUT_AXIS[node.op_type]
            if fitted and node.name in fitted:
                _store(graph, constants, node, fitted[node.name])
                scales = fitted[node.name].scales
            else:
                scales = weight_scales(numpy_helper.to_array(constants[node.input[1]]), axis)
            scale = scale_of(np.float32(thresholds[node.input[0]]))
            value, weights = node.input[:2]
            if value not in pairs:
                held = _hold(graph, nodes, value, scale) if value in concatenated else value
                pairs[value] = _add_pair(graph, nodes, held, scale, None)
            if weights not in pairs:
                pairs[weights] = _add_pair(graph, nodes, weights, scales, axis)
            node.input[:2] = [pairs[value], pairs[weights]]
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    onnx_graph.drop_unused(graph)
    onnx.checker.check_model(copy)
    return copy


def _store(
    graph: onnx.GraphProto,
    constants: Mapping[str, onnx.TensorProto],
    node: onnx.NodeProto,
    fitted: FittedWeights,
) -> None:
    """Replace a layer's weights; the bias becomes a new constant, since layers may share one."""
    name = node.input[1]
    constants[name].CopyFrom(numpy_helper.from_array(fitted.weights, name))
    bias = f"{node.name}_fitted_bias"
    graph.initializer.append(numpy_helper.from_array(fitted.bias, bias))
    del node.input[2:]
    node.input.append(bias)


def weight_scales(weights: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Return the step size of each output channel."""
    others = tuple(i for i in range(weights.ndim) if i != axis)
    return scale_of(np.abs(weights).max(axis=others))


def scale_of(threshold: NDArray[np.float32] | np.float32) -> NDArray[np.float32]:
    """Return the step size for a clipping threshold, representable in half precision."""
    scale = np.maximum(np.asarray(threshold, np.float32) / LEVELS, SMALLEST_SCALE)
    half = scale.astype(np.float16)
    # Rounded up: the largest value must not be clipped.
    return np.where(half < scale, np.nextafter(half, np.float16(np.inf)), half).astype(np.float32)


def _hold(
    graph: onnx.GraphProto, nodes: list[onnx.NodeProto], value: str, scale: NDArray[np.float32]
) -> str:
    """Clip a value to the INT8 range, which quantizing does anyway; return the output.

    OpenVINO moves a quantizer that follows a concatenation to before it, and then loses two bits
    (2026.4: 59 dB against FP32 with one such layer instead of 73). It does not move a clip, but
    drops one at level -128. So this clip is at level -127.75, which rounds to -128.
    """
    bounds = [f"{value}_lowest", f"{value}_highest"]
    ends = -(LEVELS + 0.75) * scale, LEVELS * scale
    for name, end in zip(bounds, ends, strict=True):
        graph.initializer.append(numpy_helper.from_array(np.asarray(end, np.float32), name))
    output = f"{value}_held"
    nodes.append(helper.make_node("Clip", [value, *bounds], [output], output))
    return output


def _add_pair(
    graph: onnx.GraphProto,
    nodes: list[onnx.NodeProto],
    name: str,
    scale: NDArray[np.float32],
    axis: int | None,
) -> str:
    """Add a Q/DQ pair after a value or constant; return its output."""
    parameters = [f"{name}_scale", f"{name}_zero"]
    for parameter, values in zip(parameters, (scale, np.zeros(scale.shape, np.int8)), strict=True):
        graph.initializer.append(numpy_helper.from_array(np.asarray(values), parameter))
    for operator, source, target in (
        ("QuantizeLinear", name, f"{name}_int8"),
        ("DequantizeLinear", f"{name}_int8", f"{name}_dequantised"),
    ):
        node = helper.make_node(operator, [source, *parameters], [target], target)
        if axis is not None:
            node.attribute.append(helper.make_attribute("axis", axis))
        nodes.append(node)
    return f"{name}_dequantised"
