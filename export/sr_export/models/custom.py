"""Load weights into the user's own module: a class or function in a Python file."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from sr_deploy.errors import CheckpointError, InvalidInputError, NotFoundError
from sr_export.checkpoint.weight_norm import remove_norms

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor


def load_module(
    arch_file: Sequence[str], candidates: Iterable[dict[str, Tensor]]
) -> tuple[str, nn.Module]:
    """Return the name and the module of --arch-file, in eval mode, with the weights loaded.

    This runs the Python file: naming it on the command line permits that.

    Args:
        arch_file: "FILE.py:CLASS", and arguments "KEY=VALUE" for the class or function. Values
            are Python literals; any other text is a string.
        candidates: the weights with different prefixes removed.

    Raises:
        CheckpointError: the file fails, returns no module, or the weights do not fit.
        NotFoundError: there is no such file.
        InvalidInputError: an argument is malformed.
    """
    source, *pairs = arch_file
    file, _, name = source.rpartition(":")
    path = Path(file)
    arguments = {key: _literal(text) for key, text in parse_arguments(name, pairs).items()}
    call = f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    module = _call(path, name, arguments, call)
    remove_norms(module)
    problem = ""
    for tensors in candidates:
        own = module.state_dict()
        missing = [key for key in own if key not in tensors]
        unexpected = [
            key
            for key, tensor in tensors.items()
            if key not in own or own[key].shape != tensor.shape
        ]
        if not missing and not unexpected:
            with torch.no_grad():
                for key, each in own.items():
                    each.copy_(tensors[key])  # bypasses hooks that norms leave behind
            return name, module.eval()
        problem = problem or (
            f"{len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unexpected)} are unknown or have another shape {unexpected[:3]}"
        )
    raise CheckpointError(f"the weights do not fit {call} of {path}: {problem}")


def parse_arguments(name: str, pairs: Iterable[str]) -> dict[str, str]:
    """Return arguments such as "scale=2" by name.

    Raises:
        InvalidInputError: one is malformed; the message names it and `name`, their receiver.
    """
    found = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not (key.isidentifier() and value):
            raise InvalidInputError(f"{name}: expected KEY=VALUE, such as scale=2; found {pair!r}")
        found[key] = value
    return found


def _literal(text: str) -> object:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _call(path: Path, name: str, arguments: dict[str, object], call: str) -> nn.Module:
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
        raise CheckpointError(f"{path}: {call} failed: {type(error).__name__}: {error}") from error
    if not isinstance(network, nn.Module):
        raise CheckpointError(
            f"{path}: {call} returned a {type(network).__name__}, expected a torch.nn.Module"
        )
    return network
