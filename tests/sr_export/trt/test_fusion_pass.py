from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_export import photos
from sr_export.trt.fusion_pass import fusible
from tests.sr_export.trt.bundles import graphs
from tests.sr_export.trt.test_cast_pass import run

_EXTREMES = np.array([-np.inf, -3e38, -1.5, -1e-40, -0.0, 0.0, 1e-40, 0.7, 3e38, np.inf])


def _prelu(slope: np.ndarray, kind: int = TensorProto.FLOAT) -> bytes:
    """Return a network that is one PRelu, of a type."""
    source, result = (
        helper.make_tensor_value_info(name, kind, ["n", 4, "h", "w"]) for name in ("x", "y")
    )
    constant = numpy_helper.from_array(slope, "slope")
    node = helper.make_node("PRelu", ["x", "slope"], ["y"], "prelu")
    graph = helper.make_graph([node], "prelu", [source], [result], [constant])
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


def _operators(model: bytes) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load_from_string(model).graph.node)


@pytest.mark.parametrize(
    ("slopes", "operators"),
    [
        ([0.25, -0.5, 1.0, 0.1], {"Mul": 1, "Max": 1}),
        ([0.25, -0.5, 1.5, 2.0], {"Min": 1, "Mul": 1, "Max": 1, "Add": 1}),
    ],
)
@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_prelu_is_bit_identical(
    slopes: list[float], operators: dict[str, int], kind: type[np.floating]
) -> None:
    proto = TensorProto.FLOAT if kind is np.float32 else TensorProto.FLOAT16
    model = _prelu(np.array(slopes, kind).reshape(4, 1, 1), proto)
    random = np.random.default_rng(0).standard_normal((2, 4, 31, 17))
    with np.errstate(over="ignore"):
        extremes = np.broadcast_to(_EXTREMES, (2, 4, 31, 10)).astype(kind)
    image = np.concatenate([random.astype(kind), extremes], axis=3)
    rewritten = fusible(model)

    onnx.checker.check_model(onnx.load_from_string(rewritten), full_check=True)
    assert _operators(rewritten) == operators
    # Not ONNX Runtime's own PRelu: old releases return NaN for infinity.
    with np.errstate(over="ignore"):
        falling = np.array(slopes, kind).reshape(4, 1, 1) * image
    np.testing.assert_array_equal(run(rewritten, x=image), np.where(image < 0, falling, image))


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_whole_network_is_bit_identical(precision: str) -> None:
    graph = graphs()[precision]
    model = graph.SerializeToString()
    rewritten = fusible(model)

    assert "PRelu" in _operators(model)
    assert "PRelu" not in _operators(rewritten)
    frames = photos.batch(1, 40, 56, 3)
    np.testing.assert_array_equal(run(rewritten, pixels=frames), run(model, pixels=frames))


def test_transposed_convolutions_are_not_quantized() -> None:
    constants = {
        "w1": np.ones((4, 4, 1, 1), np.float32),
        "w2": np.ones((4, 4, 2, 2), np.float32),
        "scale": np.float32(0.5),
        "zero": np.int8(0),
    }
    nodes = []
    for name in ("x", "w1", "w2", "c"):
        if name == "c":
            nodes.append(helper.make_node("Conv", ["x_d", "w1_d"], ["c"], "conv"))
        for operator, source, target in (
            ("QuantizeLinear", name, f"{name}_q"),
            ("DequantizeLinear", f"{name}_q", f"{name}_d"),
        ):
            nodes.append(helper.make_node(operator, [source, "scale", "zero"], [target]))
    # The convolution and the transposed one share a pair.
    nodes.append(helper.make_node("ConvTranspose", ["c_d", "w2_d"], ["t"], "up", strides=[2, 2]))
    nodes.append(helper.make_node("ConvTranspose", ["x_d", "w2_d"], ["u"], "up2", strides=[2, 2]))
    nodes.append(helper.make_node("Add", ["t", "u"], ["y"]))
    source, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4, "h", "w"])
        for name in ("x", "y")
    )
    held = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "up", [source], [result], held)
    opset = [helper.make_opsetid("", 19)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()

    rewritten = fusible(model)

    onnx.checker.check_model(onnx.load_from_string(rewritten), full_check=True)
    found = onnx.load_from_string(rewritten).graph.node
    assert [list(each.input) for each in found if each.op_type == "ConvTranspose"] == [
        ["c", "w2"],
        ["x", "w2"],
    ]
    # Those of the convolution stay.
    assert _operators(rewritten)["QuantizeLinear"] == 2
    assert _operators(rewritten)["DequantizeLinear"] == 2
    image = np.random.default_rng(0).standard_normal((1, 4, 5, 6)).astype(np.float32)
    assert run(rewritten, x=image).shape == (1, 4, 10, 12)
