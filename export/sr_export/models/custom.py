"""Networks of the user's own: a class in a file, TorchScript, or an exported program."""

from __future__ import annotations

import ast
import importlib.util
import math
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from sr_deploy.errors import CheckpointError, NotFoundError
from sr_export.checkpoint.weight_norm import remove_norms
from sr_export.models.network import Network, window_sizes
from sr_export.models.rewrite import rewrite

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from torch import Tensor

_SIDES = (64, 96, 128, 256)
# Larger ones are those of U-Nets with many levels, and seven times as much would take long.
_USUAL_GRID = 64
# What networks raise at sizes that they do not take.
FAILURES = (RuntimeError, ValueError, TypeError, IndexError, AssertionError)


def from_file(
    path: Path,
    name: str,
    candidates: Iterable[dict[str, Tensor]],
    arguments: Mapping[str, str] | None = None,
) -> Network:
    """Return the network of a module that a user's own class or function gives; see `loaded`."""
    return _probed(loaded(path, name, candidates, arguments), name)


def loaded(
    path: Path,
    name: str,
    candidates: Iterable[dict[str, Tensor]],
    arguments: Mapping[str, str] | None = None,
) -> nn.Module:
    """Build the module that a user's own class or function gives, and load the weights into it.

    This runs the file: it is the user's own word, on the command line, that it may.

    Args:
        path: a Python file.
        name: of what to call in it for the module.
        candidates: the weights, under differently stripped names.
        arguments: what to call it with, as Python writes it; what is no literal is a text.
    """
    given = {key: _value(text) for key, text in (arguments or {}).items()}
    called = f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})"
    module = _call(path, name, given, called)
    remove_norms(module)
    problem = ""
    for tensors in candidates:
        missing, unexpected = _misfits(module, tensors)
        if not missing and not unexpected:
            with torch.no_grad():
                for key, own in module.state_dict().items():
                    own.copy_(tensors[key])  # past the hooks that norms leave behind
            return module.eval()
        problem = problem or (
            f"{len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unexpected)} are not known or of another shape {unexpected[:3]}"
        )
    raise CheckpointError(f"the weights do not fit {called} of {path}: {problem}")


def _value(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _call(path: Path, name: str, arguments: dict[str, object], called: str) -> nn.Module:
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CheckpointError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        network = getattr(module, name)(**arguments)
    except Exception as error:  # the user's code may raise anything
        raise CheckpointError(
            f"{path}: {called} failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise CheckpointError(f"{path}: {called} gave a {type(network).__name__}, not a module")
    return network


def _misfits(module: nn.Module, tensors: dict[str, Tensor]) -> tuple[list[str], list[str]]:
    """Return the names that the weights lack, and those that do not fit the module."""
    own = module.state_dict()
    missing = [name for name in own if name not in tensors]
    unexpected = [
        name
        for name, tensor in tensors.items()
        if name not in own or own[name].shape != tensor.shape
    ]
    return missing, unexpected


def from_module(module: nn.Module, name: str) -> Network:
    """Return the network of a module, whose channels, scale and sizes are found out by running."""
    return _probed(module.eval(), name)


def from_program(program: torch.export.ExportedProgram) -> Network:
    """Return the network of an exported program; its example may have fixed the size."""
    module = program.module()
    # A program is exported for training or for inference once and for all, and refuses to switch.
    module.train = module.eval = lambda *_: module  # type: ignore[assignment, method-assign]
    inputs = program.graph_signature.user_inputs
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.name in inputs]
    if len(shapes) != 1 or len(shapes[0]) != 4:
        raise CheckpointError(
            f"torch.export: takes {[tuple(map(str, shape)) for shape in shapes]}; "
            "one image as batch, channels, height, width is exported"
        )
    sides = [side for side in shapes[0][2:] if isinstance(side, int)]
    size = (sides[0], sides[1]) if len(sides) == 2 else None
    return _probed(module, "torch.export", size)


def _probed(module: nn.Module, name: str, fixed: tuple[int, int] | None = None) -> Network:
    """Find out channels and scale by running the module."""
    rewrite(module)
    failure = ""
    sizes = [fixed] if fixed else [(side, side) for side in _SIDES]
    channels: Literal[1, 3]
    for channels in (3, 1):
        for size in sizes:
            try:
                output = _run(module, torch.full((1, channels, *size), 0.5))
            except FAILURES as error:
                failure = failure or " ".join(str(error).split())[:200]
                continue
            scale = output.shape[2] // size[0]
            if scale < 1 or output.shape != (1, channels, size[0] * scale, size[1] * scale):
                failure = f"from 1x{channels}x{size[0]}x{size[1]} it makes {tuple(output.shape)}"
                continue
            free = not fixed and _takes(module, channels, (2 * size[0], 2 * size[1]))
            return Network(
                module=module,
                architecture=name,
                scale=scale,
                channels=channels,
                grid=_grid(module, channels, scale) if free else 1,
                fixed_size=None if free else size,
                windowed=bool(window_sizes(module)),
            )
    raise CheckpointError(
        f"{name}: not a network from image to image: {failure}. One that makes images out of N "
        "random numbers goes with --arch-file and --latent N"
    )


def _run(module: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    with torch.inference_mode():
        output = module(image)
    if not isinstance(output, torch.Tensor) or output.ndim != 4:
        raise ValueError(f"it gives {type(output).__name__}, not one batch of images")
    return output


def _takes(module: nn.Module, channels: int, size: tuple[int, int]) -> bool:
    try:
        _run(module, torch.full((1, channels, *size), 0.5))
    except FAILURES:
        return False
    return True


def _grid(module: nn.Module, channels: int, scale: int) -> int:
    """Return the smallest grid on which the module itself runs and gives the right size."""
    named = math.lcm(1, *window_sizes(module))
    for grid in (1, 2, 4, 8, 16, 32, 64, 128, 256):
        size = (7 * grid, 9 * grid) if grid <= _USUAL_GRID else (grid, 3 * grid)
        try:
            output = _run(module, torch.full((1, channels, *size), 0.5))
        except FAILURES:
            continue
        if output.shape[2:] == (size[0] * scale, size[1] * scale):
            return math.lcm(grid, named)
    return named
