"""What names and numbers tell of layers without weights, where shapes tell nothing: enlargement.

A layer that repeats pixels has no weights. But a program that numbers its layers leaves its number
out, and one that names them says "up".
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sr_export.models.layers import Stage
    from sr_export.models.topology import Parts

_UP = re.compile(r"(?<![a-z])up(?!date)")


def enlargement(parts: Parts) -> tuple[int, int] | None:
    """Return how often a network seems to enlarge, and how many stages run at the full size."""
    stages = parts.chain.stages
    told = [
        number
        for number, (before, stage) in enumerate(pairwise(stages), 1)
        if _UP.search(stage.name.lower()) or _left_out(before, stage)
    ]
    if not told:
        return None
    last = told[-1]
    times = next(i for i in range(1, len(stages)) if last - i not in told)
    return times, len(stages) - last


def _left_out(before: Stage, stage: Stage) -> bool:
    """Return whether a number is missing between two stages, beside that of the activation."""
    (one, first), (other, second) = (_numbered(each.name) for each in (before, stage))
    if one != other or first is None or second is None:
        return False
    return second - first > (2 if before.norm is None else 3)


def _numbered(name: str) -> tuple[str, int | None]:
    parent, _, last = name.rpartition(".")
    return parent, int(last) if last.isdigit() else None
