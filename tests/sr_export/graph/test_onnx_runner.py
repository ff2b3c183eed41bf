"""Running a model for verification: half precision is quantized by rounding, on any release."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_export.graph import onnx_runner
from sr_export.graph.onnx_runner import OnnxRunner


@pytest.mark.parametrize("old", [False, True])
def test_half_precision_is_quantized_by_rounding(
    monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    if old:
        monkeypatch.setattr(onnx_runner, "TRUNCATES_HALF", True)
    values = np.random.default_rng(0).normal(0, 1, (1, 4, 30, 30)).astype(np.float16)
    step = np.float16(0.0131)
    graph = helper.make_graph(
        [
            helper.make_node("QuantizeLinear", ["values", "step", "zero"], ["levels"]),
            helper.make_node("DequantizeLinear", ["levels", "step", "zero"], ["result"]),
        ],
        "pair",
        [helper.make_tensor_value_info("values", TensorProto.FLOAT16, values.shape)],
        [helper.make_tensor_value_info("result", TensorProto.FLOAT16, values.shape)],
        [
            numpy_helper.from_array(np.asarray(step), "step"),
            numpy_helper.from_array(np.asarray(0, np.int8), "zero"),
        ],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=9)
    before = model.SerializeToString()
    levels = np.rint(values.astype(float) / float(step)).clip(-128, 127)
    np.testing.assert_array_equal(OnnxRunner(model)(values), (levels * step).astype(np.float16))
    assert model.SerializeToString() == before
    onnx.checker.check_model(model)
