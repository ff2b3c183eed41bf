"""Bringing ONNX files of any age to float32, a modern opset, and constants as initializers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, version_converter

from sr_deploy.errors import CheckpointError
from sr_export.graph import onnx_graph
from sr_export.graph.to_onnx import OPSET

if TYPE_CHECKING:
    from collections.abc import Iterator

# Required by the nodes that are added around the graph.
_OLDEST_OPSET = 13
# Up to this opset, interpolation aligned the corners of pixels instead of their centers.
_ASYMMETRIC = 10
# The first that ONNX Runtime executes.
_RUNNABLE = 7
_IR_VERSION = 8  # of opset 13 to 18
_QUANTIZED = ("QLinear", "QuantizeLinear", "DequantizeLinear", "DynamicQuantize", "QGemm")
_INTEGER = ("ConvInteger", "MatMulInteger")


def runnable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float model that ONNX Runtime executes.

    Raises:
        CheckpointError: The network is quantized, or too old.
    """
    quantized = sorted(
        {
            node.op_type
            for node in model.graph.node
            if node.op_type.startswith(_QUANTIZED) or node.op_type in _INTEGER
        }
    )
    if quantized:
        raise CheckpointError(
            f"this network is quantized ({', '.join(quantized[:3])}); export the float network "
            "that it was made from: sr-export quantizes it itself and measures the result"
        )
    if opset(model) >= _RUNNABLE:
        return model
    lifted = onnx.ModelProto()
    lifted.CopyFrom(model)
    constants = {each.name: each for each in lifted.graph.initializer}
    for node in lifted.graph.node:
        kept = [each for each in node.attribute if each.name not in ("is_test", "consumed_inputs")]
        del node.attribute[:]
        node.attribute.extend(kept)
        if node.op_type == "PRelu" and len(constants[node.input[1]].dims) == 1:
            constants[node.input[1]].dims.extend((1, 1))
    for each in lifted.opset_import:
        if each.domain in ("", "ai.onnx"):
            each.version = _RUNNABLE
    for value in lifted.graph.input:
        if value.name in constants:
            value.CopyFrom(
                onnx.helper.make_tensor_value_info(
                    value.name, constants[value.name].data_type, constants[value.name].dims
                )
            )
    try:
        onnx.checker.check_model(lifted)
    except onnx.checker.ValidationError as error:
        reason = " ".join(str(error).split())[:150]
        raise CheckpointError(
            f"its operators are of opset {opset(model)}, but 7 or newer is needed ({reason}); "
            "export it again with a newer opset"
        ) from error
    return lifted


def lifted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model in float32, of opset 13 or newer, with all constants as initializers.

    Raises:
        CheckpointError: An operator cannot be converted.
    """
    before = opset(model)
    if before < _OLDEST_OPSET:
        try:
            model = version_converter.convert_version(model, OPSET)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise CheckpointError(
                f"cannot be converted from opset {before} to {OPSET} ({reason}); export it again "
                f"with opset {OPSET}"
            ) from error
    result = onnx_graph.copied(model)
    if before <= _ASYMMETRIC:
        for node in result.graph.node:
            if node.op_type == "Resize":
                _set_asymmetric(node)
    result.ir_version = max(result.ir_version, _IR_VERSION)
    del result.graph.value_info[:]
    _widen_all(result.graph)
    return result


def opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)


def is_half(model: onnx.ModelProto) -> bool:
    """Return whether any weight, input or output is FP16."""
    values = [*model.graph.input, *model.graph.output]
    kinds = {each.type.tensor_type.elem_type for each in values}
    kinds |= {each.data_type for each in _tensors(model.graph)}
    return TensorProto.FLOAT16 in kinds


def _set_asymmetric(node: onnx.NodeProto) -> None:
    names = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    kept = [each for each in node.attribute if each.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(onnx.helper.make_attribute(key, value) for key, value in names.items())


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            if attribute.HasField("g"):
                yield from _tensors(attribute.g)


def _widen_all(graph: onnx.GraphProto) -> None:
    """Convert FP16 to FP32 everywhere; precisions are made and measured later."""
    for tensor in _tensors(graph):
        if tensor.data_type == TensorProto.FLOAT16:
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for value in (*graph.input, *graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
