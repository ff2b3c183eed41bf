"""The memory that a frame may take: sizes in words, the budget, and what a network needs."""

from __future__ import annotations

import ctypes
import math
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sr_deploy import machine
from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.errors import InvalidInputError, OutOfMemoryError

if TYPE_CHECKING:
    from sr_deploy.bundle.manifest import Model, PixelFormat

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])(i?B)?|B)?", re.IGNORECASE)
_UNITS = "KMGT"
_SHARE = 4
# What turning the network's result into bytes takes at most, over that result in FP32: where the
# network itself takes little, it is this that counts. Measured with one and three convolutions, x4,
# with OpenVINO and ONNX Runtime: 1.8 to 3.6 for 8 bits, 6.2 to 8.2 for 16, 3.6 to 6.2 for YUV.
_PACKING: dict[PixelFormat, float] = {
    "rgb24": 3.6,
    "gray8": 3.6,
    "rgb48": 6.0,
    "gray16": 6.0,
    **dict.fromkeys(get_args(YuvFormat), 3.6),
}
# Of 16 bits, the halves come on top of what the network itself takes, where that is alive beside
# them: 1.6 of the FP32 result with 10 convolutions of 32 features x2, nothing with EDSR. So does,
# of YUV, what is added to the result and summed: 3.4 with the former.
_ON_TOP: dict[PixelFormat, float] = {
    "rgb24": 0.0,
    "gray8": 0.0,
    "rgb48": 2.5,
    "gray16": 2.5,
    **dict.fromkeys(get_args(YuvFormat), 3.5),
}
_STATM = Path("/proc/self/statm")
_UNKNOWN_RESIDENT = 256 << 20
"""What this process is taken to hold where the system does not say: Python with a backend and a
network of a few megabytes loaded."""
# glibc's; None where the C library is another.
_TRIM = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def parse(size: str | int) -> int:
    """Return a size in bytes.

    Args:
        size: Bytes, or text like "512MiB", "2G" (both powers of 1024) or "1.5GB" (powers of 1000).

    Raises:
        InvalidInputError: it is no size, or not positive.
    """
    match = _SIZE.fullmatch(str(size).strip())
    if match is None or isinstance(size, bool):
        raise InvalidInputError(
            f"{size!r} is not a memory size; write bytes, or a number with K, M, G or T "
            '(powers of 1024; also KiB, MiB, ...) or KB, MB, GB, TB (powers of 1000): "2GiB"'
        )
    number, unit, ending = match.groups()
    base = 1000 if ending and len(ending) == 1 else 1024
    value = int(float(number) * (base ** (1 + _UNITS.index(unit.upper())) if unit else 1))
    if value < 1:
        raise InvalidInputError(f"a memory size must be at least 1 byte, found {size!r}")
    return value


def words(size: int) -> str:
    """Return a size as people read it, and as `parse` takes it: 1.2 GiB."""
    value = float(size)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def resident() -> int:
    """Return the bytes that this process holds in memory."""
    try:
        pages = int(_STATM.read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return _UNKNOWN_RESIDENT
    return pages * os.sysconf("SC_PAGE_SIZE")


def give_back() -> None:
    """Give the system what this process has freed but its allocator still holds.

    Where large blocks come and go, glibc keeps up to half of a decoded photo. Other allocators
    have no such call; those of macOS and Windows give large blocks back by themselves.
    """
    if _TRIM is not None:
        _TRIM(0)


@dataclass(frozen=True)
class Footprint:
    """What a loaded network takes in memory while it runs, beside what it took when it was loaded.

    Attributes:
        fixed: Bytes that do not depend on the tile.
        per_pixel: Bytes per low-resolution pixel that goes through at once.
        per_pair: Bytes per pair of them, where every pixel looks at every other one.
    """

    fixed: int
    per_pixel: float
    per_pair: float = 0.0

    @classmethod
    def of(
        cls, model: Model, pixel_format: PixelFormat, *, factor: float, fixed: int, copies: float
    ) -> Footprint:
        """Scale what the exporter computed by what was measured of a backend.

        Args:
            model: Of the bundle.
            pixel_format: Of the frames.
            factor: Peak bytes per pixel over the manifest's `bytes_per_pixel`.
            fixed: Bytes that the backend takes with any network.
            copies: How many copies of the FP32 weights it makes when it first runs.
        """
        weights = round(4 * copies * model.parameters)
        result = 4 * model.channels * model.scale**2
        peak = max(factor * model.bytes_per_pixel, _PACKING[pixel_format] * result)
        per_pixel = peak + _ON_TOP[pixel_format] * result
        return cls(fixed + weights, per_pixel, factor * model.bytes_per_pair)

    def times(self, lanes: int) -> Footprint:
        """Return what several lanes take."""
        return Footprint(lanes * self.fixed, lanes * self.per_pixel, lanes * self.per_pair)


@dataclass(frozen=True)
class Budget:
    """How much this process may hold in memory while a frame is upscaled.

    Attributes:
        total: Bytes in all.
        held: Bytes that were held when the networks were loaded, before any frame.
    """

    total: int
    held: int

    @classmethod
    def given(cls, size: str | int | None) -> Budget:
        """Return the budget that the user gives, or by default a quarter of what is free.

        Raises:
            InvalidInputError: the text is no size.
        """
        held = resident()
        total = parse(size) if size is not None else held + machine.free_memory() // _SHARE
        return cls(total, held)

    def pixels(self, footprint: Footprint, frames: int, tile_bytes: int) -> int:
        """Return how many pixels may go through the network at once; not positive if none.

        Args:
            footprint: Of the network.
            frames: Bytes of the frame, its result, and what else is held meanwhile.
            tile_bytes: Bytes per pixel of a tile's own input and output.
        """
        left = self.total - self.held - footprint.fixed - frames
        linear = footprint.per_pixel + tile_bytes
        # The root of per_pair * pixels**2 + linear * pixels = left; per_pair may be 0.
        square = linear**2 + 4 * footprint.per_pair * max(left, 0)
        return int(2 * left / (linear + math.sqrt(square)))

    def require(
        self, pixels: int, footprint: Footprint, frames: int, tile_bytes: int, frame: str
    ) -> None:
        """Check that tiles of so many pixels fit.

        Raises:
            OutOfMemoryError: they do not; the text says what would be needed.
        """
        needed = self.held + footprint.fixed + frames
        needed += round(pixels * (footprint.per_pixel + footprint.per_pair * pixels + tile_bytes))
        if needed > self.total:
            raise OutOfMemoryError(
                f"{frame} needs at least {words(needed)} of memory, {words(frames)} of it for the "
                f"frame and its result, but may take {words(self.total)}; allow more with "
                "--memory (memory= in Python)"
            )
