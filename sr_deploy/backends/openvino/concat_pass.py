"""Moves quantizers of an INT8 network before concatenations, so that bytes are concatenated.

The file has Concat -> Clip -> QuantizeLinear before each convolution. OpenVINO runs it as it is: it
concatenates floats and quantizes all of them again for each convolution. This pass quantizes every
part once for all readers with the same levels, and concatenates the bytes. Clipping and quantizing
are elementwise, so the results are bit-identical.

OpenVINO concatenates pixel by pixel, with a copy for each part. So in a dense block, where each
convolution reads one part more, every concatenation extends the one before.

The file keeps its order because other runtimes read it too.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import openvino
from openvino import opset8 as operators

_Name = tuple[str, int]
_CHANNELS = 1
_LOWEST, _HIGHEST = -128, 127


class _Levels(NamedTuple):
    """Quantization levels: multiples of a step, clipped at both ends."""

    step: float
    lowest: int
    highest: int


class _Quantizer(NamedTuple):
    """The nodes that quantize a value.

    Attributes:
        source: The value.
        reader: Name of the node that reads it.
        levels: The levels.
        result: The bytes.
    """

    source: Any
    reader: str
    levels: _Levels
    result: Any


def quantize_before_concat(model: Any) -> None:
    """Rewrite an OpenVINO model in place; other patterns stay unchanged."""
    found = [each for node in model.get_ordered_ops() if (each := _match(node)) is not None]
    readers = {each.reader for each in found}
    # The bytes of one value, or of several that are concatenated.
    made: dict[tuple[tuple[_Name, ...], _Levels], Any] = {
        ((_name(each.source),), each.levels): each.result for each in found
    }
    for source, _, levels, result in found:
        if not _is_concat(source.get_node()) or not _only_quantize(source, readers):
            continue
        parts = _parts(source)
        names = tuple(_name(part) for part in parts)
        for name, part in zip(names, parts, strict=True):
            if ((name,), levels) not in made:
                made[(name,), levels] = _quantize(part, levels)
        known = max(n for n in range(1, len(names) + 1) if (names[:n], levels) in made)
        if known < len(names):
            rest = [made[(name,), levels] for name in names[known:]]
            merged = operators.concat([made[names[:known], levels], *rest], _CHANNELS)
            made[names, levels] = merged.output(0)
        result.replace(made[names, levels])
    model.validate_nodes_and_infer_types()


def _match(node: Any) -> _Quantizer | None:
    """Return the quantizer that ends with a node: clip, round to levels, convert to bytes."""
    if node.get_type_name() != "Convert" or node.get_element_type() != openvino.Type.i8:
        return None
    reader = node.input_value(0).get_node()
    levels = _levels(reader)
    if levels is None:
        return None
    source = reader.input_value(0)
    while (above := _clip(source.get_node(), levels)) is not None:
        reader = source.get_node()
        source, levels = above
    if levels.lowest >= levels.highest:
        return None
    return _Quantizer(source, reader.get_name(), levels, node.output(0))


def _levels(node: Any) -> _Levels | None:
    """Return the levels of a node, if it is a QuantizeLinear without a zero point."""
    if node.get_type_name() != "FakeQuantize":
        return None
    low, high, *ends = (_number(node.input_value(i)) for i in range(1, 5))
    if low is None or high is None or ends != [_LOWEST, _HIGHEST]:
        return None
    step = high / _HIGHEST
    all_levels = node.get_attributes()["levels"] == _HIGHEST - _LOWEST + 1
    symmetric = math.isclose(low, _LOWEST * step, rel_tol=1e-6)
    return _Levels(step, _LOWEST, _HIGHEST) if all_levels and symmetric else None


def _clip(node: Any, levels: _Levels) -> tuple[Any, _Levels] | None:
    """Return the input of a Clip or a conversion to FP32, and the levels within its bounds."""
    if node.get_type_name() == "Convert" and node.get_element_type() == openvino.Type.f32:
        return node.input_value(0), levels
    if node.get_type_name() not in ("Maximum", "Minimum"):
        return None
    for value, bound in (node.input_values(), node.input_values()[::-1]):
        end = _number(bound)
        if end is not None:
            level = round(min(max(end / levels.step, levels.lowest), levels.highest))
            end_of = "lowest" if node.get_type_name() == "Maximum" else "highest"
            return value, levels._replace(**{end_of: level})
    return None


def _number(value: Any) -> float | None:
    """Return a scalar constant; None for any other value."""
    node = value.get_node()
    if node.get_type_name() != "Constant" or math.prod(value.get_shape()) != 1:
        return None
    return float(node.get_data(dtype=np.float32).item())


def _is_concat(node: Any) -> bool:
    return node.get_type_name() == "Concat" and node.get_attributes()["axis"] == _CHANNELS


def _only_quantize(value: Any, readers: set[str]) -> bool:
    """Return whether all readers of a value need only its bytes."""
    nodes = [each.get_node() for each in value.get_target_inputs()]
    return all(
        node.get_name() in readers or (_is_concat(node) and _only_quantize(node.output(0), readers))
        for node in nodes
    )


def _parts(value: Any) -> list[Any]:
    """Return the parts of a value, through nested concatenations."""
    if not _is_concat(value.get_node()):
        return [value]
    return [part for each in value.get_node().input_values() for part in _parts(each)]


def _quantize(value: Any, levels: _Levels) -> Any:
    """Return the bytes of a value."""
    step, lowest, highest = levels
    ends = [np.float32(each) for each in (lowest * step, highest * step, lowest, highest)]
    count = highest - lowest + 1
    wide = operators.convert(value, "f32")
    return operators.convert(operators.fake_quantize(wide, *ends, count), "i8").output(0)


def _name(value: Any) -> _Name:
    return value.get_node().get_name(), value.get_index()
