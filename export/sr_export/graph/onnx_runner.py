"""Running an ONNX model in memory with ONNX Runtime, for verification and measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.backends.onnxruntime.version import TRUNCATES_HALF
from sr_deploy.errors import ExportError
from sr_deploy.machine import cores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np


class OnnxSession:
    """Runs a model with any number of inputs and outputs."""

    def __init__(self, model: onnx.ModelProto | Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised as exceptions anyway
        options.intra_op_num_threads = cores()
        if TRUNCATES_HALF:
            model = _with_float_quantizers(model)
        source = model.SerializeToString() if isinstance(model, onnx.ModelProto) else str(model)
        try:
            self._session = ort.InferenceSession(source, options, ["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot load the graph: {error}") from error
        self.inputs = [each.name for each in self._session.get_inputs()]
        self.outputs = [each.name for each in self._session.get_outputs()]

    def run(
        self, values: Mapping[str, np.ndarray[Any, Any]], names: Sequence[str] | None = None
    ) -> list[Any]:
        """Return the outputs of these names, or all, for inputs by name.

        Raises:
            ExportError: ONNX Runtime failed.
        """
        try:
            found: list[Any] = self._session.run(names, dict(values))
        except Exception as error:
            raise ExportError(str(error)) from error
        return found


class OnnxRunner:
    """Runs a model with one output: arrays in, one array out."""

    def __init__(self, model: onnx.ModelProto | Path) -> None:
        self._session = OnnxSession(model)

    def __call__(self, *arrays: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Run the model.

        Raises:
            ExportError: ONNX Runtime failed.
        """
        (output,) = self._session.run(dict(zip(self._session.inputs, arrays, strict=True)))
        result: np.ndarray[Any, Any] = output
        return result


def _with_float_quantizers(model: onnx.ModelProto | Path) -> onnx.ModelProto:
    """Return the model with every FP16 QuantizeLinear in FP32, which all releases round right."""
    rewritten = onnx.ModelProto()
    rewritten.CopyFrom(model if isinstance(model, onnx.ModelProto) else onnx.load(model))
    graph = rewritten.graph
    halves = {
        each.name: each for each in graph.initializer if each.data_type == TensorProto.FLOAT16
    }
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        if node.op_type == "QuantizeLinear" and node.input[1] in halves:
            value, scale = f"{node.output[0]}_fp32", f"{node.output[0]}_scale"
            step = numpy_helper.to_array(halves[node.input[1]]).astype("float32")
            graph.initializer.append(numpy_helper.from_array(step, scale))
            nodes.append(helper.make_node("Cast", [node.input[0]], [value], to=TensorProto.FLOAT))
            node.input[0], node.input[1] = value, scale
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return rewritten
