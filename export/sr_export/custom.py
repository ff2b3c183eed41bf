"""Networks of the user's own: a class in a file, TorchScript, or an exported program."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from sr_deploy.errors import CheckpointError, NotFoundError
from sr_export.network import Network, fuse_reparametrised, window_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from torch import Tensor

_SIDES = (64, 96, 128, 256)


def from_function(path: Path, function: str, candidates: Iterable[dict[str, Tensor]]) -> Network:
    """Build the module that a user's own function or class gives, and load the weights into it.

    This runs the file: it is the user's own word, on the command line, that it may.

    Args:
        path: a Python file.
        function: what to call in it, without arguments, for the module.
        candidates: the weights, under differently stripped names.
    """
    module = _call(path, function)
    problem = ""
    for tensors in candidates:
        missing, unexpected = _misfits(module, tensors)
        if not missing and not unexpected:
            module.load_state_dict(tensors)
            return _probed(module.eval(), function)
        problem = problem or (
            f"{len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unexpected)} are not known {unexpected[:3]}"
        )
    raise CheckpointError(f"the weights do not fit {function} of {path}: {problem}")


def _call(path: Path, function: str) -> nn.Module:
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CheckpointError(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        network = getattr(module, function)()
    except Exception as error:  # the user's code may raise anything
        raise CheckpointError(
            f"{path}: {function}() failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(network, nn.Module):
        raise CheckpointError(f"{path}: {function}() gave a {type(network).__name__}, not a module")
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


def from_module(module: nn.Module, kind: str) -> Network:
    """Return the network of a TorchScript module or an exported program."""
    return _probed(module, kind)


def _probed(module: nn.Module, name: str) -> Network:
    """Find out channels and scale by running the module."""
    fuse_reparametrised(module)
    failure = ""
    for channels in (3, 1):
        for side in _SIDES:
            try:
                output = _run(module, torch.full((1, channels, side, side), 0.5))
            except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
                failure = failure or " ".join(str(error).split())[:200]
                continue
            scale = output.shape[2] // side
            if scale < 1 or output.shape != (1, channels, side * scale, side * scale):
                failure = f"from 1x{channels}x{side}x{side} it makes {tuple(output.shape)}"
                continue
            return Network(
                module=module,
                architecture=name,
                scale=scale,
                channels=channels,
                grid=_grid(module, channels, scale),
                fixed_size=None if _takes(module, channels, side + 64) else (side, side),
            )
    raise CheckpointError(f"{name}: not a network from image to image: {failure}")


def _run(module: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    with torch.inference_mode():
        output = module(image)
    if not isinstance(output, torch.Tensor) or output.ndim != 4:
        raise ValueError(f"it gives {type(output).__name__}, not one batch of images")
    return output


def _takes(module: nn.Module, channels: int, side: int) -> bool:
    try:
        _run(module, torch.full((1, channels, side, side), 0.5))
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


def _grid(module: nn.Module, channels: int, scale: int) -> int:
    """Return the smallest grid on which the module itself runs and gives the right size."""
    named = math.lcm(1, *window_sizes(module))
    for grid in (1, 2, 4, 8, 16, 32, 64):
        size = (7 * grid, 9 * grid)
        try:
            output = _run(module, torch.full((1, channels, *size), 0.5))
        except (RuntimeError, ValueError, AssertionError):
            continue
        if output.shape[2:] == (size[0] * scale, size[1] * scale):
            return math.lcm(grid, named)
    return named
