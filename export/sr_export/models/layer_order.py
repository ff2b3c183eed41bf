"""The orders that a network's layers may have had, where a file has sorted them by name.

Safetensors files are sorted: block 10 comes before block 2, the body before the head. Numbers put
layers back in order; the parts that a network is made of are tried in every order.
"""

from __future__ import annotations

import itertools
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_MOST_PARTS = 6
# Safetensors files begin with the largest numbers: int64, float32, float16.
_MOST_KINDS = 3


def orders(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the orders that are possible: one, unless the names are sorted and are words."""
    if not _sorted(list(tensors)):
        return [dict(tensors)]
    names = sorted(tensors, key=_naturally)
    parts = [list(group) for _, group in itertools.groupby(names, lambda name: name.split(".")[0])]
    numbered = len({re.sub(r"\d+", "", group[0].split(".")[0]) for group in parts}) == 1
    if numbered or len(parts) > _MOST_PARTS:
        return [{name: tensors[name] for name in names}]
    return [
        {name: tensors[name] for part in order for name in part}
        for order in itertools.permutations(parts)
    ]


def _sorted(names: list[str]) -> bool:
    """Return whether names are sorted, but for a new start with each kind of number."""
    places = {name: place for place, name in enumerate(names)}
    # Torch puts the weight before the bias.
    for name, place in places.items():
        if name.endswith("weight") and places.get(f"{name[:-6]}bias", place) > place:
            return False
    starts = sum(one > other for one, other in itertools.pairwise(names))
    return starts <= _MOST_KINDS


def _naturally(name: str) -> list[tuple[int, int, str]]:
    """Return a key by which 2 comes before 10."""
    pieces = re.findall(r"\d+|\D+", name)
    return [(0, int(each), "") if each.isdigit() else (1, 0, each) for each in pieces]
