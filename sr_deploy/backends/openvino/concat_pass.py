"""Joins bytes where an INT8 network joins floats and quantises the result.

In a file, a convolution that reads joined values follows Concat -> Clip -> QuantizeLinear. OpenVINO
runs that as it stands: it copies floats, and quantises all of them again for each convolution. Here
every part is quantised by itself, once for all that want the same levels, and the parts are joined
as bytes. Clipping and quantising look at one value at a time, so that the results are the same.

OpenVINO joins pixel by pixel, with a copy for each part, so that a dense block, in which each
convolution reads one part more, goes on from what the one before has joined.

The file is not written like that because other runtimes read it, too.
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
    """Multiples of a step; values beyond the ends are clipped."""

    step: float
    lowest: int
    highest: int


class _Quantiser(NamedTuple):
    """Nodes that turn a value into bytes."""

    source: Any
    """The value."""
    reader: str
    """The name of the node that reads it."""
    levels: _Levels
    result: Any
    """The bytes."""


def quantise_before_joining(model: Any) -> None:
    """Rewrite a model of OpenVINO's in place; what is not recognised stays as it is."""
    found = [each for node in model.get_ordered_ops() if (each := _recognised(node)) is not None]
    readers = {each.reader for each in found}
    # The bytes of one value, or of several, joined.
    made: dict[tuple[tuple[_Name, ...], _Levels], Any] = {
        ((_name(each.source),), each.levels): each.result for each in found
    }
    for source, _, levels, result in found:
        if not _joins(source.get_node()) or not _only_quantised(source, readers):
            continue
        parts = _parts(source)
        names = tuple(_name(part) for part in parts)
        for name, part in zip(names, parts, strict=True):
            if ((name,), levels) not in made:
                made[(name,), levels] = _quantised(part, levels)
        known = max(n for n in range(1, len(names) + 1) if (names[:n], levels) in made)
        if known < len(names):
            rest = [made[(name,), levels] for name in names[known:]]
            joined = operators.concat([made[names[:known], levels], *rest], _CHANNELS)
            made[names, levels] = joined.output(0)
        result.replace(made[names, levels])
    model.validate_nodes_and_infer_types()


def _recognised(node: Any) -> _Quantiser | None:
    """Return the quantiser that ends with a node: clip, round to levels, convert to bytes."""
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
    return _Quantiser(source, reader.get_name(), levels, node.output(0))


def _levels(node: Any) -> _Levels | None:
    """Return the levels that a node rounds to, if those are of QuantizeLinear without an offset."""
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
    """Return what a node clips or only converts, and the levels that are left after it."""
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
    """Return a constant that is one number."""
    node = value.get_node()
    if node.get_type_name() != "Constant" or math.prod(value.get_shape()) != 1:
        return None
    return float(node.get_data(dtype=np.float32).item())


def _joins(node: Any) -> bool:
    return node.get_type_name() == "Concat" and node.get_attributes()["axis"] == _CHANNELS


def _only_quantised(value: Any, readers: set[str]) -> bool:
    """Tell whether nobody needs a value other than as bytes."""
    nodes = [each.get_node() for each in value.get_target_inputs()]
    return all(
        node.get_name() in readers or (_joins(node) and _only_quantised(node.output(0), readers))
        for node in nodes
    )


def _parts(value: Any) -> list[Any]:
    """Return what a value is joined of, down to what is not joined itself."""
    if not _joins(value.get_node()):
        return [value]
    return [part for each in value.get_node().input_values() for part in _parts(each)]


def _quantised(value: Any, levels: _Levels) -> Any:
    """Return the bytes of a value."""
    step, lowest, highest = levels
    ends = [np.float32(each) for each in (lowest * step, highest * step, lowest, highest)]
    count = highest - lowest + 1
    wide = operators.convert(value, "f32")
    return operators.convert(operators.fake_quantize(wide, *ends, count), "i8").output(0)


def _name(value: Any) -> _Name:
    return value.get_node().get_name(), value.get_index()
