"""A state dict as a chain of convolutions: by the order and shapes of its tensors, not their names.

Every training repository names the layers of the same network otherwise. What all share is the
order in which a module registers its parts, which is that of its forward pass, and the shapes,
which must fit each other: they tell convolutions from transposed ones and where pixels are
shuffled.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor

_KERNEL = {"weight", "bias"}
_NORM = {"weight", "bias", "running_mean", "running_var"}
# What torch and profilers keep beside the weights.
_COUNTERS = {"num_batches_tracked", "total_ops", "total_params"}


class MismatchError(Exception):
    """The weights are of no chain of convolutions, or of none of a family; the text says why."""


@dataclass(frozen=True)
class WeightLayer:
    """The tensors of one module."""

    name: str
    kind: Literal["kernel", "norm", "slopes"]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class Stage:
    """A convolution, and what comes between it and the next one."""

    name: str
    weight: Tensor
    bias: Tensor | None
    transposed: bool
    norm: dict[str, Tensor] | None = None
    slopes: Tensor | None = None
    """Of a PReLU."""
    shuffle: int = 1
    """The factor of the pixel shuffle after it."""

    @property
    def inputs(self) -> int:
        """Channels that go in."""
        return self.weight.shape[0 if self.transposed else 1]

    @property
    def outputs(self) -> int:
        """Channels that come out, before they are shuffled."""
        return self.weight.shape[1 if self.transposed else 0]

    @property
    def given(self) -> int:
        """Channels that the next stage takes."""
        return self.outputs // self.shuffle**2

    @property
    def size(self) -> int:
        """Side of the kernel."""
        return self.weight.shape[2]

    @property
    def plain(self) -> bool:
        """Whether it keeps the number of channels and pixels."""
        return self.inputs == self.outputs and not self.transposed and self.shuffle == 1


@dataclass(frozen=True)
class LayerChain:
    """Convolutions, each taking what the one before gives, from an image to one of its kind."""

    stages: tuple[Stage, ...]
    shifts: tuple[Stage, ...] = ()
    """Constant 1x1 convolutions that take the mean of images off and put it back: two or none."""

    @property
    def channels(self) -> int:
        """Channels of the images."""
        return self.stages[0].inputs


def read(tensors: Mapping[str, Tensor]) -> LayerChain:
    """Read weights as a chain.

    Raises:
        MismatchError: there are other layers, or their channels do not fit each other.
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
    """Return a stage with what comes behind its convolution."""
    if layer.kind == "norm" and stage.norm is None:
        return replace(stage, norm=layer.tensors)
    if layer.kind == "slopes" and stage.slopes is None:
        return replace(stage, slopes=layer.tensors["weight"])
    raise MismatchError(f"has {layer.name!r} behind another of its kind")


def _is_constant(stage: Stage) -> bool:
    """Return whether it scales and shifts each channel by itself, as nothing that is learned."""
    outputs, inputs, *size = stage.weight.shape
    if size != [1, 1] or outputs != inputs or stage.bias is None:
        return False
    matrix = stage.weight.flatten(1)
    return bool((matrix == matrix.diag().diag()).all())


def layers_of(tensors: Mapping[str, Tensor]) -> list[WeightLayer]:
    """Return the modules that weights are of, in the order in which they run.

    Raises:
        MismatchError: one is of no kind that such networks have.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        name, _, part = key.rpartition(".")
        if part not in _COUNTERS:
            parts.setdefault(name, {})[part] = tensor
    found = [WeightLayer(name, _kind(name, each), each) for name, each in parts.items()]
    siblings = itertools.groupby(found, key=lambda layer: layer.name.rpartition(".")[0])
    return [layer for _, group in siblings for layer in _in_turn(list(group))]


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
        raise MismatchError(f"has {name!r}, a normalisation that keeps no statistics")
    odd = ".".join(each for each in (name, *(parts.keys() - _NORM)) if each)
    raise MismatchError(f"has {odd!r}, which is of no layer of such networks")


def _in_turn(siblings: list[WeightLayer]) -> list[WeightLayer]:
    """Return the layers of one block in forward order.

    Programs often make all convolutions of a block first, then all normalisations; and a file
    whose names are sorted has them so.
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
    """Follow the channels from stage to stage, which tells what each one is."""
    first, *others = stages
    if first.inputs not in (1, 3):
        first = replace(first, transposed=True)
    channels = first.inputs
    if channels not in (1, 3) or not _biased_right(first):
        raise MismatchError(
            f"takes {stages[0].inputs} channels ({stages[0].name!r}), not 1 or 3: "
            "perhaps an image and a map beside it"
        )
    before = first
    for stage in others:
        factor, fitting = _fit(before, stage)
        yield _checked(replace(before, shuffle=factor))
        before = fitting
    factor = math.isqrt(before.outputs // channels)
    if factor**2 * channels != before.outputs:
        raise MismatchError(
            f"takes {channels} channels and gives {before.outputs} ({before.name!r})"
        )
    yield _checked(replace(before, shuffle=factor))


def _fit(before: Stage, stage: Stage) -> tuple[int, Stage]:
    """Return the factor of the shuffle between two stages, and the second as what it is."""
    # Both fit a square kernel without a bias; convolutions have odd sides, but for strided ones.
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


def _checked(stage: Stage) -> Stage:
    """Return a stage whose normalisation and slopes fit its channels."""
    allowed = {stage.outputs, stage.given}
    if stage.norm is not None and stage.norm["running_mean"].numel() not in allowed:
        raise MismatchError(f"has a normalisation that does not fit {stage.name!r}")
    if stage.slopes is not None and stage.slopes.numel() not in allowed | {1}:
        raise MismatchError(f"has a PReLU that does not fit {stage.name!r}")
    return stage
