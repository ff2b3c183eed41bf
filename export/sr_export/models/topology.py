"""Find the parts of a plain network in its chain: head, residual blocks, tail, and upsampling.

Residual blocks are runs of stages that preserve the number of channels and share a name. Layers
without weights (nearest-neighbor upsampling) leave traces in the names only: skipped numbers, or
names such as "up".
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

from sr_export.models.layer_chain import MismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_export.models.arch_settings import ArchSettings
    from sr_export.models.layer_chain import LayerChain, Stage

    Blocks = list[tuple[Stage, ...]]

# The convolution that ends the body, three upsampling steps, two at full size.
_MAX_TAIL = 6
_UP = re.compile(r"(?<![a-z])up(?!date)")


@dataclass(frozen=True)
class Topology:
    """The stages of a chain by their place in the network."""

    chain: LayerChain
    head: tuple[Stage, ...]
    blocks: tuple[tuple[Stage, ...], ...]
    """Residual blocks; may be empty."""
    tail: tuple[Stage, ...]
    """Includes the last stage, whose output is the image."""

    @property
    def transposed(self) -> int:
        """Number of transposed convolutions."""
        return sum(stage.transposed for stage in self.chain.stages)

    @property
    def shuffled(self) -> int:
        """Scale of all pixel shuffles together."""
        return math.prod(stage.shuffle for stage in self.chain.stages)

    @property
    def nearest(self) -> bool:
        """Whether only nearest-neighbor upsampling can enlarge the image."""
        return self.transposed == 0 and self.shuffled == 1

    def halvings(self, settings: ArchSettings) -> tuple[Stage, ...]:
        """Return the stages with stride 2."""
        convolutions = [stage for stage in self.chain.stages if not stage.transposed]
        even = [stage for stage in convolutions if stage.size % 2 == 0]
        if even or not settings.strided:
            return tuple(even)
        wider = [stage for stage in convolutions if stage.outputs > stage.inputs]
        return tuple(wider[-self.transposed :])

    def stride(self, settings: ArchSettings) -> int | None:
        """Return the stride of each transposed convolution; None: impossible."""
        if not self.transposed:
            return 1 if self.nearest or settings.scale == self.shuffled else None
        total, rest = divmod(settings.scale * 2 ** len(self.halvings(settings)), self.shuffled)
        stride = round(total ** (1 / self.transposed))
        sizes = [stage.size for stage in self.chain.stages if stage.transposed]
        # An even kernel with stride 1 would shift the image by half a pixel.
        possible = all(size >= stride and (stride > 1 or size % 2) for size in sizes)
        exact = rest == 0 and stride**self.transposed == total
        return stride if exact and possible else None

    def before_skip(self, settings: ArchSettings) -> int:
        """Return the number of tail stages that belong to the residual body."""
        if not self.blocks:
            return 0
        last = len(self.tail) - 1
        if self.nearest:
            return last if settings.scale == 1 else self._first_upsampled(settings)
        upsampling = (i for i, each in enumerate(self.tail) if each.transposed or each.shuffle > 1)
        return next(upsampling, last)

    def upsampling_before(self, index: int, settings: ArchSettings) -> int:
        """Return the factor of nearest-neighbor upsampling before a stage of the tail."""
        factors = steps(settings.scale) if self.nearest else []
        step = index - self._first_upsampled(settings)
        return factors[step] if 0 <= step < len(factors) else 1

    def fits(self, settings: ArchSettings) -> bool:
        """Return whether the chain can run with these settings."""
        if self.nearest:
            return settings.scale == 1 or self._first_upsampled(settings) >= 0
        return self.stride(settings) is not None

    def _first_upsampled(self, settings: ArchSettings) -> int:
        return len(self.tail) + 1 - settings.full_size - len(steps(settings.scale))


def steps(scale: int) -> list[int]:
    """Return the factors of consecutive upsampling steps."""
    doublings = scale.bit_length() - 1
    return [2] * doublings if scale == 2**doublings else [scale]


def residual(chain: LayerChain) -> tuple[Topology, bool]:
    """Return the topology of a chain with residual blocks, and whether the blocks are certain.

    The layers of a block share the name of its module. Without such names, every two stages are
    taken as a block.

    Raises:
        MismatchError: the chain cannot have residual blocks.
    """
    stages = chain.stages
    start, blocks = _nested(stages)
    likely = len(blocks) > 1 and len(stages) - start - sum(map(len, blocks)) <= _MAX_TAIL
    if not blocks:
        start, blocks = _paired(stages)
        likely = any(each[0].slopes is not None and each[1].slopes is None for each in blocks)
    if not blocks:
        raise MismatchError("has no residual blocks")
    end = start + sum(map(len, blocks))
    found = Topology(chain, stages[:start], tuple(blocks), stages[end:])
    width = blocks[0][0].inputs
    if any(stage.outputs > width for stage in found.head):
        raise MismatchError("becomes narrower before its residual blocks")
    if any(stage.width > width or _even(stage) for stage in (*found.head, *found.tail)):
        raise MismatchError("has other convolutions around its residual blocks")
    if len({stage.outputs for stage in found.head}) > 1:
        raise MismatchError("becomes wider before its residual blocks, as strided networks do")
    return found, likely


def _even(stage: Stage) -> bool:
    return stage.size % 2 == 0 and not stage.transposed


def _nested(stages: Sequence[Stage]) -> tuple[int, Blocks]:
    """Return the index of the first block, and the blocks that share names."""
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
    # The first stage and the last two never belong to a block.
    fits = blocks and start > 0 and start + sum(map(len, blocks)) < len(stages)
    return (start, blocks) if fits else (0, [])


def _groups(names: list[str]) -> list[int]:
    """Return the lengths of runs of names that share more of their path inside than outside."""
    near = [_shared_depth(one, other) for one, other in pairwise(names)]
    groups = [1]
    for i in range(1, len(names)):
        joined = near[i - 1]
        left = groups[-1] > 1 and joined < near[i - 2]
        if left or (i < len(near) and near[i] > joined):
            groups.append(1)
        else:
            groups[-1] += 1
    return groups


def _shared_depth(one: str, other: str) -> int:
    pairs = zip(one.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _paired(stages: Sequence[Stage]) -> tuple[int, Blocks]:
    """Return the index of the first block, and all pairs of stages with its shapes."""
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


def upsampling_in_names(topology: Topology) -> tuple[int, int] | None:
    """Return the number of upsampling steps, and of stages behind them, or None if unknown."""
    stages = topology.chain.stages
    marked = [
        number
        for number, (before, stage) in enumerate(pairwise(stages), 1)
        if _UP.search(stage.name.lower()) or _skips_number(before, stage)
    ]
    if not marked:
        return None
    last = marked[-1]
    count = next(i for i in range(1, len(stages)) if last - i not in marked)
    return count, len(stages) - last


def _skips_number(before: Stage, stage: Stage) -> bool:
    """Return whether a number is missing between two stages, besides the activation's."""
    (one, first), (other, second) = (_numbered(each.name) for each in (before, stage))
    if one != other or first is None or second is None:
        return False
    return second - first > (2 if before.norm is None else 3)


def _numbered(name: str) -> tuple[str, int | None]:
    parent, _, last = name.rpartition(".")
    return parent, int(last) if last.isdecimal() and len(last) < 10 else None
