"""The comparison of a bundle's manifest with the graph of a network, before it is loaded.

The runtime reserves memory for results by the manifest. A network that gives less would leave parts
of a picture undefined, one that gives more would write beyond it. The backends compare what they
really get; this finds the mistake earlier, and names it. The graph is walked for one small image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

from sr_deploy.bundle import onnx_bounds
from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.errors import BundleError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from sr_deploy.bundle.manifest import Model, PixelFormat
    from sr_deploy.bundle.onnx_shapes import Shape

_SIDE = 64
"""Side of the image, where the network allows it."""
_DEEP = ("rgb48", "gray16", "p010")
_COLOR = (7, 3)
"""Shape of the coefficients of a YUV frame."""
_FLOAT, _BYTE = 1, 2
_TYPES = {_FLOAT: "float32", _BYTE: "uint8"}


def check(path: Path, model: Model, pixel_format: PixelFormat) -> None:
    """Check that a network asks for bounded memory and work, and is what the manifest describes.

    Args:
        path: The ONNX file.
        model: The network's description in the manifest.
        pixel_format: Format of the frames.

    Raises:
        BundleError: it is not; the message has both numbers.
    """
    inputs, output = _expected(model, pixel_format)
    graph, known = onnx_bounds.walked(path, inputs)
    arguments = list(graph.arguments)
    if len(arguments) != len(inputs) or len(graph.outputs) != 1:
        raise _misfit(
            path,
            f"{len(arguments)} inputs and {len(graph.outputs)} outputs",
            f"{len(inputs)} and 1 for {pixel_format}",
        )
    given = _FLOAT if model.latent else _BYTE
    types = (given, _FLOAT)[: len(inputs)]
    ends = list(zip(("input", "second input"), arguments, inputs, types, strict=False))
    for what, name, shape, kind in [*ends, ("output", graph.outputs[0], output, _BYTE)]:
        if graph.types[name] != kind:
            found = _TYPES.get(graph.types[name], f"values of ONNX's type {graph.types[name]}")
            raise _misfit(path, f"{found} as its {what}", _TYPES[kind])
        size = known.get(name)
        if size is not None and size.shape not in (None, shape):
            image = "" if what != "output" else f" for an input of {shape_text(inputs[0])}"
            raise _misfit(path, f"an {what} of {shape_text(size.known)}{image}", shape_text(shape))


def shape_text(shape: Iterable[int]) -> str:
    """Return a shape for messages: "1x8x8x3"."""
    return "x".join(map(str, shape))


def _expected(model: Model, pixel_format: PixelFormat) -> tuple[list[Shape], Shape]:
    """Return the shapes of the inputs for a small image, and of its result."""
    batch = model.fixed_batch or 1
    if latent := model.latent:
        return [(batch, latent.size)], (batch, latent.height, latent.width, model.channels)
    side = max(_SIDE, model.minimum + model.minimum % 2)
    height, width = model.fixed_size or (side, side)
    depth = 2 if pixel_format in _DEEP else 1
    if pixel_format in get_args(YuvFormat):  # the rows of chroma follow those of luma
        image, more = (batch, height * 3 // 2, width, depth), [_COLOR]
    else:
        image, more = (batch, height, width, depth * model.channels), []
    _, rows, columns, _ = image
    result = (batch, model.scale * rows, model.scale * columns, image[3])
    return [image, *more], result


def _misfit(path: Path, found: str, expected: str) -> BundleError:
    return BundleError(
        f"{path}: the network has {found}, by the manifest {expected}: they do not fit; export "
        "the checkpoint again"
    )
