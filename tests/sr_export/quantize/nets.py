"""Float graphs for the tests of precisions, each operator where real networks have it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Net:
    """A graph x -> y of NCHW images, built node by node; every node follows the last."""

    def __init__(self, channels: int = 3, seed: int = 0) -> None:
        self.channels = channels
        self._width = channels
        self._random = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self.value = "input"

    def add(
        self, operator: str, *constants: np.ndarray | None, first: str = "", **attributes: Any
    ) -> Net:
        """Append a node that reads the last value, or `first`, and constants."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        names = []
        for i, each in enumerate(constants):
            names.append(f"{name}_constant_{i}" if each is not None else "")
            if each is not None:
                self._constants.append(numpy_helper.from_array(each, names[-1]))
        self._nodes.append(
            helper.make_node(operator, [first or self.value, *names], [name], name, **attributes)
        )
        self.value = name
        return self

    def join(self, operator: str, other: str, **attributes: Any) -> Net:
        """Append a node that reads the last value and another."""
        name = f"{operator.lower()}_{len(self._nodes)}"
        node = helper.make_node(operator, [self.value, other], [name], name, **attributes)
        self._nodes.append(node)
        self.value = name
        return self

    def back_to(self, value: str, width: int) -> Net:
        """Go on from an earlier value of so many channels."""
        self.value, self._width = value, width
        return self

    def conv(self, outputs: int, *, side: int = 3, group: int = 1, gain: float = 1.0) -> Net:
        """Append a convolution with random weights that keeps the size of values."""
        shape = (outputs, self._width // group, side, side)
        weights = self._weights(shape, gain, fan=int(np.prod(shape[1:])))
        self._width = outputs
        padding = [side // 2] * 4
        bias = np.zeros(outputs, np.float32)
        return self.add("Conv", weights, bias, pads=padding, group=group)

    def transposed(self, outputs: int, *, group: int = 1) -> Net:
        """Append a transposed convolution that doubles the size."""
        shape = (self._width, outputs // group, 4, 4)
        weights = self._weights(shape, 2.0, fan=4 * self._width)
        self._width = outputs
        return self.add("ConvTranspose", weights, strides=[2, 2], pads=[1] * 4, group=group)

    def prelu(self) -> Net:
        """Append a PReLU."""
        return self.add("PRelu", np.full((self._width, 1, 1), 0.2, np.float32))

    def upscaled_input(self, scale: float) -> Net:
        """Add the enlarged input, as residual networks do."""
        branch, self.value = self.value, "input"
        sizes = np.array([1, 1, scale, scale], np.float32)
        self.add("Resize", None, sizes, mode="nearest")
        return self.join("Add", branch)

    def model(self) -> onnx.ModelProto:
        """Return the graph."""
        shapes = (
            ["batch", self.channels, "height", "width"],
            ["batch", "planes", "rows", "columns"],
        )
        self._nodes[-1].output[0] = "output"
        source, result = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(("input", "output"), shapes, strict=True)
        )
        graph = helper.make_graph(self._nodes, "net", [source], [result], self._constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.checker.check_model(model, full_check=True)
        return model

    def _weights(self, shape: tuple[int, ...], gain: float, fan: int) -> np.ndarray:
        values = self._random.standard_normal(shape).astype(np.float32)
        return values * np.float32(gain / np.sqrt(fan))


def compact(convolutions: int = 4, features: int = 16) -> onnx.ModelProto:
    """A small network x2 like those that people train: PReLU, pixel shuffle, a long skip."""
    net = Net().conv(features).prelu()
    for _ in range(convolutions - 2):
        net.conv(features).prelu()
    net.conv(12, gain=0.1).add("DepthToSpace", blocksize=2, mode="CRD").upscaled_input(2)
    return net.model()
