"""INT8 where the plan says: at the inputs and weights of convolutions, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import openvino
import pytest
from onnx import TensorProto, numpy_helper

from sr_export import photos
from sr_export.graph import pixels
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.metrics import psnr
from sr_export.quantize.half import to_half
from sr_export.quantize.placement import Layer, layers, quantize
from tests.sr_export.quantize.nets import Net, compact


def _thresholds(model: onnx.ModelProto, found: tuple[Layer, ...]) -> dict[str, float]:
    """The largest value that the input of each layer takes on a photo."""
    looked = onnx.ModelProto()
    looked.CopyFrom(model)
    image = photos.as_float(
        photos.batch(1, 64, 64, model.graph.input[0].type.tensor_type.shape.dim[1].dim_value)
    )
    thresholds = {}
    for each in found:
        if each.input == "input":
            thresholds["input"] = 1.0
            continue
        del looked.graph.output[:]
        looked.graph.output.append(onnx.helper.make_tensor_value_info(each.input, 1, None))
        thresholds[each.input] = float(np.abs(OnnxRunner(looked)(image)).max())
    return thresholds


def test_only_convolutions_that_gain_are_layers() -> None:
    net = Net().conv(8).conv(8, group=8).conv(8, group=2).transposed(8).transposed(8, group=2)
    net.add("MatMul", np.eye(64, dtype=np.float32))
    found = [each.name for each in layers(net.model())]
    # Not the depthwise one, the grouped transposed one and the matrix product.
    assert found == ["conv_0", "conv_2", "convtranspose_3"]


def test_convolutions_of_two_images_are_no_layers() -> None:
    """Weights that the network computes, as dynamic filters have, are left alone."""
    net = Net().conv(3).join("Conv", "input")
    assert [each.name for each in layers(net.model())] == ["conv_0"]


@pytest.mark.parametrize(("stride", "expected"), [(1, 8 * 9), (2, 8 * 9 / 4)])
def test_cost_is_counted_per_value_of_the_input(stride: int, expected: float) -> None:
    net = Net().add("Conv", np.ones((8, 3, 3, 3), np.float32), pads=[1] * 4, strides=[stride] * 2)
    (layer,) = layers(net.model())
    assert layer.multiply_adds_per_value == expected


def test_cost_of_a_transposed_convolution() -> None:
    (layer,) = layers(Net().transposed(8).model())
    assert layer.multiply_adds_per_value == 8 * 4 * 4


def test_pairs_are_at_inputs_and_weights_alone() -> None:
    model = compact()
    found = layers(model)
    result = quantize(model, found[1:-1], _thresholds(model, found))
    onnx.checker.check_model(result, full_check=True)
    makers = {node.output[0]: node for node in result.graph.node}
    chosen = {each.name for each in found[1:-1]}
    for node in result.graph.node:
        reads = [makers[name].op_type if name in makers else "" for name in node.input]
        if node.name in chosen:
            assert reads == ["DequantizeLinear", "DequantizeLinear", ""]  # the bias is exact
        elif node.op_type == "DequantizeLinear":
            assert reads[0] == "QuantizeLinear"
        else:
            assert "DequantizeLinear" not in reads
    # One pair for each input and each weight.
    pairs = [node for node in result.graph.node if node.op_type == "QuantizeLinear"]
    assert len(pairs) == 2 * len(chosen)


def test_scales_are_symmetric_per_output_channel_and_fit_half() -> None:
    net = Net().conv(8).transposed(12)
    model = net.model()
    weights = numpy_helper.to_array(model.graph.initializer[0]).copy()
    weights[3] = 0  # a channel that was pruned away
    weights[4] *= 1e-6
    model.graph.initializer[0].CopyFrom(
        numpy_helper.from_array(weights, model.graph.initializer[0].name)
    )
    found = layers(model)
    result = quantize(model, found, _thresholds(model, found))
    constants = {each.name: each for each in result.graph.initializer}
    axes = {}
    for node in result.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:])
            assert zero.dtype == np.int8
            assert not zero.any()
            assert (scale == scale.astype(np.float16)).all()
            assert (scale >= np.finfo(np.float16).smallest_normal).all()
            if node.attribute:
                axes[scale.size] = node.attribute[0].i
    assert axes == {8: 0, 12: 1}


def test_a_value_read_twice_is_quantised_once() -> None:
    net = Net().conv(8, side=1)
    net.conv(8).back_to("conv_0", 8).conv(8).join("Add", "conv_1")
    model = net.model()
    found = layers(model)
    assert [each.input for each in found] == ["input", "conv_0", "conv_0"]
    result = quantize(model, found, _thresholds(model, found))
    quantisers = [n.input[0] for n in result.graph.node if n.op_type == "QuantizeLinear"]
    assert quantisers.count("conv_0") == 1


@pytest.mark.parametrize(
    "net",
    [
        Net().conv(16).prelu().conv(16).prelu().conv(3),
        Net().conv(16).conv(16, group=4).conv(3),
        Net().conv(16).prelu().transposed(3),
        Net(1).conv(16).prelu().conv(1),
    ],
    ids=["plain", "grouped", "transposed", "gray"],
)
def test_the_picture_is_kept(net: Net) -> None:
    """With exact ranges, a few layers in INT8 lose what 8 bits a value must lose, and no more."""
    net.add("Mul", np.float32(0.2)).add("Add", np.float32(0.5))
    model = net.model()
    found = layers(model)
    result = quantize(model, found, _thresholds(model, found))
    image = photos.as_float(photos.batch(1, 64, 64, net.channels))
    expected, exact = OnnxRunner(result)(image), OnnxRunner(model)(image)
    assert 35 < psnr(exact, expected, peak=1.0) < 75


def test_openvino_quantises_after_a_concatenation() -> None:
    """Dense blocks: a quantizer that OpenVINO moves before the concatenation loses two bits."""
    net = Net().conv(16).add("LeakyRelu", alpha=0.2)
    net.join("Concat", "input", axis=1).back_to("concat_2", 19).conv(16).conv(3, gain=0.1)
    net.add("Add", np.float32(0.5))
    model = net.model()
    found = layers(model)[1:2]
    assert [each.input for each in found] == ["concat_2"]
    wrapped = pixels.wrap(quantize(model, found, _thresholds(model, found)), "rgb24")
    frames = photos.batch(1, 64, 64, 3)
    core = openvino.Core()
    compiled = core.compile_model(
        core.read_model(wrapped.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    # Only values at the middle between two levels may be rounded otherwise.
    assert psnr(OnnxRunner(wrapped)(frames), compiled(frames)[0]) > 65


def test_the_rest_in_half_is_strongly_typed() -> None:
    model = compact()
    found = layers(model)
    wrapped = pixels.wrap(quantize(model, found, _thresholds(model, found)), "rgb24")
    half = to_half(wrapped, "fp16")
    onnx.checker.check_model(half, full_check=True)
    graph = onnx.shape_inference.infer_shapes(half, strict_mode=True).graph
    kinds = {each.type.tensor_type.elem_type for each in graph.value_info}
    assert kinds == {TensorProto.FLOAT16, TensorProto.INT8}
    assert sum(node.op_type == "Cast" for node in half.graph.node) == 2
    frames = photos.batch(2, 64, 64, 3)
    assert psnr(OnnxRunner(wrapped)(frames), OnnxRunner(half)(frames)) > 55
