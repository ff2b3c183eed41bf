"""Converting a float graph to half precision or bfloat16, with casts only at its borders.

TensorRT 11 computes in the types of the graph, so the graph must be typed. Values that depend on
the image become half. Values computed from shapes stay float, because half precision cannot
represent a height of 4097. A cast joins the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.errors import ExportError
from sr_export.graph import onnx_graph, pixels

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

    from sr_deploy.bundle.manifest import PixelFormat

Half = Literal["fp16", "bf16"]

# The largest FP16 number; a larger activation becomes infinite, and the image black.
LARGEST_FP16 = 65504.0

_TYPES: dict[Half, tuple[int, DTypeLike]] = {
    "fp16": (TensorProto.FLOAT16, np.float16),
    "bf16": (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
}
# The first opset with bfloat16 convolutions. It also changed these operators in other ways.
_BF16_OPSET = 22
_CHANGED_SINCE = {"DFT", "GridSample", "GroupNormalization"}
# Inputs that are float32 in the ONNX standard, whatever the type of the data.
_ALWAYS_FLOAT = {("Resize", 2), ("Upsample", 1)}
_TO = {"bf16": TensorProto.BFLOAT16, "float": TensorProto.FLOAT}


def to_half(model: onnx.ModelProto, kind: Half) -> onnx.ModelProto:
    """Return a copy of a float32 graph whose image data has a half type.

    The pixel conversion around a bfloat16 network stays in float32: bfloat16 has 8 significant bits
    and cannot distinguish white from the levels next to it. So does YUV conversion, whose values
    have up to 10 bits and are multiplied by a matrix.

    Args:
        model: Float32; inputs and outputs may be bytes.
        kind: The type.

    Raises:
        ExportError: The graph has branches or operators without support for the type.
    """
    copy = onnx_graph.copied(model)
    branch = onnx_graph.first_branch(copy.graph)
    if branch is not None:
        raise ExportError(f"the graph branches at run time ({branch})")
    if kind == "bf16":
        changed = _CHANGED_SINCE.intersection(node.op_type for node in copy.graph.node)
        if changed:
            raise ExportError(f"{', '.join(sorted(changed))} has no bfloat16 version")
        onnx_graph.raise_opset(copy, _BF16_OPSET)
    _Conversion(copy, kind).run()
    onnx.checker.check_model(copy)
    return copy


def rounded_to_bf16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a float32 graph that rounds like bfloat16, for runtimes without bfloat16.

    Every weight and every intermediate result is rounded. Hardware that accumulates in float32 and
    fuses operators rounds less often, so this is a lower bound of the quality.
    """
    copy = onnx_graph.copied(model)
    graph = copy.graph
    floats = onnx_graph.floats(copy)
    rounded = floats - onnx_graph.shape_values(graph)
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        border = node.name.startswith(onnx_graph.PREFIX)
        results = [] if border else [each for each in node.output if each in rounded]
        for i, name in enumerate(node.output):
            if name in results:
                node.output[i] = f"{name}_exact"
        nodes.append(node)
        for name in results:
            steps = ((f"{name}_exact", f"{name}_bf16", "bf16"), (f"{name}_bf16", name, "float"))
            nodes += [
                helper.make_node("Cast", [source], [target], f"{target}_rounded", to=_TO[kind])
                for source, target, kind in steps
            ]
    del graph.node[:]
    graph.node.extend(nodes)
    for constant in graph.initializer:
        if constant.name in floats and not constant.name.startswith(onnx_graph.EXACT):
            values = numpy_helper.to_array(constant)
            values = values.astype(ml_dtypes.bfloat16).astype(np.float32)
            constant.CopyFrom(numpy_helper.from_array(values, constant.name))
    return copy


class _Conversion:
    """Converts one graph in place."""

    def __init__(self, model: onnx.ModelProto, kind: Half) -> None:
        self._graph = model.graph
        self._kind = kind
        self._type, self._dtype = _TYPES[kind]
        self._shapes = onnx_graph.shape_values(self._graph)
        self._floats = onnx_graph.floats(model)
        self._constants = {each.name: each for each in self._graph.initializer}
        self._nodes: list[onnx.NodeProto] = []
        self._half: set[str] = set()
        """Names of values that are half now."""
        self._other: dict[str, str] = {}
        """Names of values and constants, and of their copies in the other type."""

    def run(self) -> None:
        """Convert the graph."""
        del self._graph.value_info[:]  # its types become wrong
        for node in list(self._graph.node):
            halve = self._halved(node)
            for i, name in enumerate(node.input):
                if name in self._floats and node.op_type not in onnx_graph.SHAPES:
                    always = (node.op_type, i) in _ALWAYS_FLOAT
                    node.input[i] = self._typed(name, halve and not always)
            if halve:
                self._retype(node)
            self._nodes.append(node)
        for value in self._graph.output:
            self._restore(value.name)
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        onnx_graph.drop_unused(self._graph)

    def _halved(self, node: onnx.NodeProto) -> bool:
        border = node.name.startswith(
            onnx_graph.PREFIX if self._kind == "bf16" else onnx_graph.EXACT
        )
        return not border and not self._shapes.issuperset(node.output)

    def _retype(self, node: onnx.NodeProto) -> None:
        """Change the results of a node to half."""
        self._half.update(self._floats.intersection(node.output))
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = self._type
                if node.input[0] in self._half:
                    # Its input is half already, as for a normalization computed in float32.
                    node.op_type = "Identity"
                    del node.attribute[:]
                    return
            if attribute.HasField("t") and attribute.t.data_type == TensorProto.FLOAT:
                attribute.t.CopyFrom(self._halved_constant(attribute.t, attribute.t.name))

    def _typed(self, name: str, half: bool) -> str:
        """Return the name of a float value in half or in float32, adding a cast if needed."""
        if half == (name in self._half):
            return name
        if name not in self._other:
            self._other[name] = f"{name}_{self._kind if half else 'float'}"
            if name in self._constants:
                halved = self._halved_constant(self._constants[name], self._other[name])
                self._graph.initializer.append(halved)
            else:
                self._cast(name, self._other[name], self._type if half else TensorProto.FLOAT)
        return self._other[name]

    def _cast(self, source: str, target: str, kind: int) -> None:
        self._nodes.append(helper.make_node("Cast", [source], [target], f"{target}_cast", to=kind))

    def _halved_constant(self, constant: onnx.TensorProto, name: str) -> onnx.TensorProto:
        with np.errstate(over="ignore"):  # -inf masks; a real overflow fails the acceptance check
            return numpy_helper.from_array(
                numpy_helper.to_array(constant).astype(self._dtype), name
            )

    def _restore(self, output: str) -> None:
        """Cast an output of the graph back to float32 if it is half."""
        if output not in self._half:
            return
        inner = f"{output}_{self._kind}"
        for node in self._nodes:
            for names in (node.input, node.output):
                for i, name in enumerate(names):
                    if name == output:
                        names[i] = inner
        self._cast(inner, output, TensorProto.FLOAT)


@dataclass(frozen=True)
class VariantRecipe:
    """How the graph of a precision is built, for frames of any pixel format.

    Attributes:
        network: Float32, NCHW in [0, 1]; for INT8 with Q/DQ nodes.
        half: The type of everything that is not quantized.
        stored: Whether the bundle has a file for it; otherwise the FP32 file is run in this type.
    """

    network: onnx.ModelProto
    half: Half
    stored: bool = True

    def graph(self, pixel_format: PixelFormat) -> onnx.ModelProto:
        """Return the graph for frames of a format.

        Raises:
            ExportError: The graph cannot be converted to this type.
        """
        return to_half(pixels.wrap(self.network, pixel_format), self.half)

    def runnable(self, pixel_format: PixelFormat) -> onnx.ModelProto:
        """Return a graph that ONNX Runtime can run: on a CPU, bfloat16 is simulated in float32."""
        if self.half == "fp16":
            return self.graph(pixel_format)
        return rounded_to_bf16(pixels.wrap(self.network, pixel_format))
