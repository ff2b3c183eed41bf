"""One threshold for values that are joined, so that each has to be quantised only once.

In a dense block, convolutions read ever longer concatenations of the same values. Where all are
clipped alike, a runtime can quantise every value once, and join bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

_CHANNELS = 1


def shared(model: onnx.ModelProto, thresholds: Mapping[str, float]) -> dict[str, float]:
    """Return thresholds of which those of values with common parts are the largest of them.

    Args:
        model: The graph that the values are of.
        thresholds: The absolute value at which each input of a layer is clipped.
    """
    joins = {node.output[0]: node for node in model.graph.node if _joins(node)}
    parts = {name: _parts(name, joins) for name in thresholds}
    groups: list[frozenset[str]] = []
    for each in parts.values():
        touched = [group for group in groups if group & each]
        groups = [group for group in groups if group not in touched] + [each.union(*touched)]
    found: dict[str, float] = {}
    for group in groups:
        names = [name for name, each in parts.items() if each <= group]
        found |= dict.fromkeys(names, max(thresholds[name] for name in names))
    return found


def _joins(node: onnx.NodeProto) -> bool:
    return node.op_type == "Concat" and node.attribute[0].i == _CHANNELS


def _parts(name: str, joins: Mapping[str, onnx.NodeProto]) -> frozenset[str]:
    """Return what a value is joined of, down to what is not joined itself."""
    if name not in joins:
        return frozenset({name})
    return frozenset().union(*(_parts(each, joins) for each in joins[name].input))
