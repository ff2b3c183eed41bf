"""From a file that somebody trained to its typed content: weights, a program or ONNX."""

from __future__ import annotations

import re
import warnings
import zipfile
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
import torch

from sr_deploy.errors import CheckpointError, SrDeployError
from sr_export.checkpoint import file_kind, int8_record, state_dict, unpickle, weight_norm

if TYPE_CHECKING:
    from pathlib import Path

    from sr_export.checkpoint.int8_record import Trained


@dataclass(frozen=True)
class Weights:
    """A state dict of one network.

    Attributes:
        tensors: by the architecture's own names, but for prefixes that all share (see
            `layout.strippings`); float32 (integers and booleans stay), contiguous, finite, on
            the CPU, owned by the caller.
        taken: for the user, what was taken of what: "params_ema (of params, params_ema)".
        trained: the tensors that were trained in INT8; they are on its levels.
    """

    tensors: dict[str, torch.Tensor]
    taken: str
    trained: dict[str, Trained] = field(default_factory=dict)


@dataclass(frozen=True)
class Scripted:
    """A TorchScript module in eval mode, on the CPU."""

    module: torch.jit.ScriptModule


@dataclass(frozen=True)
class Program:
    """A torch.export program, and the module that runs it."""

    module: torch.nn.Module
    program: torch.export.ExportedProgram


@dataclass(frozen=True)
class Onnx:
    """An ONNX file; its content was not looked at beyond what says that it is one."""

    path: Path


Content = Weights | Scripted | Program | Onnx


def read(path: Path, *, ema: bool = True, key: str | None = None, trust: bool = False) -> Content:
    """Read a checkpoint; its kind is told by its content. Nothing in it is run.

    Args:
        path: the file.
        ema: take the averaged copy of the weights where there is one.
        key: the path of the weights inside the file ("netG.params") where it is not plain.
        trust: open a torch.export program, whose format can hold code that runs on opening.

    Raises:
        NotFoundError: there is no such file.
        CheckpointError: the file cannot be read, or holds no one network; the text says why.
    """
    kind = file_kind.identify(path)
    if key is not None and kind in ("onnx", "torchscript", "program"):
        raise CheckpointError(f"{path}: --key is for checkpoints of weights; this is {kind}")
    if kind == "onnx":
        return Onnx(path)
    if kind == "torchscript":
        return Scripted(_load_scripted(path))
    if kind == "program":
        return _load_program(path, trust=trust)
    content: object
    if kind == "safetensors":
        content = _load_safetensors(path)
    else:
        content = unpickle.load(path, legacy=kind == "torch-legacy")
    try:
        taken, tensors = state_dict.select(content, ema=ema, key=key)
        _check_size(tensors, path.stat().st_size)
        plain = weight_norm.fold({name: _plain(name, each) for name, each in tensors.items()})
        found = int8_record.read(content, plain)
        return Weights(int8_record.on_levels(plain, found), taken, found)
    except SrDeployError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _check_size(tensors: dict[str, torch.Tensor], size: int) -> None:
    """Refuse tensors that repeat a few stored numbers until they fill the memory."""
    claimed = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    if claimed > file_kind.MAX_EXPANSION * size:
        raise CheckpointError(
            f"its tensors claim {claimed} bytes, but the file has {size}; it is damaged or forged"
        )


def _plain(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a copy in float32 (or the same integers), or refuse what is no plain tensor."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        raise CheckpointError(f"the tensor {name!r} is sparse, quantised or without data")
    if tensor.is_complex():
        raise CheckpointError(f"the tensor {name!r} is complex; networks here are real")
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    copy = torch.empty(tensor.shape, dtype=dtype).copy_(tensor.detach())
    if dtype == torch.float32 and not bool(copy.isfinite().all()):
        kind = "NaN" if bool(copy.isnan().any()) else "infinite values"
        raise CheckpointError(f"the tensor {name!r} holds {kind}; was the training stable?")
    return copy


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: a damaged safetensors file ({error})") from error


# The functions of TorchScript that reach files.
_REACHES_FILES = re.compile(r"\b(save|from_file|load_tensor)\b")
_PLAIN_GETATTR = re.compile(r'\bgetattr\([\w.]+, "\w+"\)')


def _load_scripted(path: Path) -> torch.jit.ScriptModule:
    """Load TorchScript: a language of its own that knows tensors and, but for three, no files."""
    for code in _code_of(path):
        _check_script(path, code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the format is old is no news to those who have it
        try:
            module: torch.jit.ScriptModule = torch.jit.load(str(path), "cpu")  # type: ignore[no-untyped-call]
            module.eval()
        except Exception as error:
            text = f"{path}: TorchScript that cannot be loaded ({_first_line(error)})"
            raise CheckpointError(text) from error
    return module


def _code_of(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.endswith(".py")]
            return [archive.read(name).decode() for name in names]
    except Exception as error:
        text = f"{path}: damaged TorchScript ({_first_line(error)})"
        raise CheckpointError(text) from error


def _check_script(path: Path, code: str) -> None:
    """Refuse code that names a function on files, plainly or as a text that getattr looks up."""
    rest, before = code, ""
    while rest != before:
        rest, before = _PLAIN_GETATTR.sub("_", rest), rest
    found = _REACHES_FILES.search(code) or re.search(r"\bgetattr\b", rest)
    if found:
        raise CheckpointError(
            f"{path}: TorchScript that uses {found.group()!r}, which can reach files; "
            "a network has no need of it, so it is not opened"
        )


def _load_program(path: Path, *, trust: bool) -> Program:
    """Load a torch.export program.

    Opening one evaluates texts of the file as Python (shape expressions, guards) and may fall
    back to an unrestricted pickle, so only files that the user vouches for are opened.
    """
    if not trust:
        raise CheckpointError(
            f"{path}: a torch.export program, a format whose files can run code when opened; "
            "if you made it yourself, pass --trust"
        )
    with zipfile.ZipFile(path) as archive:
        if any("/data/aotinductor/" in name for name in archive.namelist()):
            raise CheckpointError(
                f"{path}: compiled by AOTInductor for one machine; export it with torch.export.save"
            )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with path.open("rb") as file:
                program = torch.export.load(file)
            return Program(program.module(), program)
        except Exception as error:
            text = f"{path}: torch {torch.__version__} cannot open it ({_first_line(error)})"
            raise CheckpointError(text) from error


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
