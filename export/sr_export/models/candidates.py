"""The settings that weights leave open, by family: values to try, the usual one first."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from sr_deploy.errors import InvalidInputError
from sr_export.models.arch_settings import ArchSettings
from sr_export.models.layer_chain import MismatchError
from sr_export.models.plain_network import slope
from sr_export.models.ranges import BYTES, SIGNED, Ranges
from sr_export.models.readings import IMAGENET
from sr_export.models.topology import upsampling_in_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sr_export.models.layer_chain import LayerChain, Stage
from sr_export.models.topology import Topology

Choices = dict[str, tuple[Any, ...]]
"""Possible values of each setting, by the names in `ArchSettings`; the usual value first."""

TO_255 = Ranges(input=BYTES, output=BYTES)
TO_TANH = Ranges(input=SIGNED, output=SIGNED)
_RANGES = (
    Ranges(),
    Ranges(output=SIGNED),
    TO_TANH,
    Ranges(input=SIGNED),
    TO_255,
)
_OF_COLORS = (
    replace(IMAGENET, output=SIGNED),
    IMAGENET,
    replace(IMAGENET, denormalize=True),
    Ranges(color="ycbcr"),
)
LEAKY = ("leaky0.2", "leaky0.1", "leaky0.01")


def upsampling_hint(topology: Topology) -> Choices:
    """Return the scale and stages at full size that layer names suggest; may be empty."""
    steps, full_size = upsampling_in_names(topology) or (0, 0)
    scales: dict[int, tuple[int, ...]] = {1: (2, 3), 2: (4,), 3: (8,)}
    fits = topology.nearest and steps in scales
    if not fits or not topology.fits(ArchSettings(scale=scales[steps][0], full_size=full_size)):
        return {}
    return {"scale": scales[steps], "full_size": (full_size,)}


def hinted_first(hint: Choices, name: str, values: tuple[int, ...]) -> tuple[int, ...]:
    """Return values with the hinted ones first."""
    return tuple(dict.fromkeys((*hint.get(name, ()), *values)))


def residual_choices(topology: Topology) -> Choices:
    """Return the settings that networks with residual blocks leave open."""
    chain, body = topology.chain, topology.before_skip(ArchSettings())
    normalized = any(stage.norm for block in topology.blocks for stage in block)
    inner = [stage for block in topology.blocks for stage in block[:-1]]
    behind = topology.tail[0 if topology.nearest else body : -1]
    active = normalized and not any(stage.slopes is not None for stage in chain.stages)
    choices: Choices = {
        "activation": ("none",)
        if _have_slopes([*inner, *topology.head, *behind])
        else ("relu", *LEAKY),
        "head_activation": (False,) if _have_slopes(topology.head) else (active, not active),
        "tail_activation": (False,) if _have_slopes(behind) else (active, not active),
        "long_skip": (True, False) if body or topology.nearest else (False, True),
        "block_skip": (True, False),
        "norm": ("none",) if normalized else ("none", "instance"),
        "final": ("none", "tanh", "sigmoid"),
        "ranges": range_candidates(chain),
        **_common(chain),
    }
    if topology.nearest:
        hint = upsampling_hint(topology)
        # The convolution that ends the body, one for each upsampling step, and the last.
        likeliest = {1: 1, 2: 1, 3: 2}.get(len(topology.tail), 4)
        choices["scale"] = hinted_first(hint, "scale", (likeliest, 1, 2, 4, 3, 8))
        choices["full_size"] = hinted_first(hint, "full_size", (2, 3, 1))
        choices["residual"] = ("none", "add", "subtract", "nearest", "bilinear", "bicubic")
    else:
        choices["scale"] = possible_scales(topology, choices, (topology.shuffled, 2, 4, 3, 8))
        choices["residual"] = ("none", "bilinear", "bicubic", "nearest")
    return choices


def straight_choices(topology: Topology, activations: tuple[str, ...]) -> Choices:
    """Return the settings that other networks leave open; `activations` if there is no PReLU."""
    hidden = topology.chain.stages[:-1]
    if any(stage.slopes is not None for stage in hidden):
        activations = ("none",) if _have_slopes(hidden) else ("none", "relu")
    return {
        "activation": activations,
        "final": ("none", "tanh", "sigmoid"),
        "ranges": range_candidates(topology.chain),
        **_common(topology.chain),
    }


def _common(chain: LayerChain) -> Choices:
    normalized = any(stage.norm for stage in chain.stages)
    return {
        # A much copied SRGAN passes 0.8 as eps where it means the momentum.
        "eps": (1e-5, 0.8) if normalized else (1e-5,),
        "padding": ("zeros", "reflect", "replicate"),
    }


def _have_slopes(stages: Sequence[Stage]) -> bool:
    """Return whether all stages have a PReLU, so that their activation is known."""
    return all(stage.slopes is not None for stage in stages)


def bottlenecks(chain: LayerChain) -> int:
    """Return how often stages become wider again after narrower ones.

    Networks with bottlenecks are rarely plain: they have attention, or skips.
    """
    widths = [stage.width for stage in chain.stages[:-1]]
    turns = [one < other for one, other in pairwise(widths) if one != other]
    return sum(rising and not before for before, rising in pairwise(turns))


def has_even_kernels(chain: LayerChain) -> bool:
    """Return whether a convolution has an even kernel, which means stride 2."""
    return any(stage.size % 2 == 0 for stage in chain.stages if not stage.transposed)


def range_candidates(chain: LayerChain) -> tuple[Ranges, ...]:
    """Return the ranges that images may have had in training, the usual one first."""
    return (*_RANGES, *(_OF_COLORS if chain.channels == 3 else ()))


def possible_scales(
    topology: Topology, choices: Choices, scales: tuple[int, ...]
) -> tuple[int, ...]:
    """Return the scales that the chain can have, without repetitions."""
    fitting = [
        scale
        for scale in dict.fromkeys(scales)
        for strided in choices.get("strided", (False,))
        if topology.fits(ArchSettings(scale=scale, strided=strided))
    ]
    if not fitting:
        raise MismatchError("has no integer scale")
    return tuple(dict.fromkeys(fitting))


def with_arguments(choices: Choices, arguments: Mapping[str, str], family: str) -> Choices:
    """Return the choices after the user's arguments.

    Raises:
        InvalidInputError: an argument is unknown, contradicts the weights, or has a wrong value.
    """
    found = dict(choices)
    for name, text in arguments.items():
        if name in choices and len(choices[name]) == 1 and name != "ranges":
            fixed = shown(choices[name][0])
            if fixed != text:
                raise InvalidInputError(f"{family}: the weights have {name}={fixed}, not {text}")
        elif name not in _open(choices):
            raise InvalidInputError(
                f"{family}: unknown argument {name!r}; allowed with these weights: "
                f"{described(choices)}"
            )
        else:
            found[name] = (_parsed(name, text, choices[name], family),)
    return found


def described(choices: Choices) -> str:
    """Return the open settings with their values, for messages."""
    texts = [f"{name}={'|'.join(map(shown, values))}" for name, values in _open(choices).items()]
    return ", ".join(texts) or "nothing"


def shown(value: object) -> str:
    """Return a value in the syntax of --arch."""
    return str(value).lower() if isinstance(value, bool) else f"{value}"


def _open(choices: Choices) -> Choices:
    """Return the settings that the weights leave open and --arch can set."""
    return {
        name: values for name, values in choices.items() if name != "ranges" and len(values) > 1
    }


def _parsed(name: str, text: str, values: tuple[Any, ...], family: str) -> Any:
    kind = type(values[0])
    if kind is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if kind in (int, float):
        number = float(text) if re.fullmatch(r"[\d.]+(e-?\d+)?", text) else 0.0
        if number > 0 and kind(number) == number:
            return kind(number)
    if kind is str and (text in values or (name == "activation" and slope(text) is not None)):
        return text
    raise InvalidInputError(
        f"{family}: {name}={text} is not allowed; allowed: {described({name: values})}"
    )
