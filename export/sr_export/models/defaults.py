"""What is open in plain networks, and what is usual: the values to try, the usual one first."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from sr_export.models.arch_settings import BYTES, SIGNED, ArchSettings, Options
from sr_export.models.layers import MismatchError
from sr_export.models.ranges import Ranges
from sr_export.models.upsample_hints import enlargement

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sr_export.models.layers import LayerChain, Stage
    from sr_export.models.topology import Parts

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TO_255 = Ranges(input=BYTES, output=BYTES)
TO_TANH = Ranges(input=SIGNED, output=SIGNED)
_RANGES = (
    Ranges(),
    Ranges(output=SIGNED),
    TO_TANH,
    Ranges(input=SIGNED),
    TO_255,
)
_IMAGENET = (
    Ranges(mean=_IMAGENET_MEAN, std=_IMAGENET_STD, output=SIGNED),
    Ranges(mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
)
LEAKY = ("leaky0.2", "leaky0.1", "leaky0.01")


def hinted(parts: Parts) -> Options:
    """Return what names and numbers say of enlargement by repeated pixels."""
    times, full_size = enlargement(parts) or (0, 0)
    scales: dict[int, tuple[int, ...]] = {1: (2, 3), 2: (4,), 3: (8,)}
    fits = parts.nearest and times in scales
    if not fits or not parts.fits(ArchSettings(scale=scales[times][0], full_size=full_size)):
        return {}
    return {"scale": scales[times], "full_size": (full_size,)}


def first(hint: Options, name: str, values: tuple[int, ...]) -> tuple[int, ...]:
    """Return values with those in front that were hinted at."""
    return tuple(dict.fromkeys((*hint.get(name, ()), *values)))


def residual_options(parts: Parts) -> Options:
    """Return what networks with residual blocks leave open."""
    chain, body = parts.chain, parts.before_skip(ArchSettings())
    normalised = any(stage.norm for block in parts.blocks for stage in block)
    inner = [stage for block in parts.blocks for stage in block[:-1]]
    behind = parts.tail[0 if parts.nearest else body : -1]
    usual = normalised and not _some_told(chain.stages)
    options: Options = {
        "activation": ("none",) if _all_told([*inner, *parts.head, *behind]) else ("relu", *LEAKY),
        "head_activation": (False,) if _all_told(parts.head) else (usual, not usual),
        "tail_activation": (False,) if _all_told(behind) else (usual, not usual),
        "long_skip": (True, False) if body or parts.nearest else (False, True),
        "final": ("none", "tanh", "sigmoid"),
        "ranges": ranges(chain),
        **_common(chain),
    }
    if parts.nearest:
        hint = hinted(parts)
        # The convolution that ends the body, then one for each enlargement, then the last.
        likeliest = {1: 1, 2: 1, 3: 2}.get(len(parts.tail), 4)
        options["scale"] = first(hint, "scale", (likeliest, 1, 2, 4, 3, 8))
        options["full_size"] = first(hint, "full_size", (2, 3, 1))
        options["residual"] = ("none", "add", "subtract", "nearest", "bilinear", "bicubic")
    else:
        options["scale"] = scales(parts, options, (parts.shuffled, 2, 4, 3, 8))
        options["residual"] = ("none", "bilinear", "bicubic", "nearest")
    return options


def straight_options(parts: Parts, activations: tuple[str, ...]) -> Options:
    """Return what networks without them leave open; `activations` where weights tell of none."""
    hidden = parts.chain.stages[:-1]
    if _some_told(hidden):
        activations = ("none",) if _all_told(hidden) else ("none", "relu")
    return {
        "activation": activations,
        "final": ("none", "tanh", "sigmoid"),
        "ranges": ranges(parts.chain),
        **_common(parts.chain),
    }


def _common(chain: LayerChain) -> Options:
    normalised = any(stage.norm for stage in chain.stages)
    return {
        # 0.8 is what a much copied SRGAN says where it means the momentum.
        "eps": (1e-5, 0.8) if normalised else (1e-5,),
        "padding": ("zeros", "reflect", "replicate"),
    }


def _all_told(stages: Sequence[Stage]) -> bool:
    """Return whether weights tell the activation behind each of these."""
    return all(stage.slopes is not None for stage in stages)


def _some_told(stages: Sequence[Stage]) -> bool:
    return any(stage.slopes is not None for stage in stages)


def rises(chain: LayerChain) -> int:
    """Return how often stages grow wider again after they were narrower.

    Those with squeezed stages in between are seldom plain: they have attention, or skips.
    """
    widths = [stage.given for stage in chain.stages[:-1]]
    turns = [one < other for one, other in pairwise(widths) if one != other]
    return sum(rising and not before for before, rising in pairwise(turns))


def even(chain: LayerChain) -> bool:
    """Return whether convolutions have even kernels, which halve the image."""
    return any(stage.size % 2 == 0 for stage in chain.stages if not stage.transposed)


def ranges(chain: LayerChain) -> tuple[Ranges, ...]:
    """Return the ranges that images may have had in training."""
    return (*_RANGES, *(_IMAGENET if chain.channels == 3 else ()))


def scales(parts: Parts, options: Options, scales: tuple[int, ...]) -> tuple[int, ...]:
    """Return the scales among those given that the chain can have."""
    fitting = [
        scale
        for scale in dict.fromkeys(scales)
        for strided in options.get("strided", (False,))
        if parts.fits(ArchSettings(scale=scale, strided=strided))
    ]
    if not fitting:
        raise MismatchError("enlarges by no whole number")
    return tuple(dict.fromkeys(fitting))
