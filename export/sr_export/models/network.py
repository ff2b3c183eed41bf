"""A network that is ready for export, and its properties: scale, channels, grid, pixel values.

They come from spandrel's description of the network, or from running the module.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from sr_deploy.errors import CheckpointError
from sr_export.models.outputs import with_border, with_one_output
from sr_export.models.ranges import cubic
from sr_export.models.rewrite import rewrite
from sr_export.models.spandrel_import import ImageModelDescriptor

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from sr_export.models.ranges import Ranges

_PROBE_SIDE = 64
_SIDES = (64, 96, 128, 256)
_GRIDS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
# Larger grids belong to deep U-Nets; running them at seven times the grid would be slow.
_USUAL_GRID = 64
# Attributes in which modules store the size of their windows.
_WINDOW_NAMES = ("window_size", "split_size", "patch_size", "win_size", "ws")
FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)
"""What modules raise for inputs of a size that they do not support."""


@dataclass(frozen=True)
class Network:
    """A module in eval mode, NCHW float32 in and out, and its properties."""

    module: nn.Module
    architecture: str
    scale: int
    channels: Literal[1, 3]
    grid: int = 1
    """Sides that are multiples of this need no padding."""
    minimum: int = 1
    """Smallest side known to work."""
    windowed: bool = False
    """Whether the module divides images into windows."""
    fixed_size: tuple[int, int] | None = None
    """The only (height, width) that works; None: any."""
    ranges: Ranges | None = None
    """Its pixel values; None: unknown."""
    how: str = ""
    """How settings were decided that the weights do not determine, for the user."""
    assumed: tuple[str, ...] = ()
    """Settings that photos do not confirm, for the user."""
    settled: bool = False
    """Whether `ranges` were measured with these weights; else they are usual for the
    architecture."""
    restores: bool = True
    """Whether it restores photos with these settings."""

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(each.numel() for each in self.module.parameters())

    def probe_size(self) -> tuple[int, int]:
        """Return a (height, width) that needs no padding."""
        side = math.ceil(max(_PROBE_SIDE, self.minimum) / self.grid) * self.grid
        return self.fixed_size or (side, side)


def from_descriptor(descriptor: object, name: str) -> Network:
    """Return the network that spandrel describes.

    Raises:
        CheckpointError: it does not map one gray or RGB image to one of the same kind.
    """
    if not isinstance(descriptor, ImageModelDescriptor):
        raise CheckpointError(
            f"{name}: needs a mask besides the image; only networks with one image as input are "
            "supported"
        )
    inputs, outputs = descriptor.input_channels, descriptor.output_channels
    call = descriptor._call_fn
    if name == "DRUNet" and inputs == outputs - 1:
        # Trained without the noise level map that spandrel always adds to the image.
        inputs, call = outputs, lambda model, image: model(image)
    if inputs not in (1, 3) or outputs != inputs:
        raise CheckpointError(_channels_text(name, inputs, outputs))
    requirements = descriptor.size_requirements
    if requirements.square:
        raise CheckpointError(f"{name}: accepts square images only, so it cannot run in tiles")
    module = _SpandrelModule(descriptor.model, call)
    rewrite(module)
    windows = window_sizes(module)
    return Network(
        module=module.eval(),
        architecture=name,
        scale=descriptor.scale,
        channels=inputs,
        grid=math.lcm(requirements.multiple_of, *windows),
        minimum=max(1, requirements.minimum),
        windowed=bool(windows),
    )


def _channels_text(name: str, inputs: int, outputs: int) -> str:
    meaning = ""
    if (inputs, outputs) == (3, 1):
        meaning = ": it computes a map of an image (such as depth or a mask), not an image"
    elif outputs in (1, 3) and inputs > outputs:
        meaning = f": an image and {inputs - outputs} more channels (such as a noise level)"
    return (
        f"{name}: {inputs} input and {outputs} output channels{meaning}; supported are 1 or 3 for "
        "both. For further inputs, use --arch-file with a class that keeps them constant"
    )


class _SpandrelModule(nn.Module):
    """A spandrel model as a plain module, without the padding and clamping of its descriptor."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        # Only the descriptor knows how to call models with other inputs or outputs.
        self._call = call

    def forward(self, image: Tensor) -> Tensor:
        # Some models (RCAN) write into their input.
        return self._call(self.model, image.clone())


def window_sizes(module: nn.Module) -> set[int]:
    """Return the window sizes stored in a module's parts, which divide the sides of images."""
    sizes: set[int] = set()
    for part in module.modules():
        for name in _WINDOW_NAMES:
            value = getattr(part, name, None)
            for size in value if isinstance(value, tuple | list) else [value]:
                if type(size) is int and 1 < size <= 64:
                    sizes.add(size)
    return sizes


def from_program(program: torch.export.ExportedProgram, output: str | None = None) -> Network:
    """Return the network of a torch.export program, whose example may have fixed the size."""
    module = program.module()
    # A program is exported for training or for inference; switching raises an error.
    module.train = module.eval = lambda *_: module  # type: ignore[assignment, method-assign]
    inputs = program.graph_signature.user_inputs
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise CheckpointError(
            f"torch.export: has inputs {[tuple(map(str, shape)) for shape in shapes]}; expected "
            "one image as batch, channels, height, width"
        )
    sides = [side for side in shapes[0][2:] if isinstance(side, int)]
    size = (sides[0], sides[1]) if len(sides) == 2 else None
    return from_module(module, "torch.export", size, output)


def from_module(
    module: nn.Module,
    name: str,
    fixed: tuple[int, int] | None = None,
    output: str | None = None,
) -> Network:
    """Return the network of a module; channels, scale and sizes are measured by running it.

    Args:
        module: The module.
        name: Name of the architecture.
        fixed: The only (height, width) that it accepts; None: unknown.
        output: Name or number of its output, of several; None: the only one that is an image.

    Raises:
        CheckpointError: it does not map one gray or RGB image to one of the same kind.
    """
    module.eval()
    rewrite(module)
    failure = ""
    sizes = [fixed] if fixed else [(side, side) for side in _SIDES]
    channels: Literal[1, 3]
    for channels in (3, 1):
        for size in sizes:
            try:
                found = _call(module, channels, size)
                single, how = with_one_output(module, found, channels, size, output)
                image = _run(single, channels, size)
                if not fixed and image.shape[2] % size[0] and image.shape[1] == channels:
                    single = with_border(single, channels, size[0])
                    image = _run(single, channels, size)
            except CheckpointError:
                raise
            except FAILURES as error:
                failure = failure or " ".join(str(error).split())[:200]
                continue
            scale = image.shape[2] // size[0]
            if scale < 1 or image.shape != (1, channels, size[0] * scale, size[1] * scale):
                failure = f"1x{channels}x{size[0]}x{size[1]} becomes {tuple(image.shape)}"
                continue
            free = not fixed and _accepts(single, channels, (2 * size[0], 2 * size[1]))
            return Network(
                module=single,
                architecture=name,
                scale=scale,
                channels=channels,
                grid=_measure_grid(single, channels, scale) if free else 1,
                fixed_size=None if free else size,
                windowed=bool(window_sizes(module)),
                how=how,
            )
    raise CheckpointError(
        f"{name}: not a network from image to image: {failure}. For a generator of images from N "
        "random numbers, use --arch-file and --latent N"
    )


def _call(module: nn.Module, channels: int, size: tuple[int, int]) -> object:
    with torch.inference_mode():
        return module(torch.full((1, channels, *size), 0.5))


def _run(module: nn.Module, channels: int, size: tuple[int, int]) -> Tensor:
    output = _call(module, channels, size)
    if not isinstance(output, torch.Tensor) or output.ndim != 4:
        raise ValueError(f"returns {type(output).__name__}, not one batch of images")
    return output


def _accepts(module: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    try:
        _run(module, channels, size)
    except FAILURES:
        return False
    return True


def _measure_grid(module: nn.Module, channels: int, scale: int) -> int:
    """Return the smallest grid on which the module runs and returns the right size."""
    named = math.lcm(1, *window_sizes(module))
    for grid in _GRIDS:
        size = (7 * grid, 9 * grid) if grid <= _USUAL_GRID else (grid, 3 * grid)
        try:
            output = _run(module, channels, size)
        except FAILURES:
            continue
        if output.shape[2:] == (size[0] * scale, size[1] * scale):
            return math.lcm(grid, named)
    return named


def with_ranges(module: nn.Module, ranges: Ranges | None) -> nn.Module:
    """Return a module on RGB in [0, 1] for one on other pixel values."""
    return module if ranges is None or ranges.plain else _RangedModule(module, ranges)


class _RangedModule(nn.Module):
    """A module on RGB in [0, 1]: `Ranges.around` in PyTorch."""

    def __init__(self, module: nn.Module, ranges: Ranges) -> None:
        super().__init__()
        self.module = module
        self._ranges = ranges
        self._maps = nn.ParameterList(
            torch.from_numpy(each) for each in (*ranges.input_map(), *ranges.output_map())
        )
        self._colors = nn.ParameterList(
            torch.from_numpy(each) for each in (*ranges.to_color(), *ranges.from_color())
        )

    def forward(self, image: Tensor) -> Tensor:
        before, shift, after, rest = self._maps
        matrix, offset, inverse, back = self._colors
        colored = self._ranges.color != "rgb"
        colors = _mixed(image, matrix, offset) if colored else image
        luma = self._ranges.luma_only and image.shape[1] == 3 and self._takes_gray()
        given = self._enlarged(colors[:, :1] if luma else colors, self._ranges.enlarge)
        output = self.module(given * before + shift) * after + rest
        if self._ranges.residual != "none":
            output = output + given
        if luma:
            factor = output.shape[2] // image.shape[2]
            output = torch.cat([output, self._enlarged(colors[:, 1:], factor)], 1)
        output = output.clamp(0, 1) if self._ranges.luma_only else output
        return _mixed(output, inverse, back) if colored else output

    def _takes_gray(self) -> bool:
        first = next(each for each in self.module.parameters() if each.ndim == 4)
        return first.shape[1] == 1

    def _enlarged(self, image: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return image
        rows, columns = (
            torch.from_numpy(cubic(side, factor, self._ranges.cubic)).to(image)
            for side in image.shape[2:]
        )
        return rows @ image @ columns.T


def _mixed(image: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    return torch.einsum("kc,nchw->nkhw", matrix, image) + offset.view(1, -1, 1, 1)
