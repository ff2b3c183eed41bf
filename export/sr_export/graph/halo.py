"""How far away an input pixel can still change an output pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sr_export.graph.verify import TOLERANCE

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
    torch, so it holds for any graph, and it sees the influence that survives rounding. A network is
    global, too, where part of an image gives something else than the whole.

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
    for width in sorted({-(-max(each, 8 * grid, minimum) // grid) * grid for each in _WIDTHS}):
        halo = 0
        for probe in probes:
            halo = max(halo, _reach(run, (batch, channels, strip, width), scale, *probe))
            # Nearer to the border than that, reflected padding may have carried it.
            if halo >= width // 4:
                break
        else:
            shape = batch, channels, strip, width
            return halo if _divides(run, shape, scale, grid, halo) else None
    return None


def _divides(run: Run, shape: tuple[int, int, int, int], scale: int, grid: int, halo: int) -> bool:
    """Return whether a part of an image gives what the whole gives, a halo away from the cut.

    Networks that enlarge what they pooled by uneven factors, or that join an image's left border
    to its right one, do not, however near they look.
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
    """Run a network on an image, or on it lying on its side, which is then righted again."""
    if not vertical:
        return run(np.ascontiguousarray(image))
    return run(np.ascontiguousarray(image.swapaxes(2, 3))).swapaxes(2, 3)


def _reach(
    run: Run, shape: tuple[int, int, int, int], scale: int, offset: int, vertical: bool, seed: int
) -> int:
    """Return how many columns (or rows) away a changed one shows in the output."""
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
