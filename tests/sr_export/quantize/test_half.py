"""Half-typed graphs: the types that a strongly typed runtime needs, and no cast to spare."""

from __future__ import annotations

from collections import Counter
from typing import get_args

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.errors import ExportError
from sr_export import photos
from sr_export.graph import onnx_graph, pixels
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.metrics import psnr
from sr_export.quantize.half import Half, rounded_to_bf16, to_half
from tests.sr_export.quantize.nets import Net, compact

TYPES = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}


def _value_types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    return {each.name: each.type.tensor_type.elem_type for each in graph.value_info}


def _casts(model: onnx.ModelProto) -> int:
    return Counter(node.op_type for node in model.graph.node)["Cast"]


@pytest.mark.parametrize("channels", [1, 3])
def test_fp16_has_two_casts_and_no_float_but_the_resize_scales(channels: int) -> None:
    net = Net(channels).conv(8).prelu().conv(4 * channels, gain=0.1)
    net.add("DepthToSpace", blocksize=2).upscaled_input(2)
    model = to_half(pixels.wrap(net.model(), pixels.formats(channels)[0]), "fp16")
    onnx.checker.check_model(model, full_check=True)
    assert _casts(model) == 2
    assert set(_value_types(model).values()) == {TensorProto.FLOAT16}
    floats = [each for each in model.graph.initializer if each.data_type == TensorProto.FLOAT]
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    assert [each.name for each in floats] == [resize.input[2]]


def test_bf16_keeps_the_pixel_work_in_float() -> None:
    model = to_half(pixels.wrap(compact(), "rgb24"), "bf16")
    onnx.checker.check_model(model, full_check=True)
    assert _casts(model) == 4
    types = _value_types(model)
    inner = {name: kind for name, kind in types.items() if not name.startswith(onnx_graph.PREFIX)}
    assert inner.pop("input") == inner.pop("output_float") == TensorProto.FLOAT
    assert set(inner.values()) == {TensorProto.BFLOAT16}


@pytest.mark.parametrize("kind", get_args(Half))
def test_the_graph_loads_in_openvino(kind: Half) -> None:
    model = to_half(pixels.wrap(compact(), "rgb24"), kind)
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(model.SerializeToString()), "CPU")
    frames = photos.batch(1, 33, 47, 3)
    assert compiled(frames)[0].shape == (1, 66, 94, 3)


def test_the_frames_are_those_of_float32() -> None:
    wrapped = pixels.wrap(compact(), "rgb24")
    frames = photos.batch(3, 96, 96, 3)
    expected = OnnxRunner(wrapped)(frames)
    # Half precision holds 11 bits, three more than a frame.
    assert psnr(expected, OnnxRunner(to_half(wrapped, "fp16"))(frames)) > 58
    rounded = OnnxRunner(rounded_to_bf16(wrapped))(frames)
    assert 45 < psnr(expected, rounded) < 58  # 8 bits: it does show


def test_arithmetic_on_shapes_stays_exact() -> None:
    """A height of 4097 has no place in half precision; it would come out as 4096."""
    net = Net().conv(3)
    net.add("Shape", first="input", start=2, end=3).add("Cast", to=TensorProto.FLOAT)
    net.add("Mul", np.float32(1 / 4097)).join("Mul", "conv_0")
    model = to_half(pixels.wrap(net.model(), "rgb24"), "fp16")
    onnx.checker.check_model(model, full_check=True)
    assert _casts(model) == 4  # the borders, the shape to float, and its result to half
    product = next(node for node in model.graph.node if node.name == "mul_3")
    (constant,) = (each for each in model.graph.initializer if each.name == product.input[1])
    assert constant.data_type == TensorProto.FLOAT


def test_a_normalisation_computed_in_float_needs_no_cast() -> None:
    net = Net().conv(3).add("Cast", to=TensorProto.FLOAT).add("Relu")
    assert _casts(to_half(pixels.wrap(net.model(), "rgb24"), "fp16")) == 2


def test_constants_written_as_nodes_are_typed_too() -> None:
    model = Net().conv(3).add("Mul", np.float32(0.5)).model()
    constant = model.graph.initializer.pop()
    value = helper.make_node("Constant", [], [constant.name], value=constant)
    model.graph.node.insert(0, value)
    half = to_half(pixels.wrap(model, "rgb24"), "fp16")
    assert _casts(half) == 2
    assert set(_value_types(half).values()) == {TensorProto.FLOAT16}


def test_float_borders_get_casts() -> None:
    half = to_half(compact(), "fp16")
    onnx.checker.check_model(half, full_check=True)
    assert _casts(half) == 2
    image = photos.as_float(photos.batch(1, 32, 32, 3))
    difference = OnnxRunner(half)(image) - OnnxRunner(compact())(image)
    assert np.abs(difference).max() < 0.01


def test_the_original_is_left_alone() -> None:
    wrapped = pixels.wrap(compact(), "rgb24")
    before = wrapped.SerializeToString()
    to_half(wrapped, "fp16")
    to_half(wrapped, "bf16")
    rounded_to_bf16(wrapped)
    assert wrapped.SerializeToString() == before


def test_branches_are_refused() -> None:
    true = numpy_helper.from_array(np.array(True), "condition")
    branches = [
        helper.make_graph(
            [helper.make_node(operator, ["input"], [f"branch_{i}"])],
            f"branch_{i}",
            [],
            [helper.make_tensor_value_info(f"branch_{i}", TensorProto.FLOAT, None)],
        )
        for i, operator in enumerate(("Relu", "Neg"))
    ]
    model = Net().add("Relu").model()
    model.graph.initializer.append(true)
    choice = helper.make_node(
        "If", ["condition"], ["output"], then_branch=branches[0], else_branch=branches[1]
    )
    del model.graph.node[:]
    model.graph.node.append(choice)
    with pytest.raises(ExportError, match="branches at run time"):
        to_half(model, "fp16")
