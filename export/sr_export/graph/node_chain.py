"""Nodes for the borders of a graph, one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from numpy.typing import NDArray

PREFIX = "pixels_"
"""Of the names of all nodes that work on pixels, around the network."""
EXACT = f"{PREFIX}exact_"
"""Of those that stay in float32 whatever the precision of the network."""


class NodeChain:
    """Nodes that follow one another, each taking the output of the last.

    Args:
        value: What the first takes.
        prefix: Of the names of the nodes.
    """

    def __init__(self, value: str, prefix: str = PREFIX) -> None:
        self.value = value
        self._stem = f"{prefix}{value}_"
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *constants: NDArray[Any], **attributes: Any) -> str:
        """Append a node whose further inputs are constants."""
        self.value = self.join(operator, [self.value, *map(self.constant, constants)], **attributes)
        return self.value

    def join(self, operator: str, inputs: Sequence[str], **attributes: Any) -> str:
        """Append a node with any inputs; return its output."""
        output = f"{self._stem}{len(self.nodes)}_{operator.lower()}"
        self.nodes.append(
            helper.make_node(operator, list(inputs), [output], name=output, **attributes)
        )
        return output

    def constant(self, value: object) -> str:
        """Add a constant; return its name."""
        name = f"{self._stem}constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def indices(self, *values: int) -> str:
        """Add a constant of whole numbers, such as axes or a shape; return its name."""
        return self.constant(np.array(values, np.int64))
