"""Load weights into the user's own module: a class or function in a Python file."""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sr_deploy.errors import CheckpointError, InvalidInputError, NotFoundError
from sr_export.checkpoint.weight_norm import remove_norms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor


def load_module(
    arch_file: Sequence[str], candidates: Iterable[dict[str, Tensor]]
) -> tuple[str, nn.Module]:
    """Return the name and the module of --arch-file, in eval mode, with the weights loaded.

    This runs the Python file: naming it on the command line permits that.

    Args:
        arch_file: "FILE.py:CLASS", and arguments "KEY=VALUE" for the class or function, or for
            `forward`. Values are Python literals; any other text is a string.
        candidates: the weights with different prefixes removed.

    Raises:
        CheckpointError: the file fails, returns no module, or the weights do not fit.
        NotFoundError: there is no such file.
        InvalidInputError: an argument is malformed.
    """
    path, name, build, arguments = find_builder(arch_file)
    call = f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
    try:
        module = build(**_accepted(build, arguments))
    except Exception as error:  # the user's code may raise anything
        raise CheckpointError(f"{path}: {call} failed: {type(error).__name__}: {error}") from error
    if not isinstance(module, nn.Module):
        raise CheckpointError(
            f"{path}: {call} returned a {type(module).__name__}, expected a torch.nn.Module"
        )
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
            return name, _with_arguments(module.eval(), arguments, call)
        problem = problem or (
            f"{len(missing)} tensors are missing {missing[:3]}, "
            f"{len(unexpected)} are unknown or have another shape {unexpected[:3]}"
        )
    raise CheckpointError(f"the weights do not fit {call} of {path}: {problem}")


def find_builder(
    arch_file: Sequence[str],
) -> tuple[Path, str, Callable[..., object], dict[str, object]]:
    """Run the file of --arch-file; return its path, the class or function, and its arguments.

    Raises:
        CheckpointError: The file fails, or has no such class.
        NotFoundError: There is no such file.
        InvalidInputError: An argument is malformed.
    """
    source, *pairs = arch_file
    file, _, wanted = source.rpartition(":")
    path = Path(file)
    arguments = {key: _literal(text) for key, text in parse_arguments(wanted, pairs).items()}
    if not path.is_file():
        raise NotFoundError(f"{path}: no such file")
    if path.suffix != ".py":
        raise CheckpointError(f"{path}: not a Python file (.py)")
    try:
        module = _import(path.resolve())
    except Exception as error:  # the user's code may raise anything
        text = f"{path}: failed: {type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and str(error.name).startswith("tensorflow"):
            text += "; write keras in place of tensorflow.keras, and keras.ops in place of tf.nn"
        raise CheckpointError(text) from error
    name = _matching(path, module, wanted)
    return path, name, getattr(module, name), arguments


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


def _import(path: Path) -> ModuleType:
    """Run a Python file so that its siblings and its package are importable.

    A file with relative imports runs as part of its package. Where the package's own `__init__.py`
    fails (training programs import their data loaders there), it runs without that.
    """
    levels = _relative_levels(path)
    names, root = [path.stem], path.parent
    while root.parent != root and ((root / "__init__.py").is_file() or len(names) <= levels):
        names.insert(0, root.name)
        root = root.parent
    # In front, as Python does for a script; the others behind whatever is installed.
    sys.path.insert(0, str(path.parent))
    for folder in (str(path.parent.parent), str(root)):
        if folder not in sys.path:
            sys.path.append(folder)
    if not levels:
        return _run_alone(path)
    try:
        return importlib.import_module(".".join(names))
    except Exception:  # noqa: BLE001 - the user's code may raise anything
        for i in range(1, len(names)):
            package = ModuleType(".".join(names[:i]))
            package.__path__ = [str(root.joinpath(*names[:i]))]
            sys.modules[package.__name__] = package
        return importlib.import_module(".".join(names))


def _relative_levels(path: Path) -> int:
    """Return how many packages the relative imports of a file need around it."""
    nodes = ast.walk(ast.parse(path.read_bytes()))
    return max((node.level for node in nodes if isinstance(node, ast.ImportFrom)), default=0)


def _run_alone(path: Path) -> ModuleType:
    name = path.stem if path.stem not in sys.modules else f"arch_file_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, "its suffix is .py"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    return module


def _matching(path: Path, module: ModuleType, wanted: str) -> str:
    """Return the name of a class or function, compared without regard to case.

    Raises:
        CheckpointError: There is none; the message suggests others.
    """
    callables = [name for name, each in vars(module).items() if callable(each)]
    same = [name for name in callables if name.lower() == wanted.lower()]
    if wanted in callables or len(same) == 1:
        return wanted if wanted in callables else same[0]
    origins = {name: getattr(vars(module)[name], "__module__", "") for name in callables}
    own = [name for name, origin in origins.items() if origin == module.__name__]
    near = difflib.get_close_matches(wanted, own, 1)
    networks = [name for name in own if inspect.isclass(getattr(module, name))] or own
    hint = f"did you mean {near[0]}? " if near else ""
    raise CheckpointError(
        f"{path}: has no class or function {wanted!r}; {hint}It has {', '.join(networks) or 'none'}"
    )


def _accepted(build: Callable[..., object], arguments: dict[str, object]) -> dict[str, object]:
    """Return the arguments for a class or function, without those that only `forward` has."""
    try:
        parameters = inspect.signature(build).parameters
    except (TypeError, ValueError):
        return arguments
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return arguments
    forward = getattr(build, "forward", None)
    called = inspect.signature(forward).parameters if forward is not None else {}
    return {
        name: value for name, value in arguments.items() if name in parameters or name not in called
    }


def _with_arguments(module: nn.Module, arguments: dict[str, object], call: str) -> nn.Module:
    """Return a module that needs nothing but the image.

    Raises:
        CheckpointError: `forward` needs an argument that was not given.
    """
    others = list(inspect.signature(module.forward).parameters.values())[1:]
    usual = [each for each in others if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    missing = [
        each.name for each in usual if each.default is each.empty and each.name not in arguments
    ]
    if missing:
        raise CheckpointError(
            f"{call}: forward() needs {', '.join(missing)} besides the image; add "
            f"{' '.join(f'{name}=VALUE' for name in missing)} to --arch-file"
        )
    given = {each.name: arguments[each.name] for each in usual if each.name in arguments}
    return _CalledWith(module, given) if given else module


class _CalledWith(nn.Module):
    """A module that is called with further arguments."""

    def __init__(self, module: nn.Module, arguments: dict[str, Any]) -> None:
        super().__init__()
        self.module = module
        self._arguments = arguments

    def forward(self, image: Tensor) -> object:
        return self.module(image, **self._arguments)
