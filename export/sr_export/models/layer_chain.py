"""Read a state dict as a chain of convolutions, by the order and shapes of its tensors.

Every training repository names the layers of the same network differently. What they share is the
order in which a module registers its layers, which is that of the forward pass, and shapes that
must fit each other: these show which convolutions are transposed and where pixels are shuffled.

Safetensors files are sorted by name: block 10 comes before block 2, the body before the head.
`orders` restores numeric order, and permutes top-level modules whose names are words.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

_KERNEL = {"weight", "bias"}
_NORM = {"weight", "bias", "running_mean", "running_var"}
# Counters of torch and of profilers.
_COUNTERS = {"num_batches_tracked", "total_ops", "total_params"}
# More top-level modules than this are not permuted.
_MAX_PERMUTED = 6
# Safetensors files are sorted within each dtype, with the widest first: int64, float32, float16.
_MAX_DTYPES = 3


class MismatchError(Exception):
    """The weights are not a chain of convolutions, or not one of a family; the message says why."""


@dataclass(frozen=True)
class WeightLayer:
    """The tensors of one module."""

    name: str
    kind: Literal["kernel", "norm", "slopes"]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """A convolution, and the layers between it and the next one."""

    name: str
    weight: Tensor
    bias: Tensor | None
    transposed: bool
    norm: dict[str, Tensor] | None = None
    slopes: Tensor | None = None
    """Slopes of a PReLU."""
    shuffle: int = 1
    """Factor of the pixel shuffle behind it."""

    @property
    def inputs(self) -> int:
        """Number of input channels."""
        return self.weight.shape[0 if self.transposed else 1]

    @property
    def outputs(self) -> int:
        """Number of output channels, before the pixel shuffle."""
        return self.weight.shape[1 if self.transposed else 0]

    @property
    def width(self) -> int:
        """Number of channels that the next stage receives, after the pixel shuffle."""
        return self.outputs // self.shuffle**2

    @property
    def size(self) -> int:
        """Kernel size."""
        return self.weight.shape[2]

    @property
    def plain(self) -> bool:
        """Whether it preserves the number of channels and pixels."""
        return self.inputs == self.outputs and not self.transposed and self.shuffle == 1


@dataclass(frozen=True)
class LayerChain:
    """Consecutive convolutions from an image to an image with as many channels."""

    stages: tuple[Stage, ...]
    shifts: tuple[Stage, ...] = ()
    """Two constant 1x1 convolutions that subtract the image mean and add it again, or none."""

    @property
    def channels(self) -> int:
        """Number of image channels."""
        return self.stages[0].inputs


def read(tensors: Mapping[str, Tensor]) -> LayerChain:
    """Return the chain that has these weights.

    Raises:
        MismatchError: there are other layers, or channels that do not match.
    """
    found: list[Stage] = []
    for layer in layers_of(tensors):
        if layer.kind == "kernel":
            weight, bias = layer.tensors["weight"], layer.tensors.get("bias")
            found.append(Stage(layer.name, weight, bias, transposed=False))
        elif not found:
            raise MismatchError(f"begins with {layer.name!r}, before any convolution")
        else:
            found[-1] = _followed(found[-1], layer)
    constant = [stage for stage in found if _is_constant(stage)]
    if len(constant) != 2:
        constant = []
    stages = [stage for stage in found if all(stage is not each for each in constant)]
    if not stages:
        raise MismatchError("has no convolutions")
    return LayerChain(tuple(_flow(stages)), tuple(constant))


def _followed(stage: Stage, layer: WeightLayer) -> Stage:
    """Return a stage with a normalization or PReLU behind its convolution."""
    if layer.kind == "norm" and stage.norm is None:
        return replace(stage, norm=layer.tensors)
    if layer.kind == "slopes" and stage.slopes is None:
        return replace(stage, slopes=layer.tensors["weight"])
    raise MismatchError(f"has {layer.name!r} behind another {layer.kind} layer")


def _is_constant(stage: Stage) -> bool:
    """Return whether it scales and shifts each channel separately, which no trained layer does."""
    outputs, inputs, *size = stage.weight.shape
    if size != [1, 1] or outputs != inputs or stage.bias is None:
        return False
    matrix = stage.weight.flatten(1)
    return bool((matrix == matrix.diag().diag()).all())


def layers_of(tensors: Mapping[str, Tensor]) -> list[WeightLayer]:
    """Return the layers that have these weights, in forward order.

    Raises:
        MismatchError: a layer is neither a square convolution, a batch norm nor a PReLU.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(".")
        if part not in _COUNTERS:
            parts.setdefault(name, {})[part] = tensor
    found = [WeightLayer(name, _kind(name, each), each) for name, each in parts.items()]
    siblings = itertools.groupby(found, key=lambda layer: layer.name.rpartition(".")[0])
    return [layer for _, group in siblings for layer in _interleaved(list(group))]


def _kind(name: str, parts: dict[str, Tensor]) -> Literal["kernel", "norm", "slopes"]:
    weight = parts.get("weight")
    if weight is not None and weight.ndim == 4 and parts.keys() <= _KERNEL:
        if weight.shape[2] == weight.shape[3]:
            return "kernel"
        raise MismatchError(f"has {name!r}, whose kernel is not square")
    if "running_mean" in parts and parts.keys() <= _NORM:
        return "norm"
    if weight is not None and weight.ndim == 1 and parts.keys() == {"weight"}:
        return "slopes"
    if weight is not None and weight.ndim == 2:
        raise MismatchError(f"has {name!r}, which is fully connected")
    if weight is not None and weight.ndim == 1:
        raise MismatchError(f"has {name!r}, a normalization without running statistics")
    odd = ".".join(each for each in (name, *(parts.keys() - _NORM)) if each)
    raise MismatchError(f"has {odd!r}, which belongs to no supported layer")


def _interleaved(siblings: list[WeightLayer]) -> list[WeightLayer]:
    """Return the layers of one block in forward order.

    Many programs register all convolutions of a block first, then all normalizations. Sorted
    names have the same effect.
    """
    kernels, norms, slopes = (
        [layer for layer in siblings if layer.kind == kind] for kind in ("kernel", "norm", "slopes")
    )
    numbered = any(layer.name.rpartition(".")[2].isdigit() for layer in siblings)
    evenly = len(norms) in (0, len(kernels)) and len(slopes) in (0, len(kernels))
    in_between = len(kernels) == 2 and len(slopes) == 1 and len(norms) in (0, 2)
    if numbered or not (evenly or in_between):
        return siblings
    return [
        layer
        for group in itertools.zip_longest(kernels, norms, slopes)
        for layer in group
        if layer is not None
    ]


def _flow(stages: list[Stage]) -> Iterator[Stage]:
    """Yield stages with their type and pixel shuffle, inferred from the channel counts."""
    first, *others = stages
    if first.inputs not in (1, 3):
        first = replace(first, transposed=True)
    channels = first.inputs
    if channels not in (1, 3) or not _biased_right(first):
        raise MismatchError(
            f"takes {stages[0].inputs} channels ({stages[0].name!r}), not 1 or 3; it may expect a "
            "map beside the image"
        )
    before = first
    for stage in others:
        factor, fitting = _fit(before, stage)
        yield _validated(replace(before, shuffle=factor))
        before = fitting
    factor = math.isqrt(before.outputs // channels)
    if factor**2 * channels != before.outputs:
        raise MismatchError(
            f"takes {channels} channels and gives {before.outputs} ({before.name!r})"
        )
    yield _validated(replace(before, shuffle=factor))


def _fit(before: Stage, stage: Stage) -> tuple[int, Stage]:
    """Return the shuffle factor between two stages, and the second with its type."""
    # A square kernel without bias fits both types. Convolutions have odd sizes unless strided.
    likely = stage.size % 2 == 0 or any(
        word in stage.name.lower() for word in ("deconv", "transpose")
    )
    ways = [
        replace(stage, transposed=each) for each in ((True, False) if likely else (False, True))
    ]
    ways = [way for way in ways if _biased_right(way)]
    for way in ways:
        if way.inputs == before.outputs:
            return 1, way
    for way in ways:
        factor = math.isqrt(before.outputs // way.inputs)
        if factor > 1 and factor**2 * way.inputs == before.outputs and not way.transposed:
            return factor, way
    raise MismatchError(
        f"takes {stage.inputs} channels at {stage.name!r}, "
        f"where {before.name!r} gives {before.outputs}"
    )


def _biased_right(stage: Stage) -> bool:
    return stage.bias is None or stage.bias.numel() == stage.outputs


def _validated(stage: Stage) -> Stage:
    """Return a stage after checking that normalization and slopes fit its channels."""
    allowed = {stage.outputs, stage.width}
    if stage.norm is not None and stage.norm["running_mean"].numel() not in allowed:
        raise MismatchError(f"has a normalization that does not fit {stage.name!r}")
    if stage.slopes is not None and stage.slopes.numel() not in allowed | {1}:
        raise MismatchError(f"has a PReLU that does not fit {stage.name!r}")
    return stage


def orders(tensors: Mapping[str, Tensor]) -> list[dict[str, Tensor]]:
    """Return the possible layer orders: one, unless the names are sorted words."""
    if not _is_sorted(list(tensors)):
        return [dict(tensors)]
    names = sorted(tensors, key=_natural_key)
    parts = [list(group) for _, group in itertools.groupby(names, lambda name: name.split(".")[0])]
    numbered = len({re.sub(r"\d+", "", group[0].split(".")[0]) for group in parts}) == 1
    if numbered or len(parts) > _MAX_PERMUTED:
        return [{name: tensors[name] for name in names}]
    return [
        {name: tensors[name] for part in order for name in part}
        for order in itertools.permutations(parts)
    ]


def _is_sorted(names: list[str]) -> bool:
    """Return whether names are sorted, apart from a new start with each dtype."""
    places = {name: place for place, name in enumerate(names)}
    # torch registers the weight before the bias.
    for name, place in places.items():
        if name.endswith("weight") and places.get(f"{name[:-6]}bias", place) > place:
            return False
    starts = sum(one > other for one, other in itertools.pairwise(names))
    return starts <= _MAX_DTYPES


def _natural_key(name: str) -> list[tuple[int, int, str]]:
    """Return a sort key with numeric order, of numbers of any length: 2 before 10."""
    pieces = (each.lstrip("0") or "0" for each in re.findall(r"\d+|\D+", name))
    return [(0, len(each), each) if each.isdigit() else (1, 0, each) for each in pieces]
