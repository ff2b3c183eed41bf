"""Reading ONNX files of other exporters, and bringing them to the form of our own.

A file is lifted to float32 and a modern opset, gets NCHW images in [0, 1] where it had bytes, and a
free size and batch where its operators permit. What it computes is then compared with the file
itself, as ONNX Runtime executes it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx

from sr_deploy.errors import CheckpointError, ExportError
from sr_export import photos
from sr_export.graph import free_sizes, image_ends, onnx_lifting, verify
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.padding import Padding, pad_inside

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_export.graph.image_ends import ImageEnds, Original

    Run = Callable[[NDArray[Any]], NDArray[Any]]

_GRIDS = (1, 2, 4, 8, 16, 32, 64)
# Sides of the first images to try, in multiples of the grid, and of those for networks that return
# less than scale times the image: these need more.
_SMALL, _LARGE = (7, 9, 5), (85, 97, 75)
_LARGEST_PROBE = 400
_PROBE = 16
# FP16 files round after each layer: 11 bits. Files with bytes round to levels.
_HALF_TOLERANCE = 2e-2
_BYTES_TOLERANCE = 1.01 / 255


@dataclass(frozen=True)
class Foreign:
    """A float32 NCHW model of opset 13 or newer, with properties measured by running it."""

    model: onnx.ModelProto
    """Accepts any size, unless `fixed_size` is set: it pads images itself."""
    scale: int
    channels: Literal[1, 3]
    grid: int
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None
    parameters: int
    reference: Run
    """Runs the file on NCHW float32 images of any size, padded in numpy."""
    bytes: bool
    """Whether the file has bytes at both ends, so that its pixel values are known: [0, 1] here."""
    choice: str
    """Which output was chosen of several, for the user."""

    def probe_size(self) -> tuple[int, int]:
        """Return a (height, width) that the file accepts without padding."""
        return self.fixed_size or (64, 64)


def read(path: Path, output: str | None = None) -> Foreign:
    """Read an ONNX file and measure its scale, grid and batch.

    Args:
        path: The file.
        output: Name or number of the output to use; None: the only one that is an image.

    Raises:
        CheckpointError: The file is damaged, or no image-to-image network.
    """
    try:
        model = onnx.load_model(path)
        # Before 4, weights had to be inputs as well; some exporters forgot.
        model.ir_version = max(model.ir_version, 4)
        onnx.checker.check_model(model)
    except Exception as error:
        raise CheckpointError(f"{path}: not a valid ONNX file: {_line(error)}") from error
    try:
        runnable = onnx_lifting.runnable(model)
        ends, original = image_ends.find(runnable, output)
        lifted = image_ends.float_nchw(onnx_lifting.lifted(runnable), ends)
        return _freest(lifted, ends, original, half=onnx_lifting.is_half(runnable))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _freest(lifted: onnx.ModelProto, ends: ImageEnds, original: Original, *, half: bool) -> Foreign:
    """Return the model with as few limits as possible, proven to compute the same as the file.

    Raises:
        CheckpointError: It cannot be run, or computes something else even at the file's own size.
    """
    failure: Exception | None = None
    for size in (True, False) if ends.size else (True,):
        for batch in (True, False):
            limits = replace(
                ends,
                size=None if size else ends.size,
                batch=None if batch else ends.batch or 1,
            )
            freed = free_sizes.freed(
                lifted, size=size and ends.size is not None, batch=batch and ends.batch is not None
            )
            try:
                return _proven(freed, ends, limits, original, half=half)
            except ExportError as error:
                failure = error
    raise CheckpointError(f"not a network that upscales images of any size: {failure}")


def _proven(
    model: onnx.ModelProto,
    ends: ImageEnds,
    limits: ImageEnds,
    original: Original,
    *,
    half: bool,
) -> Foreign:
    """Return a model with its properties, after comparing it with the file.

    Args:
        model: The model.
        ends: What the file accepts.
        limits: What the model accepts.
        original: The file.
        half: Whether the file computes in FP16.

    Raises:
        ExportError: It does not run, or computes something else.
    """
    run = OnnxRunner(model)
    padding = _measured(run, limits)
    side = -(-(_PROBE + 4 * padding.border) // padding.grid) * padding.grid
    if limits.batch is None:
        free_sizes.check_batch(run, ends.channels, limits.size or (side, side))
    tolerance = _HALF_TOLERANCE if half else verify.TOLERANCE
    if ends.bytes:
        tolerance = max(tolerance, _BYTES_TOLERANCE)
    size = ends.size or (side, side)
    image = photos.as_float(photos.batch(limits.batch or 1, *size, ends.channels))
    verify.difference(run(image), original(image), "from the file itself", tolerance)
    if ends.size and not limits.size:
        free_sizes.prove(original, run, ends.size, ends.channels, padding, tolerance)
    same = ends.size == limits.size and not half and not ends.bytes
    fixed = limits.size and (
        limits.size[0] - 2 * padding.border,
        limits.size[1] - 2 * padding.border,
    )
    return Foreign(
        model=pad_inside(model, padding),
        scale=padding.scale,
        channels=ends.channels,
        grid=padding.grid,
        fixed_size=fixed,
        fixed_batch=limits.batch,
        parameters=sum(int(np.prod(each.dims)) for each in model.graph.initializer),
        reference=padding.around(original if same else run),
        bytes=ends.given.dtype == ends.result.dtype == np.uint8,
        choice=ends.choice,
    )


def _measured(run: Run, limits: ImageEnds) -> Padding:
    """Return the smallest grid on which the model runs, its scale, and what its output lacks.

    Raises:
        ExportError: It runs on no grid, or returns no image of a whole multiple of its input.
    """
    failure = ""
    batch = limits.batch or 1
    for grid in (1,) if limits.size else _GRIDS:
        for multiples in (_SMALL, _LARGE):
            # Odd multiples, two sizes: a model with a frozen size runs at one of them at most.
            first, second, third = (each * grid for each in multiples)
            if multiples == _LARGE and first > _LARGEST_PROBE:
                continue
            sizes = [limits.size] if limits.size else [(first, second), (second, third)]
            try:
                outputs = [
                    run(np.zeros((batch, limits.channels, *size), np.float32)).shape
                    for size in sizes
                ]
            except ExportError as error:
                failure = _line(error)
                continue
            found = _padding(sizes, outputs, grid)
            if found is not None:
                return found
            failure = f"{sizes[0]} gives {outputs[0]}"
    raise ExportError(failure)


def _padding(
    sizes: list[tuple[int, int]], outputs: list[tuple[int, ...]], grid: int
) -> Padding | None:
    """Return the padding that explains the sizes of outputs, if any does."""
    sides = [side for size in sizes for side in size]
    lengths = [length for shape in outputs for length in shape[2:]]
    if len(sizes) == 1:
        scale = -(-lengths[0] // sides[0])
    else:
        scale = (lengths[1] - lengths[0]) // (sides[1] - sides[0])
    missing = {scale * side - length for side, length in zip(sides, lengths, strict=True)}
    if scale < 1 or len(missing) != 1 or min(missing) < 0:
        return None
    return Padding(grid, scale, min(missing))


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
