"""How a plain network runs its chain: what is residual, where the image grows and shrinks."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sr_export.models.arch_settings import ArchSettings
    from sr_export.models.layers import LayerChain, Stage


@dataclass(frozen=True)
class Parts:
    """The stages of a chain, by what the network does with them."""

    chain: LayerChain
    head: tuple[Stage, ...]
    blocks: tuple[tuple[Stage, ...], ...]
    """Residual ones; there may be none."""
    tail: tuple[Stage, ...]
    """With the last stage, which gives the image."""

    @property
    def transposed(self) -> int:
        """The number of transposed convolutions."""
        return sum(stage.transposed for stage in self.chain.stages)

    @property
    def shuffled(self) -> int:
        """How much the pixel shuffles enlarge."""
        return math.prod(stage.shuffle for stage in self.chain.stages)

    @property
    def nearest(self) -> bool:
        """Whether nothing but nearest-neighbour enlargement can make the image larger."""
        return self.transposed == 0 and self.shuffled == 1

    def halvings(self, settings: ArchSettings) -> tuple[Stage, ...]:
        """Return the stages that halve the image."""
        convolutions = [stage for stage in self.chain.stages if not stage.transposed]
        even = [stage for stage in convolutions if stage.size % 2 == 0]
        if even or not settings.strided:
            return tuple(even)
        wider = [stage for stage in convolutions if stage.outputs > stage.inputs]
        return tuple(wider[-self.transposed :])

    def stride(self, settings: ArchSettings) -> int | None:
        """Return by how much each transposed convolution enlarges; None: it cannot be."""
        if not self.transposed:
            return 1 if self.nearest or settings.scale == self.shuffled else None
        total, rest = divmod(settings.scale * 2 ** len(self.halvings(settings)), self.shuffled)
        stride = round(total ** (1 / self.transposed))
        sizes = [stage.size for stage in self.chain.stages if stage.transposed]
        # An even kernel that does not enlarge would move the image by half a pixel.
        possible = all(size >= stride and (stride > 1 or size % 2) for size in sizes)
        exact = rest == 0 and stride**self.transposed == total
        return stride if exact and possible else None

    def before_skip(self, settings: ArchSettings) -> int:
        """Return how many stages of the tail still belong to the residual body."""
        if not self.blocks:
            return 0
        last = len(self.tail) - 1
        if self.nearest:
            return last if settings.scale == 1 else self._first_enlarged(settings)
        larger = (i for i, each in enumerate(self.tail) if each.transposed or each.shuffle > 1)
        return next(larger, last)

    def enlargement(self, index: int, settings: ArchSettings) -> int:
        """Return by how much the image is enlarged, by repeating pixels, before a tail's stage."""
        factors = steps(settings.scale) if self.nearest else []
        step = index - self._first_enlarged(settings)
        return factors[step] if 0 <= step < len(factors) else 1

    def fits(self, settings: ArchSettings) -> bool:
        """Return whether the chain can run so."""
        if self.nearest:
            return settings.scale == 1 or self._first_enlarged(settings) >= 0
        return self.stride(settings) is not None

    def _first_enlarged(self, settings: ArchSettings) -> int:
        return len(self.tail) + 1 - settings.full_size - len(steps(settings.scale))


def steps(scale: int) -> list[int]:
    """Return the factors by which networks enlarge, one after the other."""
    doublings = scale.bit_length() - 1
    return [2] * doublings if scale == 2**doublings else [scale]
