"""Load a checkpoint file: weights, TorchScript, a torch.export program, ONNX, or Keras."""

from __future__ import annotations

import math
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch
import torch

from sr_deploy.bundle import onnx_bounds
from sr_deploy.errors import BundleError, CheckpointError, SrDeployError
from sr_export.checkpoint import file_kind, int8_record, state_dict, unpickle, weight_norm

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_export.checkpoint.int8_record import Trained

# The square of a larger weight overflows float32, so that two such layers in a row do, too.
_LARGEST_WEIGHT = 2.0**64


@dataclass(frozen=True)
class Weights:
    """The state dict of one network.

    Attributes:
        tensors: by the network's own names, possibly behind a prefix that all share (see
            `state_dict.strippings`). float32 (integers and booleans keep their dtype),
            contiguous, finite, on the CPU; owned by the caller.
        taken: where in the file they are, for the user: "params_ema (of params, params_ema)".
        trained: the tensors that were trained in INT8; their values are INT8 levels.
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
    """An ONNX file within bounds that has not been parsed yet."""

    path: Path


@dataclass(frozen=True)
class Keras:
    """A Keras file that has not been read yet."""

    path: Path


Content = Weights | Scripted | Program | Onnx | Keras


def read(path: Path, *, ema: bool = True, key: str | None = None, trust: bool = False) -> Content:
    """Read a checkpoint of any supported kind. Without `trust`, no code in the file is run.

    Args:
        path: the file; its content decides the kind, not its suffix.
        ema: prefer the averaged copy of the weights if there is one.
        key: path of the weights inside the file ("netG.params"), where it is ambiguous.
        trust: open TorchScript and torch.export programs, which can run code.

    Raises:
        NotFoundError: there is no such file.
        CheckpointError: the file cannot be read, or does not contain exactly one network.
    """
    kind = file_kind.identify(path)
    if key is not None and kind in ("onnx", "torchscript", "program"):
        raise CheckpointError(f"{path}: --key is for checkpoints of weights; this is {kind}")
    if kind == "onnx":
        try:
            onnx_bounds.check(path, external=True)
        except BundleError as error:
            raise CheckpointError(str(error)) from error
        return Onnx(path)
    if kind == "keras":
        return Keras(path)
    if kind in ("torchscript", "program"):
        if not trust:
            name = "TorchScript" if kind == "torchscript" else "a torch.export program"
            raise CheckpointError(
                f"{path}: this is {name}, a program that can run any code when it is opened; "
                "if you trust its author, pass --trust"
            )
        return _opened(path, _load_scripted if kind == "torchscript" else _load_program)
    content: object
    if kind == "safetensors":
        content = _load_safetensors(path)
    else:
        content = unpickle.load(path, legacy=kind == "torch-legacy")
    try:
        taken, tensors = state_dict.select(content, ema=ema, key=key)
        # Views can repeat a few stored numbers until memory is full.
        claimed = sum(each.numel() * each.element_size() for each in tensors.values())
        size = path.stat().st_size
        if claimed > file_kind.MAX_EXPANSION * size:
            raise CheckpointError(
                f"its tensors claim {claimed} bytes, but the file has {size}; it is damaged or "
                "forged"
            )
        plain = weight_norm.fold({name: _plain(name, each) for name, each in tensors.items()})
        if not isinstance(content, Mapping) or int8_record.KEY not in content:
            return Weights(plain, taken)
        trained = int8_record.read(content[int8_record.KEY], plain)
        return Weights(int8_record.on_levels(plain, trained), taken, trained)
    except SrDeployError as error:
        raise CheckpointError(f"{path}: {error}") from error


def _plain(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """Return a dense copy in float32 (integers keep their dtype) with usable values."""
    if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
        raise CheckpointError(f"the tensor {name!r} is sparse, quantized or without data")
    if tensor.is_complex():
        raise CheckpointError(f"the tensor {name!r} is complex; only real networks are supported")
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    copy = torch.empty(tensor.shape, dtype=dtype).copy_(tensor.detach())
    if dtype == torch.float32 and copy.numel():
        low, high = map(float, copy.aminmax())
        if not -_LARGEST_WEIGHT <= low <= high <= _LARGEST_WEIGHT:
            found = "NaN" if math.isnan(low) else f"values as large as {max(-low, high):.3g}"
            raise CheckpointError(
                f"the tensor {name!r} contains {found}, which FP32 inference cannot use; the file "
                "is damaged, or the training diverged"
            )
    return copy


def _load_safetensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path}: damaged safetensors file ({error})") from error


def _opened(path: Path, load: Callable[[Path], Scripted | Program]) -> Scripted | Program:
    """Open a trusted program; report anything that it raises as one line."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecations concern the program's author
        try:
            return load(path)
        except CheckpointError:
            raise
        except Exception as error:
            cause = next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
            text = f"{path}: cannot be loaded by torch {torch.__version__} ({cause})"
            raise CheckpointError(text) from error


def _load_scripted(path: Path) -> Scripted:
    module: torch.jit.ScriptModule = torch.jit.load(str(path), "cpu")  # type: ignore[no-untyped-call]
    module.eval()
    return Scripted(module)


def _load_program(path: Path) -> Program:
    """Load a torch.export program.

    torch evaluates expressions of the file as Python (shapes, guards), and may fall back to an
    unrestricted pickle.
    """
    with zipfile.ZipFile(path) as archive:
        if any("/data/aotinductor/" in name for name in archive.namelist()):
            raise CheckpointError(
                f"{path}: compiled by AOTInductor for one machine; save it with torch.export.save"
            )
    with path.open("rb") as file:
        program = torch.export.load(file)
    return Program(program.module(), program)
