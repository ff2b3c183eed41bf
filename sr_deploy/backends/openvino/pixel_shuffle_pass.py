"""Moves the final pixel shuffle of an INT8 network after the conversion to bytes.

The file shuffles floats, adds the upscaled input, scales, clips, rounds and converts to bytes. All
steps but the shuffle are elementwise, so this pass runs them first and the shuffle moves bytes, a
quarter of the data. It also reorders the last convolution's channels into the order of the frame,
so that the shuffle moves whole pieces of rows.

The file keeps its order because TensorRT supports bytes only at the ends of a network.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import openvino
from openvino import opset8 as operators

_TO_FRAMES = [0, 2, 3, 1]
_ELEMENTWISE = {"Clamp", "Convert", "Maximum", "Minimum", "Multiply", "Round"}
_QUANTIZING = {"Convert", "FakeQuantize", "Multiply", "Reshape", "Subtract"}
_NUMBERS = {openvino.Type.f32, openvino.Type.f16, openvino.Type.i8}
_SIZES = {openvino.Type.i32, openvino.Type.i64}


class _NetworkTail(NamedTuple):
    """The last nodes of a network.

    Attributes:
        convolution: The last convolution.
        bias: The addition of its bias; None: no bias.
        shuffle: The pixel shuffle.
        base: The upsampling of the input that is added; None: no addition.
        transpose: From NCHW to NHWC.
        to_bytes: The conversion to bytes.
    """

    convolution: Any
    bias: Any
    shuffle: Any
    base: Any
    transpose: Any
    to_bytes: Any


def shuffle_bytes(model: Any) -> None:
    """Rewrite a model of a fixed shape in place; other patterns stay unchanged."""
    tail = _match(model)
    if tail is None:
        return
    side = tail.shuffle.get_attributes()["block_size"]
    count, channels, height, width = (int(each) for each in tail.shuffle.get_output_shape(0))
    order = np.arange(channels * side**2).reshape(channels, side**2).T.ravel()
    _reorder(tail.convolution.input(1), order)
    if tail.bias is not None:
        moved = operators.gather(tail.bias.input_value(1), order, np.int64(1))
        tail.bias.input(1).replace_source_output(moved.output(0))
    tail.shuffle.output(0).replace(tail.shuffle.input_value(0))
    if tail.base is not None:
        image = tail.base.input_value(0)
        tail.base.output(0).replace(operators.concat([image] * side**2, 1).output(0))
    model.validate_nodes_and_infer_types()

    values = operators.convert(tail.transpose.input_value(0), "u8")
    frames = operators.transpose(values, np.array(_TO_FRAMES))
    # Split blocks into their rows; the same row of all blocks side by side is a row of the frame.
    blocks = _shaped(frames, -1, width // side, side, side * channels)
    pieces = operators.split(blocks, 2, side).outputs()
    rows = operators.concat([_shaped(each, -1, 1, width * channels) for each in pieces], 1)
    result = _shaped(rows, count, height, width, channels)
    tail.to_bytes.output(0).replace(result.output(0))
    model.validate_nodes_and_infer_types()


def _shaped(value: Any, *shape: int) -> Any:
    return operators.reshape(value, np.array(shape), special_zero=False)


def _match(model: Any) -> _NetworkTail | None:
    """Return the last nodes of a network, if they have the expected pattern."""
    to_bytes = model.get_results()[0].input_value(0).get_node()
    if to_bytes.get_type_name() != "Convert" or to_bytes.get_element_type() != openvino.Type.u8:
        return None
    transpose = _producer(to_bytes.input_value(0), "Transpose")
    if transpose is None or _constant(transpose.input_value(1)) != _TO_FRAMES:
        return None
    value, base = transpose.input_value(0), None
    while (inner := _inner(value)) is not None:
        value = inner
    if (added := _producer(value, "Add")) is not None:
        value, base = _upsampled(added)
    shuffle = _producer(value, "DepthToSpace")
    if shuffle is None or shuffle.get_attributes()["mode"] != "depth_first":
        return None
    value = shuffle.input_value(0)
    shape = value.get_shape()
    if base is not None and base.get_input_shape(0)[2:] != shape[2:]:
        return None  # the shuffled value has another size than the input
    bias = _producer(value, "Add")
    if bias is not None and list(bias.get_input_shape(1)) != [1, shape[1], 1, 1]:
        return None
    convolution = _producer(value if bias is None else bias.input_value(0), "Convolution")
    if convolution is None or not _is_private(convolution.input_value(1)):
        return None
    return _NetworkTail(convolution, bias, shuffle, base, transpose, to_bytes)


def _producer(value: Any, kind: str) -> Any:
    """Return the producer of a value with one reader, if it has the given type."""
    node = value.get_node()
    return node if _read_once(value) and node.get_type_name() == kind else None


def _read_once(value: Any) -> bool:
    """Return whether a value has exactly one reader, not counting readers of its shape."""
    readers = [each.get_node().get_type_name() for each in value.get_target_inputs()]
    return sum(each != "ShapeOf" for each in readers) == 1


def _inner(value: Any) -> Any:
    """Return the data input of an elementwise node; None for any other node."""
    node = value.get_node()
    if node.get_type_name() not in _ELEMENTWISE or not _read_once(value):
        return None
    changed = [each for each in node.input_values() if math.prod(each.get_shape()) > 1]
    return changed[0] if len(changed) == 1 else None


def _upsampled(added: Any) -> tuple[Any, Any]:
    """Return the value that the upsampled input is added to, and the upsampling node."""
    value, image = added.input_values()
    if value.get_node().get_type_name() == "Interpolate":
        value, image = image, value
    base = _producer(image, "Interpolate")
    if base is None:
        return added.output(0), None
    found = base.get_attributes()
    repeats = (found["mode"], found["coordinate_transformation_mode"], found["nearest_mode"])
    same = base.get_output_shape(0) == value.get_shape()
    usual = repeats == ("nearest", "asymmetric", "floor") and same
    return (value, base) if usual else (added.output(0), None)


def _constant(value: Any) -> list[float] | None:
    node = value.get_node()
    return node.get_data().ravel().tolist() if node.get_type_name() == "Constant" else None


def _is_private(value: Any) -> bool:
    """Return whether weights come from constants that can be reordered and have no other reader."""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        return node.get_element_type() in _NUMBERS | _SIZES
    quantizes = _read_once(value) and node.get_type_name() in _QUANTIZING
    return quantizes and all(map(_is_private, node.input_values()))


def _reorder(read: Any, order: Any) -> None:
    """Reorder the channels of weights in their constants.

    The nodes that quantize them must stay unchanged, or OpenVINO does not recognize them.
    """
    node = read.get_source_output().get_node()
    if node.get_type_name() != "Constant":
        for each in node.inputs():
            _reorder(each, order)
    elif list(node.get_output_shape(0))[:1] == [len(order)] and node.get_element_type() in _NUMBERS:
        moved = operators.constant(node.get_data()[order])
        read.replace_source_output(moved.output(0))
