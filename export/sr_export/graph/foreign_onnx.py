"""Reading ONNX files of other exporters, and normalizing them to the form of our own."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper, version_converter

from sr_deploy.errors import CheckpointError, ExportError
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.to_onnx import OPSET

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

# Required by the nodes that are added around the graph.
_OLDEST_OPSET = 13
_GRIDS = (1, 2, 4, 8, 16, 32, 64)
_PROBE = 3  # times the grid: the smallest odd size


@dataclass(frozen=True)
class Foreign:
    """A float32 NCHW model of opset 13 or newer, with properties measured by running it."""

    model: onnx.ModelProto
    scale: int
    channels: Literal[1, 3]
    grid: int
    fixed_size: tuple[int, int] | None
    fixed_batch: int | None
    parameters: int
    run: Callable[[NDArray[Any]], NDArray[Any]]
    """Runs the original file."""

    def probe_size(self) -> tuple[int, int]:
        """Return a (height, width) that the file accepts without padding."""
        return self.fixed_size or (64, 64)

    def reference(self, image: NDArray[Any]) -> NDArray[Any]:
        """Run the original file on an image padded to its grid by reflection."""
        height, width = image.shape[2:]
        padding = ((0, 0), (0, 0), (0, -height % self.grid), (0, -width % self.grid))
        output = self.run(np.pad(image, padding, mode="reflect"))
        return output[..., : height * self.scale, : width * self.scale]


def read(path: Path) -> Foreign:
    """Read an ONNX file and measure its scale, grid and batch.

    Raises:
        CheckpointError: The file is damaged, or no image-to-image network.
    """
    try:
        model = onnx.load_model(path)
        onnx.checker.check_model(model)
    except Exception as error:
        raise CheckpointError(f"{path}: not a valid ONNX file: {_line(error)}") from error
    model = _with_one_image(model, path)
    model = _as_float32(model)
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset < _OLDEST_OPSET:
        model = version_converter.convert_version(model, OPSET)
    batch, planes, height, width = _shape(model.graph.input[0])
    channels: Literal[1, 3] = 1 if planes == 1 else 3
    fixed_size = (height, width) if height and width else None
    try:
        run = OnnxRunner(model)
    except ExportError as error:
        raise CheckpointError(f"{path}: {error}") from error
    grid, scale = _grid_and_scale(run, batch or 1, channels, fixed_size, path)
    return Foreign(
        model=_named(model, free_size=fixed_size is None),
        scale=scale,
        channels=channels,
        grid=grid,
        fixed_size=fixed_size,
        fixed_batch=batch or _fixed_batch(run, channels, fixed_size or (_PROBE * grid,) * 2),
        parameters=sum(int(np.prod(each.dims)) for each in model.graph.initializer),
        run=run,
    )


def _with_one_image(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """Check for one image input and one image output; drop weights listed among the inputs."""
    weights = {each.name for each in model.graph.initializer}
    inputs = [each for each in model.graph.input if each.name not in weights]
    outputs = list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise CheckpointError(
            f"{path}: {len(inputs)} inputs and {len(outputs)} outputs; only networks with one "
            "image input and one image output are supported"
        )
    kinds = {each.type.tensor_type.elem_type for each in (*inputs, *outputs)}
    ranks = {len(each.type.tensor_type.shape.dim) for each in (*inputs, *outputs)}
    if not kinds <= {TensorProto.FLOAT, TensorProto.FLOAT16} or ranks != {4}:
        names = ", ".join(sorted(TensorProto.DataType.Name(kind) for kind in kinds))
        raise CheckpointError(
            f"{path}: input and output are {names} of rank {sorted(ranks)}; only float32 or "
            "float16 images in NCHW layout are supported"
        )
    channels = _shape(inputs[0])[1]
    if channels not in (1, 3):
        raise CheckpointError(
            f"{path}: the input has {channels or 'any number of'} channels (axis 1); only 1 or 3 "
            "are supported"
        )
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    return model


def _shape(value: onnx.ValueInfoProto) -> tuple[int, int, int, int]:
    """Return a rank-4 shape; 0 marks a free axis."""
    batch, channels, height, width = (dim.dim_value for dim in value.type.tensor_type.shape.dim)
    return batch, channels, height, width


def _as_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Convert FP16 to FP32 everywhere; precisions are made and measured later."""
    graph = model.graph
    if graph.input[0].type.tensor_type.elem_type == TensorProto.FLOAT and not any(
        each.data_type == TensorProto.FLOAT16 for each in graph.initializer
    ):
        return model
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT
    for weight in graph.initializer:
        _widen(weight)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name == "to" and attribute.i == TensorProto.FLOAT16:
                attribute.i = TensorProto.FLOAT
            elif attribute.HasField("t"):
                _widen(attribute.t)
    return model


def _widen(tensor: onnx.TensorProto) -> None:
    if tensor.data_type == TensorProto.FLOAT16:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))


def _grid_and_scale(
    run: OnnxRunner, batch: int, channels: int, fixed: tuple[int, int] | None, path: Path
) -> tuple[int, int]:
    """Return the smallest grid on which the model runs, and its scale."""
    failure = ""
    for grid in (1,) if fixed else _GRIDS:
        # Odd multiples, two sizes: a model with a frozen size runs at one of them at most.
        sizes = [fixed] if fixed else [(7 * grid, 9 * grid), (9 * grid, 5 * grid)]
        try:
            shapes = [run(np.zeros((batch, channels, *size), np.float32)).shape for size in sizes]
        except ExportError as error:
            failure = _line(error)
            continue
        scale = shapes[0][2] // sizes[0][0]
        expected = [(batch, channels, *(side * scale for side in size)) for size in sizes]
        if scale and shapes == expected:
            return grid, scale
        failure = f"{sizes[0]} gives {shapes[0]}"
    raise CheckpointError(f"{path}: not a network that upscales images of any size: {failure}")


def _fixed_batch(run: OnnxRunner, channels: int, size: tuple[int, int]) -> int | None:
    """Return 1 if a batch of two differs from two single images, else None."""
    images = np.random.default_rng(0).random((2, channels, *size), np.float32)
    alone = np.concatenate([run(image[None]) for image in images])
    try:
        together = run(images)
    except ExportError:
        return 1
    same = together.shape == alone.shape and np.allclose(together, alone, atol=1e-4)
    return None if same else 1


def _named(model: onnx.ModelProto, *, free_size: bool) -> onnx.ModelProto:
    """Name the free axes like those of our own exports."""
    names = itertools.chain(
        ("batch", None, "height", "width"), ("batch", None, "out_height", "out_width")
    )
    dims = [
        dim
        for value in (model.graph.input[0], model.graph.output[0])
        for dim in value.type.tensor_type.shape.dim
    ]
    for dim, name in zip(dims, names, strict=True):
        if name and not dim.dim_value and (free_size or name == "batch"):
            dim.dim_param = name
    return model


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
