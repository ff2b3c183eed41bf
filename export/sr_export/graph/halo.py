"""The halo of a network: the distance at which an input pixel still changes an output pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sr_export.graph.verify import TOLERANCE

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]

# Widths of the probed strip. A network whose halo exceeds a quarter of the longest is global: tiles
# with so much overlap would cost too much anyway.
_WIDTHS = (128, 384, 1024)
_STRIP = 16
_SEEDS = (0, 1, 2)


def measure(
    run: Run, *, channels: int, scale: int, grid: int, minimum: int, batch: int
) -> int | None:
    """Measure the halo in low-resolution pixels; None for a global network.

    One input column of noise is replaced by other noise; the halo is the distance to the farthest
    output column with a changed bit. The same is done for a row. Unlike gradients, this works for
    any graph, and it sees exactly the influence that survives rounding. A network is also global if
    part of an image gives another result than the whole.

    Args:
        run: The network, NCHW float32 of any size.
        channels: Input channels.
        scale: Scale of the network.
        grid: Period of the network's treatment of columns, in pixels.
        minimum: The smallest side that the network accepts.
        batch: The batch size to run with.
    """
    strip = max(_STRIP, grid, minimum)
    probes = [
        (offset, vertical, seed)
        for seed in _SEEDS
        for offset in sorted({0, grid - 1})
        for vertical in (False, True)
    ]
    for width in sorted({-(-max(each, 8 * grid, minimum) // grid) * grid for each in _WIDTHS}):
        halo = 0
        for probe in probes:
            halo = max(halo, _reach(run, (batch, channels, strip, width), scale, *probe))
            # Farther than this, reflection padding at the border may be the cause.
            if halo >= width // 4:
                break
        else:
            shape = batch, channels, strip, width
            return halo if _divides(run, shape, scale, grid, halo) else None
    return None


def _divides(run: Run, shape: tuple[int, int, int, int], scale: int, grid: int, halo: int) -> bool:
    """Return whether part of an image gives the same as the whole, beyond the halo from the cut.

    It does not for networks that upsample pooled features by fractional factors, or that wrap the
    left border around to the right one, however small their halo seems.
    """
    *rest, width = shape
    image = np.random.default_rng(0).random((*rest, grid + width), np.float32)
    kept = scale * (width - halo)
    for vertical in (False, True):
        whole = _turned(run, image, vertical)
        right = _turned(run, image[..., grid:], vertical)
        left = _turned(run, image[..., :-grid], vertical)
        off = max(
            np.abs(right[..., -kept:] - whole[..., -kept:]).max(),
            np.abs(left[..., :kept] - whole[..., :kept]).max(),
        )
        if off > TOLERANCE * max(1.0, np.abs(whole).max()):
            return False
    return True


def _turned(run: Run, image: np.ndarray[Any, Any], vertical: bool) -> np.ndarray[Any, Any]:
    """Run a network on an image, or on its transpose, whose result is transposed back."""
    if not vertical:
        return run(np.ascontiguousarray(image))
    return run(np.ascontiguousarray(image.swapaxes(2, 3))).swapaxes(2, 3)


def _reach(
    run: Run, shape: tuple[int, int, int, int], scale: int, offset: int, vertical: bool, seed: int
) -> int:
    """Return the distance, in columns or rows, of the farthest change in the output."""
    noise = np.random.default_rng(seed)
    image = noise.random(shape, np.float32)
    column = shape[3] // 2 + offset
    changed = image.copy()
    changed[..., column] = noise.random(shape[:3], np.float32)
    differs = _turned(run, image, vertical) != _turned(run, changed, vertical)
    columns = np.flatnonzero(differs.any(axis=(0, 1, 2)))
    if columns.size == 0:
        return 0
    first, last = columns[0] // scale, columns[-1] // scale
    return int(max(column - first, last - column, 0))
