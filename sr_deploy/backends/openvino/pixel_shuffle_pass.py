"""Shuffles bytes by rows where an INT8 network shuffles floats one by one.

A network that ends in a pixel shuffle makes the pixels of each block as channels. In a file, floats
are shuffled, added to the enlarged image, scaled, clipped, rounded and made bytes. All but the
shuffle looks at one value at a time, so that here it comes before, and a quarter is moved. And a
convolution that makes a block's channels in the order of a frame makes whole pieces of its rows.

The file is not written like that because TensorRT takes bytes only at the ends of a network.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import openvino
from openvino import opset8 as operators

_TO_FRAMES = [0, 2, 3, 1]
_EACH_BY_ITSELF = {"Clamp", "Convert", "Maximum", "Minimum", "Multiply", "Round"}
_QUANTISES = {"Convert", "FakeQuantize", "Multiply", "Reshape", "Subtract"}
_NUMBERS = {openvino.Type.f32, openvino.Type.f16, openvino.Type.i8}
_SIZES = {openvino.Type.i32, openvino.Type.i64}


class _Tail(NamedTuple):
    """How a network ends."""

    convolution: Any
    bias: Any
    """The addition of it; None: there is none."""
    shuffle: Any
    base: Any
    """What enlarges the image that is added; None: nothing is."""
    transpose: Any
    """From channels to frames."""
    to_bytes: Any


def shuffle_bytes(model: Any) -> None:
    """Rewrite a model of one shape in place; what is not recognised stays as it is."""
    tail = _recognised(model)
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
    # Blocks are cut into their rows, and the rows of all blocks beside each other are one.
    blocks = _shaped(frames, -1, width // side, side, side * channels)
    pieces = operators.split(blocks, 2, side).outputs()
    rows = operators.concat([_shaped(each, -1, 1, width * channels) for each in pieces], 1)
    result = _shaped(rows, count, height, width, channels)
    tail.to_bytes.output(0).replace(result.output(0))
    model.validate_nodes_and_infer_types()


def _shaped(value: Any, *shape: int) -> Any:
    return operators.reshape(value, np.array(shape), special_zero=False)


def _recognised(model: Any) -> _Tail | None:
    """Return how a network ends, if it is with a pixel shuffle and what may come before that."""
    to_bytes = model.get_results()[0].input_value(0).get_node()
    if to_bytes.get_type_name() != "Convert" or to_bytes.get_element_type() != openvino.Type.u8:
        return None
    transpose = _made_by(to_bytes.input_value(0), "Transpose")
    if transpose is None or _constant(transpose.input_value(1)) != _TO_FRAMES:
        return None
    value, base = transpose.input_value(0), None
    while (inner := _inner(value)) is not None:
        value = inner
    if (added := _made_by(value, "Add")) is not None:
        value, base = _enlarged(added)
    shuffle = _made_by(value, "DepthToSpace")
    if shuffle is None or shuffle.get_attributes()["mode"] != "depth_first":
        return None
    value = shuffle.input_value(0)
    shape = value.get_shape()
    if base is not None and base.get_input_shape(0)[2:] != shape[2:]:
        return None  # what is shuffled is not of the size of the image
    bias = _made_by(value, "Add")
    if bias is not None and list(bias.get_input_shape(1)) != [1, shape[1], 1, 1]:
        return None
    convolution = _made_by(value if bias is None else bias.input_value(0), "Convolution")
    if convolution is None or not _private(convolution.input_value(1)):
        return None
    return _Tail(convolution, bias, shuffle, base, transpose, to_bytes)


def _made_by(value: Any, kind: str) -> Any:
    """Return the node that makes a value that nobody else reads, if it is of a kind."""
    node = value.get_node()
    return node if _read_once(value) and node.get_type_name() == kind else None


def _read_once(value: Any) -> bool:
    """Tell whether just one node reads a value, beside those that only want its shape."""
    readers = [each.get_node().get_type_name() for each in value.get_target_inputs()]
    return sum(each != "ShapeOf" for each in readers) == 1


def _inner(value: Any) -> Any:
    """Return what a node changes that looks at each value by itself; None: it is no such node."""
    node = value.get_node()
    if node.get_type_name() not in _EACH_BY_ITSELF or not _read_once(value):
        return None
    changed = [each for each in node.input_values() if math.prod(each.get_shape()) > 1]
    return changed[0] if len(changed) == 1 else None


def _enlarged(added: Any) -> tuple[Any, Any]:
    """Return what an image is added to, and the node that repeats its pixels for that."""
    value, image = added.input_values()
    if value.get_node().get_type_name() == "Interpolate":
        value, image = image, value
    base = _made_by(image, "Interpolate")
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


def _private(value: Any) -> bool:
    """Tell whether weights are made of constants that can be reordered, and are nobody else's."""
    node = value.get_node()
    if node.get_type_name() == "Constant":
        return node.get_element_type() in _NUMBERS | _SIZES
    quantises = _read_once(value) and node.get_type_name() in _QUANTISES
    return quantises and all(map(_private, node.input_values()))


def _reorder(read: Any, order: Any) -> None:
    """Have an input read weights in another order of channels, from the constants on.

    What quantises them must stay as it is, or OpenVINO does not know it for that.
    """
    node = read.get_source_output().get_node()
    if node.get_type_name() != "Constant":
        for each in node.inputs():
            _reorder(each, order)
    elif list(node.get_output_shape(0))[:1] == [len(order)] and node.get_element_type() in _NUMBERS:
        moved = operators.constant(node.get_data()[order])
        read.replace_source_output(moved.output(0))
