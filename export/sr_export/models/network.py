"""A network ready for export: RGB (or gray) in, the same out, and what is known of it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from torch import nn

from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.models import MismatchError, PlainArch, Translator, find, latent_network, unknown
from sr_export.models.ranges import Ranges
from sr_export.models.registry import registry  # first, since it sees to spandrel's import
from sr_export.models.rewrite import rewrite

from spandrel import ImageModelDescriptor  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

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
    ranges: Ranges | None = None
    """Of its images; None: not known."""
    how: str = ""
    """How it was decided what the weights do not tell, in words."""

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


def recognise(
    candidates: Iterable[dict[str, Tensor]],
    architecture: str | None = None,
    ranges: Ranges | None = None,
) -> Network:
    """Build the network that weights belong to.

    Args:
        candidates: the same weights under differently stripped names, likeliest first.
        architecture: where detection should not decide, its identifier, and what it takes to
            build it, such as "FSRCNN scale=3".
        ranges: of its images, where they are known.

    Raises:
        CheckpointError: no architecture has these weights, or one that cannot be exported.
        InvalidInputError: the architecture is not known, or does not take these arguments.
    """
    name, given = _asked(architecture)
    stripped = list(candidates)
    misfit = None
    if name not in _plain():
        found, misfit = _by_names(stripped, name)
        if found and given:
            raise InvalidInputError(f"{name} takes no arguments: its weights tell all of it")
        if found:
            return found
        if name:
            raise misfit or CheckpointError(unknown.describe(stripped, name))
    try:
        plain = find(stripped[-1], name, given, ranges)
    except MismatchError as error:
        text = unknown.describe(stripped, name, f"as a plain chain of convolutions, it {error}")
        raise misfit or CheckpointError(text) from error
    network = describe(
        plain.descriptor(_plain()[plain.plan.family]), architecture or plain.plan.family
    )
    return replace(network, ranges=plain.settings.ranges, how=plain.how)


def _plain() -> dict[str, PlainArch]:
    """Return the architectures that are recognised by the order and shapes of their weights."""
    found = [each.architecture for each in registry()]
    return {str(each.id): each for each in found if isinstance(each, PlainArch)}


def _asked(architecture: str | None) -> tuple[str | None, dict[str, str]]:
    """Return the name and the arguments of "NAME key=value ..."."""
    if architecture is None:
        return None, {}
    name, *pairs = architecture.split()
    known = sorted({*known_architectures(), latent_network.NAME}, key=str.lower)
    if name not in known:
        raise InvalidInputError(f"unknown architecture {name!r}; known are: {', '.join(known)}")
    return name, arguments(name, pairs)


def arguments(name: str, pairs: Iterable[str]) -> dict[str, str]:
    """Return texts such as "scale=2" as names and values.

    Raises:
        InvalidInputError: one is not like that; the text says that it was given to `name`.
    """
    found = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not (key.isidentifier() and value):
            raise InvalidInputError(f"{name}: arguments are like scale=2, found {pair!r}")
        found[key] = value
    return found


def _by_names(
    candidates: list[dict[str, Tensor]], name: str | None
) -> tuple[Network | None, _MisfitError | None]:
    """Return the first of spandrel's networks that weights fit, or why one did not."""
    misfit: _MisfitError | None = None
    for tensors in candidates:
        for support in registry().architectures("detection"):
            found = str(support.architecture.id)
            architecture = support.architecture
            if isinstance(architecture, PlainArch) or name not in (None, found):
                continue
            if not support.detect(tensors):
                continue
            try:
                network = describe(_load(architecture.load, found, tensors), found)
            except _MisfitError as error:
                misfit = misfit or error
            else:
                ranges = architecture.ranges if isinstance(architecture, Translator) else Ranges()
                return replace(network, ranges=ranges), None
    return None, misfit


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
    channels, given = descriptor.input_channels, descriptor.output_channels
    call = descriptor._call_fn
    if name == "DRUNet" and channels == given - 1:
        # Trained without the noise level map that spandrel always feeds beside the image.
        channels, call = given, lambda model, image: model(image)
    if channels not in (1, 3) or given != channels:
        raise CheckpointError(_other_channels(name, channels, given))
    requirements = descriptor.size_requirements
    if requirements.square:
        raise CheckpointError(f"{name} takes square images only, so it cannot run in tiles")
    module = _Called(descriptor.model, call)
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


def _other_channels(name: str, taken: int, given: int) -> str:
    beside = ""
    if (taken, given) == (3, 1):
        beside = ", which makes a map of an image (such as depth or a mask), not an image"
    elif given in (1, 3) and taken > given:
        beside = (
            f", which is an image and {taken - given} more beside it "
            "(such as a noise level or a condition)"
        )
    return (
        f"{name} takes {taken} channels{beside}, and gives {given}; networks are exported that "
        "take one gray or RGB image and give one of the same kind. One with more inputs goes "
        "through --arch-file, with a class that holds the rest constant"
    )


class _Called(nn.Module):
    """A spandrel model as a plain module: as the descriptor calls it, unpadded and unclamped."""

    def __init__(self, model: nn.Module, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        # Only the descriptor knows how to call models that take or give more than an image.
        self._call = call

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
