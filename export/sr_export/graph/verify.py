"""Verification: comparing an exported graph with the original network.

A branch that the exporter froze shows only at sizes that differ from the example's. So the graph
runs on real images of an odd, a tiny, a transposed, an even and a large size, and with another
batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.bundle.manifest import OnnxCheck
from sr_deploy.errors import CheckpointError, ExportError
from sr_deploy.runtime.yuv import YuvFrame
from sr_export import photos
from sr_export.graph import yuv, yuv_reference

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sr_deploy.bundle.manifest import YuvFormat

    Run = Callable[..., NDArray[Any]]

# A quarter of an 8-bit level, where white is 1: invisible, and far above rounding errors.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class InputLimits:
    """The inputs that a graph accepts."""

    minimum: int
    grid: int
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None


def shapes(limits: InputLimits) -> list[tuple[int, int, int]]:
    """Return the shapes (batch, height, width) to compare, the cheapest first."""
    low, grid = limits.minimum, limits.grid
    batch = limits.fixed_batch or 1
    if limits.fixed_size is not None:
        sizes = [limits.fixed_size]
    else:
        odd = (max(low, 33) | 1, max(low + grid, 46) + 1)
        even = -(-max(low, 64) // grid) * grid
        sizes = [(low, low), odd, odd[::-1], (even, even), (max(low, 208), max(low, 301))]
    found = [(batch, *size) for size in sizes]
    if limits.fixed_batch is None:
        found.insert(1, (3, *sizes[0]) if limits.fixed_size else (3, *sizes[1]))
    return found


def compare(run: Run, reference: Run, shape: tuple[int, int, int], channels: int) -> OnnxCheck:
    """Compare a float graph with its reference at one shape.

    Raises:
        ExportError: the graph does not run, its output has another shape, or differs too much.
        CheckpointError: the network itself does not give an image.
    """
    batch, height, width = shape
    images = photos.as_float(photos.batch(batch, height, width, channels))
    expected, found = reference(images), run(images)
    where = f"at {batch}x{channels}x{height}x{width}"
    if not np.isfinite(expected).all():
        raise CheckpointError(f"the network itself returns NaN or infinity for a photo {where}")
    return OnnxCheck((batch, channels, height, width), difference(found, expected, where))


def difference(
    found: NDArray[Any], expected: NDArray[Any], where: str, tolerance: float = TOLERANCE
) -> float:
    """Return the largest difference between the outputs of graph and network.

    Raises:
        ExportError: The difference exceeds the tolerance, or the shapes differ.
    """
    if found.shape != expected.shape:
        raise ExportError(f"the graph returns {found.shape} {where}, the network {expected.shape}")
    # Outputs of untrained networks can be far larger than 1; rounding errors grow with them.
    error = float(np.abs(found - expected).max() / max(1.0, np.abs(expected).max()))
    if not error <= tolerance:
        raise ExportError(f"the graph differs by {error:.3g} {where}, more than {tolerance:.3g}")
    return error


def compare_bytes(
    run: Run, reference: Run, shape: tuple[int, int, int], channels: int, depth: int
) -> None:
    """Compare a graph with 8- or 16-bit frames with the float reference.

    Raises:
        ExportError: A difference exceeds rounding plus tolerance.
    """
    batch, height, width = shape
    images = photos.batch(batch, height, width, channels)
    white = 255 if depth == 8 else 65535
    frames = images if depth == 8 else (images.astype("<u2") * 257).view(np.uint8)
    found = run(frames) if depth == 8 else run(frames).view("<u2")
    expected = reference(photos.as_float(images)).clip(0, 1) * white
    levels = np.abs(found.transpose(0, 3, 1, 2) - expected).max()
    if not levels <= 0.5 + white * TOLERANCE:
        raise ExportError(
            f"the {depth}-bit graph differs by {levels:.2f} levels at {height}x{width}"
        )


def compare_yuv(
    run: Run, reference: Run, shape: tuple[int, int, int], pixel_format: YuvFormat
) -> None:
    """Compare a graph with YUV frames with the float reference and conversions in numpy.

    Raises:
        ExportError: A difference exceeds rounding plus tolerance.
    """
    _, height, width = shape
    (photo,) = photos.as_float(photos.batch(1, height, width, 3))
    frame = yuv_reference.frame_of(photo, YuvFrame.empty(pixel_format, height, width))
    rgb = yuv_reference.to_rgb(frame)
    inside = rgb.clip(0, 1)
    upscaled = reference(inside[None].astype(np.float32))[0]
    scale = upscaled.shape[1] // height
    beyond = (rgb - inside).repeat(scale, axis=1).repeat(scale, axis=2)
    expected = yuv_reference.from_rgb(upscaled + beyond, frame)
    found = np.ascontiguousarray(run(frame.pixels[None], frame.coefficients)[0])
    result = replace(frame, samples=found.view(frame.samples.dtype)[..., 0])
    off = np.abs(yuv_reference.values(result) - expected).max()
    if not off <= 0.5 + yuv.LAYOUTS[pixel_format].largest * TOLERANCE:
        raise ExportError(f"the graph for {pixel_format} differs by {off:.2f} levels")


def smallest_side(run: Run, reference: Run, limits: InputLimits, channels: int) -> int:
    """Return the smallest side at which the graph matches, starting at the assumed minimum.

    Networks with reflection padding inside cannot process images smaller than that padding.
    """
    if limits.fixed_size is not None:
        return min(limits.fixed_size)
    usual = sorted({2, 4, 8, 16, 32, 64, limits.grid})
    candidates = [limits.minimum, *(each for each in usual if each > limits.minimum)]
    failure: ExportError | None = None
    for side in candidates:
        try:
            compare(run, reference, (limits.fixed_batch or 1, side, side), channels)
        except ExportError as error:
            failure = error
        else:
            return side
    raise failure or ExportError("the graph matches the network at no size")
