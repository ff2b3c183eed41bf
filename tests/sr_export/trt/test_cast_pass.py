from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.bundle.protobuf import Message
from sr_deploy.errors import BackendError, BundleError
from sr_export import photos
from sr_export.metrics import psnr
from sr_export.trt import cast_pass
from tests.sr_export.trt.bundles import graphs


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: graph.SerializeToString() for name, graph in graphs().items()}


def run(model: bytes, **feeds: Any) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    feeds = feeds or {"pixels": photos.batch(2, 33, 47, 3)}
    (result,) = session.run(None, feeds)
    return np.asarray(result)


def constants(model: bytes) -> set[str]:
    graph = onnx.load_from_string(model).graph
    return {TensorProto.DataType.Name(each.data_type) for each in graph.initializer}


def opset(model: bytes) -> int:
    return onnx.load_from_string(model).opset_import[0].version


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_unchanged_fields_stay_bit_identical(files: dict[str, bytes], precision: str) -> None:
    model = files[precision]
    assert Message.read(model).to_bytes() == model


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_lowered_files_are_valid_and_compute_the_same(
    files: dict[str, bytes], precision: str
) -> None:
    model = files[precision]
    lowered = cast_pass.lowered(model)

    onnx.checker.check_model(onnx.load_from_string(lowered), full_check=True)
    assert opset(lowered) == 17
    assert constants(lowered) <= {"FLOAT", "INT8", "INT64"}  # INT64: how much is padded
    # Half precision rounds activations, INT8 then falls on other sides of its steps.
    assert psnr(run(model), run(lowered)) > (45 if precision == "int8" else 58)


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_mixed_files_are_valid_and_keep_their_convolutions(
    files: dict[str, bytes], precision: str
) -> None:
    model = files[precision]
    mixed = cast_pass.mixed(model)

    onnx.checker.check_model(onnx.load_from_string(mixed), full_check=True)
    narrow = {"fp16": "FLOAT16", "int8": "INT8"}[precision]
    assert {"FLOAT", narrow} == constants(mixed) - {"INT64"}  # how much is padded
    assert opset(mixed) == opset(model)
    assert psnr(run(model), run(mixed)) > 45
    graph = onnx.shape_inference.infer_shapes(onnx.load_from_string(mixed)).graph
    types = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    between = [node for node in graph.node if node.op_type in ("Add", "PRelu", "Clip", "Round")]
    assert len(between) == 4
    assert {types[node.output[0]] for node in between} == {TensorProto.FLOAT}


def test_the_half_types_of_a_file(files: dict[str, bytes]) -> None:
    assert cast_pass.halves(files["fp32"]) == set()
    assert cast_pass.halves(files["int8"]) == {"fp16"}


def one_node(
    operator: str, inputs: list[str], held: dict[str, np.ndarray], version: int, **attributes: Any
) -> bytes:
    """Return a model `x` -> `y` of a single node."""
    shape = ["n", 2, "h", "w"]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"], operator.lower(), **attributes)],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * 4)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    opsets = [helper.make_opsetid("", version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


@pytest.mark.parametrize("axes", [[2, 3], [-1, -2]])
@pytest.mark.parametrize("raw", [True, False])
def test_axes_of_reductions_become_an_attribute(axes: list[int], raw: bool) -> None:
    model = onnx.load_from_string(
        one_node("ReduceMean", ["x", "axes"], {"axes": np.array(axes)}, 18, keepdims=1)
    )
    if not raw:
        model.graph.initializer[0].CopyFrom(
            helper.make_tensor("axes", TensorProto.INT64, [len(axes)], axes)
        )
    content = model.SerializeToString()
    x = np.random.default_rng(0).random((1, 2, 5, 6), np.float32)

    lowered = cast_pass.lowered(content)

    onnx.checker.check_model(onnx.load_from_string(lowered))
    assert np.array_equal(run(content, x=x), run(lowered, x=x))


def test_reductions_lose_their_flag_of_opset_18() -> None:
    held = {"axes": np.array([2, 3])}
    model = one_node("ReduceMean", ["x", "axes"], held, 18, noop_with_empty_axes=0)
    lowered = cast_pass.lowered(model)
    onnx.checker.check_model(onnx.load_from_string(lowered), full_check=True)

    over_all = one_node("ReduceMean", ["x"], {}, 18, noop_with_empty_axes=0)
    onnx.checker.check_model(onnx.load_from_string(cast_pass.lowered(over_all)))
    over_none = one_node("ReduceMean", ["x"], {}, 18, noop_with_empty_axes=1)
    with pytest.raises(BackendError, match="ReduceMean"):
        cast_pass.lowered(over_none)


def test_sums_keep_their_axes_as_an_input() -> None:
    # ReduceSum has had them there since opset 13.
    model = one_node("ReduceSum", ["x", "axes"], {"axes": np.array([2, 3])}, 18)
    lowered = cast_pass.lowered(model)
    onnx.checker.check_model(onnx.load_from_string(lowered))
    assert len(onnx.load_from_string(lowered).graph.node[0].input) == 2


@pytest.mark.parametrize(
    ("attributes", "named"),
    [({"antialias": 1}, "antialias"), ({"keep_aspect_ratio_policy": "not_larger"}, "aspect")],
)
def test_features_of_opset_18_are_rejected(attributes: dict[str, Any], named: str) -> None:
    held = {"scales": np.float32([1, 1, 2, 2])}
    model = one_node("Resize", ["x", "", "scales"], held, 18, mode="linear", **attributes)
    with pytest.raises(BackendError, match=named):
        cast_pass.lowered(model)


def test_pad_with_axes_is_rejected() -> None:
    held = {"pads": np.array([1, 1]), "zero": np.float32(0), "axes": np.array([2])}
    model = one_node("Pad", ["x", "pads", "zero", "axes"], held, 18)
    with pytest.raises(BackendError, match="Pad with axes"):
        cast_pass.lowered(model)


@pytest.mark.parametrize("kind", [TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize("raw", [True, False])
def test_halves_keep_their_values_in_fp32(kind: int, raw: bool) -> None:
    values = [0.0, -1.5, 0.333251953125, 65280.0]
    tensor = helper.make_tensor("c", kind, [4], values)
    if raw:
        array = numpy_helper.to_array(tensor)
        tensor = helper.make_tensor("c", kind, [4], array.tobytes(), raw=True)
    graph = helper.make_graph([], "g", [], [], [tensor])
    model = helper.make_model(graph).SerializeToString()

    (found,) = onnx.load_from_string(cast_pass.widened(model)).graph.initializer

    expected = numpy_helper.to_array(tensor).astype(np.float32)
    assert np.array_equal(numpy_helper.to_array(found), expected)


@pytest.mark.parametrize("data", [b"\x3a\xff", b"\x0b", b"\xff" * 12, b"\x3a\x05ab"])
def test_an_invalid_onnx_file_is_an_error(data: bytes) -> None:
    with pytest.raises(BundleError, match="ONNX"):
        Message.read(data)
