"""How far away an input pixel can still change an output pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[[np.ndarray[Any, Any]], np.ndarray[Any, Any]]

# Widths of the strip in which the reach is looked for. A network that reaches past a quarter of
# the longest is taken as global: tiles that overlapped so far would cost too much anyway.
_WIDTHS = (128, 384, 1024)
_STRIP = 16
_SEEDS = (0, 1, 2)


def measure(
    run: Run, *, channels: int, scale: int, grid: int, minimum: int, batch: int
) -> int | None:
    """Return the halo in low-resolution pixels, or None when the network is global.

    A column of the input is changed, from noise to other noise, and the farthest column of the
    output whose bits change is looked up; then the same for a row. Unlike a gradient this needs no
    torch, so it holds for any graph, and it sees the influence that survives rounding.

    Args:
        run: the network, NCHW float32 of any size in and out.
        channels: of the input.
        scale: of the output.
        grid: the period with which the network treats columns alike.
        minimum: the smallest side that the network takes.
        batch: the batch to run it with.
    """
    strip = max(_STRIP, grid, minimum)
    probes = [
        (offset, vertical, seed)
        for seed in _SEEDS
        for offset in sorted({0, grid - 1})
        for vertical in (False, True)
    ]
    for width in (-(-max(each, 8 * grid, minimum) // grid) * grid for each in _WIDTHS):
        halo = 0
        for probe in probes:
            halo = max(halo, _reach(run, (batch, channels, strip, width), scale, *probe))
            # Nearer to the border than that, reflected padding may have carried it.
            if halo >= width // 4:
                break
        else:
            return halo
    return None


def _reach(
    run: Run, shape: tuple[int, int, int, int], scale: int, offset: int, vertical: bool, seed: int
) -> int:
    """Return how many columns (or rows) away a changed one shows in the output."""
    noise = np.random.default_rng(seed)
    image = noise.random(shape, np.float32)
    column = shape[3] // 2 + offset
    changed = image.copy()
    changed[..., column] = noise.random(shape[:3], np.float32)
    if vertical:
        image, changed = (np.ascontiguousarray(each.swapaxes(2, 3)) for each in (image, changed))
    differs = run(image) != run(changed)
    if vertical:
        differs = differs.swapaxes(2, 3)
    columns = np.flatnonzero(differs.any(axis=(0, 1, 2)))
    if columns.size == 0:
        return 0
    first, last = columns[0] // scale, columns[-1] // scale
    return int(max(column - first, last - column, 0))
