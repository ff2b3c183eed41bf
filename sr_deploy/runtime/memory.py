"""The memory budget of a frame."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy import machine
from sr_deploy.errors import OutOfMemoryError
from sr_deploy.machine import format_bytes

if TYPE_CHECKING:
    from sr_deploy.backends.base import Footprint

_DEFAULT_SHARE = 4
"""By default a frame may take one part in so many of the free memory."""


@dataclass(frozen=True)
class Budget:
    """The memory that this process may take while a frame is upscaled, in bytes.

    Attributes:
        total: Limit of the process's resident memory.
        held: Memory in use with the networks loaded, before any frame.
    """

    total: int
    held: int

    @classmethod
    def given(cls, size: str | int | None) -> Budget:
        """Return the user's budget; for None, the memory in use plus a quarter of the free memory.

        Raises:
            InvalidInputError: the text is not a size.
        """
        held = machine.resident_memory()
        if size is not None:
            return cls(machine.parse_bytes(size), held)
        return cls(held + machine.free_memory() // _DEFAULT_SHARE, held)

    def pixels(self, footprint: Footprint, frames: int, tile_bytes: int) -> int:
        """Return how many pixels can be computed at once; not positive if none can.

        Args:
            footprint: Memory of the network.
            frames: Bytes of the frame, its result, and copies of them.
            tile_bytes: Bytes per pixel of a tile's input and output.
        """
        left = self.total - self.held - footprint.fixed - frames
        linear = footprint.per_pixel + tile_bytes
        # The root of per_pair * pixels**2 + linear * pixels = left; per_pair may be 0.
        square = linear**2 + 4 * footprint.per_pair * max(left, 0)
        return int(2 * left / (linear + math.sqrt(square)))

    def require(
        self, pixels: int, footprint: Footprint, frames: int, tile_bytes: int, frame: str
    ) -> None:
        """Check that a number of pixels can be computed at once; see `pixels`.

        Raises:
            OutOfMemoryError: they exceed the budget; the message has the memory needed.
        """
        needed = self.held + footprint.fixed + frames
        needed += round(pixels * (footprint.per_pixel + footprint.per_pair * pixels + tile_bytes))
        if needed > self.total:
            raise OutOfMemoryError(
                f"{frame} needs at least {format_bytes(needed)} of memory ({format_bytes(frames)} "
                f"for the frame and its result), but the budget is {format_bytes(self.total)}; "
                "raise it with --memory (memory= in Python)"
            )
