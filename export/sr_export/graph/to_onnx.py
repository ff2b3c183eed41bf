"""Exporting a PyTorch module to a float ONNX graph for images of any size.

Tracing freezes every Python `if` on a shape as the example took it, so networks with windows fail
silently at other sizes. Therefore the module never sees a size that it would branch on: the graph
pads its input to the network's grid by reflection, and crops the output.
"""

from __future__ import annotations

import contextlib
import io
import math
import re
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import torch
import torch.nn.functional as F  # noqa: N812
from onnxscript import opset18
from torch import nn

from sr_deploy.errors import CheckpointError, ExportError
from sr_export.graph import onnx_graph
from sr_export.graph.padding import Padding, pad_inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from sr_export.models.network import Network

# The exporter's native opset; a request for 17 or less can silently give 18.
OPSET = 18
INPUT, OUTPUT = "input", "output"
PARAMETERS = "module."
"""Prefix of parameter names in the graph: `Padded` keeps the network in this attribute."""
_GRIDS = (8, 16, 32, 64)
_FIXED_SIDE = 64
_LARGEST_FILE = 2**31  # protobuf's limit
_UNTRANSLATED = "torch.onnx cannot translate the operator {}"
# Patterns in torch's messages, and explanations.
_EXPLANATIONS = {
    r"data-dependent": (
        "the network's control flow depends on the image, which ONNX cannot represent"
    ),
    r"No ONNX function found for <OpOverload\(op='\w+\.([\w.]+)'": _UNTRANSLATED,
    r"Exporting the operator '\w+::(\w+)' to ONNX": _UNTRANSLATED,
}


@dataclass(frozen=True)
class Strategy:
    """One way to export a network: which axes are dynamic."""

    grid: int
    batch: int | None
    """The only batch size that the graph accepts; None for any."""
    size: tuple[int, int] | None = None
    """The only (height, width) that the graph accepts; None for any."""

    def __str__(self) -> str:
        batch = "any batch" if self.batch is None else f"batch {self.batch}"
        size = "any size" if self.size is None else "{}x{} only".format(*self.size)
        grid = f", padded to multiples of {self.grid}" if self.grid > 1 else ""
        return f"{size}, {batch}{grid}"


def strategies(network: Network) -> Iterator[Strategy]:
    """Yield export strategies, the most flexible and likeliest first.

    Each has to be tried and verified: a shape that the exporter froze shows only in the output.
    """
    if network.fixed_size is not None:
        yield Strategy(1, None, network.fixed_size)
        yield Strategy(1, 1, network.fixed_size)
        return
    # Networks with windows merge batch and windows into one axis, which freezes the batch.
    for batch in (1, None) if network.windowed else (None, 1):
        yield Strategy(network.grid, batch)
    for grid in sorted({math.lcm(network.grid, each) for each in _GRIDS} - {network.grid}):
        if grid <= _GRIDS[-1]:
            yield Strategy(grid, 1)
    side = math.ceil(max(_FIXED_SIDE, network.minimum) / network.grid) * network.grid
    yield Strategy(network.grid, 1, (side, side))


class Padded(nn.Module):
    """A network whose input is padded to the grid and whose output is cropped, without branches."""

    def __init__(self, network: Network, grid: int) -> None:
        super().__init__()
        self.module = network.module
        self.scale = network.scale
        self.grid = grid

    def forward(self, image: Tensor) -> Tensor:
        """Upscale NCHW images in [0, 1]."""
        if self.grid == 1:
            return self.module(image)
        height, width = image.shape[-2:]
        padding = (0, self._missing(width), 0, self._missing(height))
        output = self.module(F.pad(image, padding, "reflect"))
        return output[..., : height * self.scale, : width * self.scale]

    def _missing(self, side: int) -> int:
        """Return the pixels from a side to the next multiple of the grid.

        `-side % grid` is shorter, but TensorRT cannot bound a remainder, and then rejects shapes
        that are computed from it as possibly negative.
        """
        return (side + self.grid - 1) // self.grid * self.grid - side


def export(network: Network, strategy: Strategy) -> onnx.ModelProto:
    """Export a network to a graph with NCHW float32 `input` and `output`.

    Raises:
        ExportError: This strategy fails.
        CheckpointError: Every strategy would fail.
    """
    name = network.architecture
    size = 4 * network.parameters
    if size >= _LARGEST_FILE:
        raise CheckpointError(
            f"{name} cannot be exported: its weights take {size / 2**30:.1f} GiB, more than the "
            "2 GiB limit of an ONNX file"
        )
    scripted = isinstance(network.module, torch.jit.ScriptModule)
    with _translated():
        model = (_export_scripted if scripted else _export_traced)(network, strategy)
    if any(node.op_type.startswith("Random") for node in model.graph.node):
        raise CheckpointError(
            f"{name} cannot be exported: it draws random numbers, so its output is different each "
            "time and cannot be verified"
        )
    return tidy(model, strategy)


def _export_traced(network: Network, strategy: Strategy) -> onnx.ModelProto:
    """Export through torch.export, padding included."""
    free = torch.export.Dim.DYNAMIC
    axes = {0: free if strategy.batch is None else torch.export.Dim.STATIC}
    if strategy.size is None:
        axes |= {2: free, 3: free}
    example = torch.rand(_example_shape(network, strategy))
    return _traced(Padded(network, strategy.grid).eval(), example, axes)


def export_generator(module: nn.Module, size: int) -> onnx.ModelProto:
    """Export a module that generates images from noise (N, size).

    Raises:
        ExportError: The exporter fails.
    """
    with _translated():
        model = _traced(module, torch.randn(2, size), {0: torch.export.Dim.DYNAMIC})
    height, width = (
        each.dim_value for each in model.graph.output[0].type.tensor_type.shape.dim[2:]
    )
    return tidy(model, Strategy(1, None, (height, width)))


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Convert any exception of the exporter to an ExportError."""
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations inside the exporter
            yield
    except Exception as error:
        raise ExportError(_reason(error)) from error


def _traced(module: nn.Module, example: Tensor, axes: dict[int, Any]) -> onnx.ModelProto:
    program = torch.onnx.export(
        module,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        dynamic_shapes=(axes,),
        input_names=[INPUT],
        output_names=[OUTPUT],
        custom_translation_table={torch.ops.aten.sort.stable: _sort},
        verbose=False,
        optimize=True,
    )
    assert program is not None
    return program.model_proto


def _sort(values: Any, *, stable: bool, dim: int = -1, descending: bool = False) -> Any:
    """Translate a stable sort, which the exporter does not support, to TopK, which is stable."""
    operators: Any = opset18  # its annotations describe script functions, not tracing
    count = operators.Gather(operators.Shape(values), operators.Constant(value_ints=[dim]))
    return operators.TopK(values, count, axis=dim, largest=int(descending), sorted=1)


def _export_scripted(network: Network, strategy: Strategy) -> onnx.ModelProto:
    """Export TorchScript: only the old exporter supports it, and only as the outermost module."""
    batch, channels, height, width = _example_shape(network, strategy)
    grid = strategy.grid
    example = torch.rand(batch, channels, *(-(-side // grid) * grid for side in (height, width)))
    axes = {0: "batch"} if strategy.batch is None else {}
    if strategy.size is None:
        axes |= {2: "height", 3: "width"}
    buffer = io.BytesIO()
    torch.onnx.export(
        network.module,
        (example,),
        buffer,  # type: ignore[arg-type]  # the old exporter accepts file objects
        dynamo=False,
        opset_version=OPSET,
        dynamic_axes={INPUT: axes, OUTPUT: axes},
        input_names=[INPUT],
        output_names=[OUTPUT],
    )
    # A frozen module keeps its weights in Constant nodes; quantization and cost read initializers.
    model = onnx_graph.copied(onnx.load_model_from_string(buffer.getvalue()))
    return pad_inside(model, Padding(grid, network.scale))


def _example_shape(network: Network, strategy: Strategy) -> tuple[int, int, int, int]:
    if strategy.size is not None:
        return (1, network.channels, *strategy.size)
    # Odd on purpose: an example on the grid would freeze the branch without padding.
    side = max(network.minimum, 2 * strategy.grid) + 1
    return (strategy.batch or 2, network.channels, side | 1, (side + strategy.grid) | 1)


def tidy(model: onnx.ModelProto, strategy: Strategy) -> onnx.ModelProto:
    """Check the opset, name the dynamic axes, and strip metadata about the exporting machine."""
    opset = next(each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    if opset != OPSET:
        raise ExportError(f"the exporter wrote opset {opset} instead of {OPSET}")
    graph = model.graph
    for value, scaled in ((graph.input[0], False), (graph.output[0], True)):
        dims = value.type.tensor_type.shape.dim
        if strategy.batch is None:
            dims[0].dim_param = "batch"
        if strategy.size is None:
            dims[2].dim_param = "out_height" if scaled else "height"
            dims[3].dim_param = "out_width" if scaled else "width"
    # Intermediate shapes are the example's or the exporter's symbols; each runtime infers its own.
    del graph.value_info[:]
    holders = [model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer]
    for holder in holders:
        del holder.metadata_props[:]
        holder.doc_string = ""
    model.producer_name, model.producer_version = "sr-deploy", ""
    onnx.checker.check_model(model)
    return model


def _reason(error: BaseException) -> str:
    """Return the innermost cause of an exporter's error as one line, explained if known."""
    while error.__cause__ is not None:
        error = error.__cause__
    for pattern, explanation in _EXPLANATIONS.items():
        if found := re.search(pattern, str(error)):
            return explanation.format(*found.groups())
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"torch.onnx failed: {lines[0]}"[:200]
