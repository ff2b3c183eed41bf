"""A network ready for export: RGB (or gray) in [0, 1] in, the same out, and what is known of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import nn

from sr_deploy.errors import CheckpointError
from sr_export.registry import registry  # first, since it sees to spandrel's import
from sr_export.rewriting import rewrite

from spandrel import ImageModelDescriptor  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import torch
    from torch import Tensor

_PROBE_SIDE = 64
# Attributes by which networks with windows say how large their windows are.
_WINDOW_NAMES = ("window_size", "split_size", "patch_size", "win_size", "ws")


@dataclass(frozen=True)
class Network:
    """A module in evaluation mode, NCHW float32 in and out, and what its author says of it."""

    module: nn.Module
    architecture: str
    scale: int
    channels: Literal[1, 3]
    grid: int = 1
    """Sides that are multiples of this are known to go through the module unpadded."""
    minimum: int = 1
    """The smallest side that is known to go through."""
    windowed: bool = False
    """Whether parts of it cut images into windows."""
    fixed_size: tuple[int, int] | None = None
    """The only (height, width) that it takes."""

    @property
    def parameters(self) -> int:
        """The number of weights."""
        return sum(each.numel() for each in self.module.parameters())

    def probe_size(self) -> tuple[int, int]:
        """Return a (height, width) that the module takes unpadded."""
        side = math.ceil(max(_PROBE_SIDE, self.minimum) / self.grid) * self.grid
        return self.fixed_size or (side, side)


def known_architectures() -> set[str]:
    """Return the identifiers of all architectures that are recognised."""
    return {str(each.architecture.id) for each in registry()}


def recognise(candidates: Iterable[dict[str, Tensor]], architecture: str | None = None) -> Network:
    """Build the network that weights belong to.

    Args:
        candidates: the same weights under differently stripped names, likeliest first.
        architecture: its identifier, where detection should not decide.

    Raises:
        CheckpointError: no architecture has these weights, or one that cannot be exported.
    """
    first: dict[str, Tensor] = {}
    misfit: CheckpointError | None = None
    for tensors in candidates:
        first = first or tensors
        for support in registry().architectures("detection"):
            name = str(support.architecture.id)
            if architecture not in (None, name) or not support.detect(tensors):
                continue
            try:
                return describe(_load(support.architecture.load, name, tensors), name)
            except _MisfitError as error:
                misfit = misfit or error
    raise misfit or CheckpointError(_not_recognised(first, architecture))


class _MisfitError(CheckpointError):
    """An architecture was detected by a few names, and then the weights do not fit it."""


def _load(
    load: Callable[[dict[str, Tensor]], object], name: str, tensors: dict[str, Tensor]
) -> object:
    try:
        return load(dict(tensors))
    except (RuntimeError, KeyError, ValueError, AssertionError, IndexError, TypeError) as error:
        text = " ".join(str(error).split())
        raise _MisfitError(
            f"the weights look like {name}, but do not fit it: {text[:300]}"
        ) from error


def describe(descriptor: object, name: str) -> Network:
    """Return the network of a spandrel descriptor.

    Raises:
        CheckpointError: it does not turn one gray or RGB image into one of the same kind.
    """
    if not isinstance(descriptor, ImageModelDescriptor):
        raise CheckpointError(
            f"{name} needs a mask beside the image; only networks that take one image are exported"
        )
    channels = descriptor.input_channels
    if channels not in (1, 3) or descriptor.output_channels != channels:
        raise CheckpointError(
            f"{name} takes {channels} and gives {descriptor.output_channels} channels; "
            "networks with 1 or 3 channels on both sides are exported"
        )
    requirements = descriptor.size_requirements
    if requirements.square:
        raise CheckpointError(f"{name} takes square images only, so it cannot run in tiles")
    module = _Called(descriptor)
    rewrite(module)
    windows = window_sizes(module)
    return Network(
        module=module.eval(),
        architecture=name,
        scale=descriptor.scale,
        channels=channels,
        grid=math.lcm(requirements.multiple_of, *windows),
        minimum=max(1, requirements.minimum),
        windowed=bool(windows),
    )


class _Called(nn.Module):
    """A spandrel model as a plain module: as the descriptor calls it, unpadded and unclamped."""

    def __init__(self, descriptor: ImageModelDescriptor[torch.nn.Module]) -> None:
        super().__init__()
        self.model = descriptor.model
        # Only the descriptor knows how to call models that take or give more than an image.
        self._call = descriptor._call_fn

    def forward(self, image: Tensor) -> Tensor:
        # Some models (RCAN) write into their input.
        return self._call(self.model, image.clone())


def window_sizes(module: nn.Module) -> set[int]:
    """Return the window sizes that a network's parts name, as far as they divide images."""
    sizes: set[int] = set()
    for part in module.modules():
        for name in _WINDOW_NAMES:
            value = getattr(part, name, None)
            for size in value if isinstance(value, tuple | list) else [value]:
                if type(size) is int and 1 < size <= 64:
                    sizes.add(size)
    return sizes


def _not_recognised(tensors: dict[str, Tensor], architecture: str | None) -> str:
    known = sorted(known_architectures())
    if architecture is not None and architecture not in known:
        return f"unknown architecture {architecture!r}; known are: {', '.join(known)}"
    names = list(tensors)
    shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
    what = f"is not {architecture}" if architecture else "is of no architecture that is known"
    hint = ""
    if _looks_like_classifier(tensors):
        hint = "; it looks like a classifier (it ends in a fully connected layer)"
    return (
        f"the network {what}{hint}. Its {len(names)} tensors begin with: {shown}. "
        "Export your own class with --network FILE.py:FUNCTION, or save it as a TorchScript, "
        "torch.export or ONNX file and export that"
    )


def _looks_like_classifier(tensors: dict[str, Tensor]) -> bool:
    weights = [each for name, each in tensors.items() if name.endswith("weight") and each.ndim > 1]
    return bool(weights) and weights[-1].ndim == 2
