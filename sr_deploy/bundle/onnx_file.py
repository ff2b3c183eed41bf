"""An ONNX file as plain data, read without the package onnx and without trust.

Only what `onnx_bounds` needs is kept. Values of large tensors stay in the file.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sr_deploy.bundle.protobuf import walk
from sr_deploy.errors import BundleError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MOST_NODES = 100_000
"""Nodes of a file, and visits of nodes while it is checked."""
_MOST_RANK = 16
_MOST_DEPTH = 32
SMALL = 1024
"""Tensors of up to this many elements are read: shapes, sizes, repeats."""

_UNSIGNED_64 = 1 << 64
# By ONNX's number of the data type; 4-bit types count as one byte.
TYPES = {1: "f4", 2: "u1", 3: "i1", 4: "u2", 5: "i2", 6: "i4", 7: "i8", 9: "?", 10: "f2", 11: "f8"}
TYPES |= {12: "u4", 13: "u8", 14: "c8", 15: "c16"}
_BFLOAT16 = 16
# Fields of a tensor with values of a type.
_TYPED = {4: "f4", 5: "i4", 7: "i8", 10: "f8", 11: "u8"}


@dataclass(frozen=True)
class OnnxTensor:
    """A constant: its shape, and its values if it is small and of a numeric type.

    Attributes:
        itemsize: Bytes per element.
        stored: Bytes of its values in the file.
    """

    name: str
    shape: tuple[int, ...]
    itemsize: int
    stored: int
    values: NDArray[Any] | None


@dataclass
class OnnxNode:
    """One operation. Attributes are integers, floats, bytes, lists, tensors and graphs."""

    op: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class OnnxGraph:
    """The main graph, the body of a branch or loop, or a function.

    Attributes:
        inputs: Shapes by name; 0 marks a free axis, None an unknown shape.
        types: ONNX's numbers of the types of inputs and outputs, by name.
    """

    nodes: list[OnnxNode] = field(default_factory=list)
    constants: list[OnnxTensor] = field(default_factory=list)
    inputs: dict[str, tuple[int, ...] | None] = field(default_factory=dict)
    outputs: list[str] = field(default_factory=list)
    types: dict[str, int] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, tuple[int, ...] | None]:
        """The inputs that are not constants."""
        constants = {each.name for each in self.constants}
        return {name: shape for name, shape in self.inputs.items() if name not in constants}


@dataclass
class OnnxFile:
    """The main graph, and the functions by domain and name."""

    graph: OnnxGraph = field(default_factory=OnnxGraph)
    functions: dict[tuple[str, str], OnnxGraph] = field(default_factory=dict)


def read(data: memoryview, *, external: bool) -> OnnxFile:
    """Read an ONNX file.

    Args:
        data: Its content.
        external: Whether weights in other files are allowed.

    Raises:
        BundleError: It is damaged, or its parts are nested too deeply or too many.
    """
    reader = _Reader(external)
    file = OnnxFile()
    for number, _, value in walk(data):
        if number == 7:
            file.graph = reader.graph(_message(value), 1)
        elif number == 25:
            name, function = reader.function(_message(value))
            file.functions[name] = function
    return file


class _Reader:
    """Counts the nodes of one file."""

    def __init__(self, external: bool) -> None:
        self._external = external
        self._nodes = 0

    def graph(self, data: memoryview, depth: int) -> OnnxGraph:
        if depth > _MOST_DEPTH:
            raise BundleError(f"its graphs are nested more than {_MOST_DEPTH} deep")
        graph = OnnxGraph()
        for number, _, value in walk(data):
            if number == 1:
                graph.nodes.append(self._node(_message(value), depth))
            elif number == 5:
                graph.constants.append(self._tensor(_message(value)))
            elif number == 11:
                name, graph.types[name], shape = _end(_message(value))
                graph.inputs[name] = shape
            elif number == 12:
                name, graph.types[name], _ = _end(_message(value))
                graph.outputs.append(name)
            elif number == 15:
                graph.constants.append(self._sparse(_message(value)))
        return graph

    def function(self, data: memoryview) -> tuple[tuple[str, str], OnnxGraph]:
        graph, name, domain = OnnxGraph(), "", ""
        for number, _, value in walk(data):
            if number == 1:
                name = _text(value)
            elif number == 4:
                graph.inputs[_text(value)] = None
            elif number == 5:
                graph.outputs.append(_text(value))
            elif number == 7:
                graph.nodes.append(self._node(_message(value), 1))
            elif number == 10:
                domain = _text(value)
        return (domain, name), graph

    def _node(self, data: memoryview, depth: int) -> OnnxNode:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise BundleError(f"it has more than {MOST_NODES} nodes")
        node = OnnxNode()
        for number, _, value in walk(data):
            if number == 1:
                node.inputs.append(_text(value))
            elif number == 2:
                node.outputs.append(_text(value))
            elif number == 4:
                node.op = _text(value)
            elif number == 5:
                name, content = self._attribute(_message(value), depth)
                node.attributes[name] = content
            elif number == 7:
                node.domain = _text(value)
        return node

    def _attribute(self, data: memoryview, depth: int) -> tuple[str, Any]:
        name = ""
        content: Any = None
        numbers: list[float] = []
        for number, kind, value in walk(data):
            if number == 1:
                name = _text(value)
            elif number == 2 and isinstance(value, memoryview) and len(value) == 4:
                content = struct.unpack("<f", value)[0]
            elif number == 3 and isinstance(value, int):
                content = _signed(value)
            elif number == 4:
                content = bytes(_message(value)[:SMALL])
            elif number == 5:
                content = self._tensor(_message(value))
            elif number == 6:
                content = self.graph(_message(value), depth + 1)
            elif number == 7 and isinstance(value, memoryview):
                numbers += np.frombuffer(value[: len(value) // 4 * 4], "<f4").tolist()
            elif number == 8:
                numbers += _integers(value, kind)
        return name, numbers if content is None and numbers else content

    def _tensor(self, data: memoryview) -> OnnxTensor:
        name, kind, stored = "", 0, 0
        shape: list[int] = []
        raw: list[NDArray[Any]] = []
        for number, wire, value in walk(data):
            if number == 1:
                shape += _integers(value, wire)
            elif number == 2 and isinstance(value, int):
                kind = value
            elif number == 8:
                name = _text(value)
            elif number in (9, *_TYPED):
                stored += len(value) if isinstance(value, memoryview) else 1
                if stored <= 10 * SMALL:
                    raw += _values(number, wire, value, TYPES.get(kind, ""))
            elif number == 14 and value == 1 and not self._external:
                raise BundleError(f"its constant {name!r} is in another file")
        if len(shape) > _MOST_RANK or min(shape, default=0) < 0:
            raise BundleError(f"its constant {name!r} has an impossible shape")
        itemsize = np.dtype(TYPES.get(kind, "u2" if kind == _BFLOAT16 else "u1")).itemsize
        count = math.prod(shape)
        found = np.concatenate(raw) if raw and count <= SMALL else np.empty(0)
        values = found.reshape(shape) if found.size == count and kind in TYPES else None
        return OnnxTensor(name, tuple(shape), itemsize, stored, values)

    def _sparse(self, data: memoryview) -> OnnxTensor:
        shape: list[int] = []
        values = OnnxTensor("", (), 4, 0, None)
        for number, wire, value in walk(data):
            if number == 1:
                values = self._tensor(_message(value))
            elif number == 3:
                shape += _integers(value, wire)
        if len(shape) > _MOST_RANK or min(shape, default=0) < 0:
            raise BundleError(f"its constant {values.name!r} has an impossible shape")
        return OnnxTensor(values.name, tuple(shape), values.itemsize, values.stored, None)


def _values(number: int, wire: int, value: int | memoryview, kind: str) -> list[NDArray[Any]]:
    """Return values of a tensor from one of its fields; of a short one."""
    if number == 9 and kind:
        size = np.dtype(kind).itemsize
        view = _message(value)
        return [np.frombuffer(view[: len(view) // size * size], np.dtype(kind).newbyteorder("<"))]
    if number in (5, 7, 11):
        return [np.array(_integers(value, wire), np.int64)]
    if number in _TYPED and isinstance(value, memoryview):
        size = 4 if number == 4 else 8
        return [np.frombuffer(value[: len(value) // size * size], "<" + _TYPED[number])]
    return []


def _end(data: memoryview) -> tuple[str, int, tuple[int, ...] | None]:
    """Return the name, the type and the shape of a graph's input or output."""
    name, kind = "", 0
    shape: tuple[int, ...] | None = None
    for number, _, value in walk(data):
        if number == 1:
            name = _text(value)
        elif number == 2:
            for tensor in _inner(_message(value), 1):
                kinds = [each for field, _, each in walk(tensor) if field == 1]
                kind = next((each for each in kinds if isinstance(each, int)), 0)
                for dims in _inner(tensor, 2):
                    shape = tuple(_dimension(each) for each in _inner(dims, 1))
    return name, kind, shape


def _dimension(data: memoryview) -> int:
    found = [value for number, _, value in walk(data) if number == 1 and isinstance(value, int)]
    return max(0, _signed(found[-1])) if found else 0


def _inner(data: memoryview, wanted: int) -> list[memoryview]:
    return [
        value
        for number, _, value in walk(data)
        if number == wanted and isinstance(value, memoryview)
    ]


def _integers(value: int | memoryview, kind: int) -> list[int]:
    """Return the integers of a field, packed or not."""
    if isinstance(value, int):
        return [_signed(value)]
    found, number, shift = [], 0, 0
    for byte in cast("bytes", value):
        number |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            found.append(_signed(number % _UNSIGNED_64))
            number = shift = 0
        elif shift > 63:
            raise BundleError("not a valid ONNX file: unterminated integer")
    return found


def _signed(value: int) -> int:
    return value - _UNSIGNED_64 if value >= _UNSIGNED_64 >> 1 else value


def _message(value: int | memoryview) -> memoryview:
    if isinstance(value, int):
        raise BundleError("not a valid ONNX file: a number in place of a message")
    return value


def _text(value: int | memoryview) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError:
        raise BundleError("not a valid ONNX file: a name is not UTF-8") from None


def array(content: float | list[Any]) -> NDArray[Any]:
    """Return a number or a list of an attribute as ONNX's Constant makes it."""
    found = np.array(content)
    return found.astype(np.float32) if found.dtype.kind == "f" else found
