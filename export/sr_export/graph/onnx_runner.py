"""Running an ONNX model in memory with ONNX Runtime, for verification and measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnxruntime as ort

from sr_deploy.errors import ExportError
from sr_deploy.machine import cores

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import onnx


class OnnxSession:
    """Runs a model with any number of inputs and outputs."""

    def __init__(self, model: onnx.ModelProto | Path) -> None:
        options = ort.SessionOptions()
        options.log_severity_level = 4  # errors are raised as exceptions anyway
        options.intra_op_num_threads = cores()
        source = model.SerializeToString() if hasattr(model, "SerializeToString") else str(model)
        try:
            self._session = ort.InferenceSession(source, options, ["CPUExecutionProvider"])
        except Exception as error:
            raise ExportError(f"ONNX Runtime cannot load the graph: {error}") from error
        self.inputs = [each.name for each in self._session.get_inputs()]
        self.outputs = [each.name for each in self._session.get_outputs()]

    def run(self, values: Mapping[str, np.ndarray[Any, Any]]) -> list[Any]:
        """Return all outputs for inputs by name.

        Raises:
            ExportError: ONNX Runtime failed.
        """
        try:
            found: list[Any] = self._session.run(None, dict(values))
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
