"""Finding the residual blocks in a chain: stages in a row that keep the number of channels."""

from __future__ import annotations

from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from sr_export.models.layers import MismatchError
from sr_export.models.topology import Parts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_export.models.layers import LayerChain, Stage

# A convolution that ends the body, three enlargements, two at the full size.
_LONGEST_TAIL = 6

Blocks = list[tuple["Stage", ...]]


def residual(chain: LayerChain) -> tuple[Parts, bool]:
    """Return the parts of a chain with residual blocks, and whether they are sure to be there.

    Modules that a program makes in a loop have a name of their own that their layers share; where
    names tell nothing, every two stages are a block.

    Raises:
        MismatchError: it cannot have such blocks.
    """
    stages = chain.stages
    start, blocks = _nested(stages)
    likely = len(blocks) > 1 and len(stages) - start - sum(map(len, blocks)) <= _LONGEST_TAIL
    if not blocks:
        start, blocks = _paired(stages)
        likely = any(each[0].slopes is not None and each[1].slopes is None for each in blocks)
    if not blocks:
        raise MismatchError("has no residual blocks")
    end = start + sum(map(len, blocks))
    parts = Parts(chain, stages[:start], tuple(blocks), stages[end:])
    width = blocks[0][0].inputs
    if any(stage.outputs > width for stage in parts.head):
        raise MismatchError("grows narrower before its residual blocks")
    if any(stage.given > width or _even(stage) for stage in (*parts.head, *parts.tail)):
        raise MismatchError("has other convolutions around its residual blocks")
    if len({stage.outputs for stage in parts.head}) > 1:
        raise MismatchError("grows wider before its residual blocks, as networks that stride do")
    return parts, likely


def _even(stage: Stage) -> bool:
    return stage.size % 2 == 0 and not stage.transposed


def _nested(stages: Sequence[Stage]) -> tuple[int, Blocks]:
    """Return where the first block begins, and the blocks that names tell."""
    start = index = 0
    blocks: Blocks = []
    for group in _groups([stage.name for stage in stages]):
        members = tuple(stages[index : index + group])
        regular = group > 1 and all(stage.plain for stage in members)
        if regular and (not blocks or _shapes(members) == _shapes(blocks[0])):
            start = start if blocks else index
            blocks.append(members)
        elif blocks:
            break
        index += group
    # The first stage and the last two are never in a block.
    fits = blocks and start > 0 and start + sum(map(len, blocks)) < len(stages)
    return (start, blocks) if fits else (0, [])


def _groups(names: list[str]) -> list[int]:
    """Return how many names in a row share more of their path with each other than with others."""
    near = [_common(one, other) for one, other in pairwise(names)]
    groups = [1]
    for i in range(1, len(names)):
        joined = near[i - 1]
        left = groups[-1] > 1 and joined < near[i - 2]
        if left or (i < len(near) and near[i] > joined):
            groups.append(1)
        else:
            groups[-1] += 1
    return groups


def _common(one: str, other: str) -> int:
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _paired(stages: Sequence[Stage]) -> tuple[int, Blocks]:
    """Return where the first block begins, and every two stages that could be one like it."""
    first = next((i for i, stage in enumerate(stages) if i > 0 and stage.plain), len(stages))
    blocks: Blocks = []
    for i in range(first, len(stages) - 2, 2):
        pair = tuple(stages[i : i + 2])
        if not all(stage.plain for stage in pair):
            break
        if blocks and _shapes(pair) != _shapes(blocks[0]):
            break
        blocks.append(pair)
    return first, blocks


def _shapes(stages: tuple[Stage, ...]) -> list[tuple[tuple[int, ...], bool, bool]]:
    return [
        (tuple(stage.weight.shape), stage.norm is not None, stage.slopes is not None)
        for stage in stages
    ]
