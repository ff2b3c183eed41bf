"""The families of plain networks: which chains are theirs, and what is usual for what is open.

A family looks at the order and the shapes of the stages. Where several can take the same chain, it
is found out by looking which of them restores photos best.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from sr_export.architectures.blocks import residual
from sr_export.architectures.hints import enlargement
from sr_export.architectures.layers import MismatchError
from sr_export.architectures.parts import Parts
from sr_export.architectures.settings import BYTES, SIGNED, Options, Settings
from sr_export.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sr_export.architectures.layers import Chain, Stage

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_BYTES = Ranges(input=BYTES, output=BYTES)
_RANGES = (
    Ranges(),
    Ranges(output=SIGNED),
    Ranges(input=SIGNED, output=SIGNED),
    Ranges(input=SIGNED),
    _BYTES,
)
_IMAGENET = (
    Ranges(mean=_IMAGENET_MEAN, std=_IMAGENET_STD, output=SIGNED),
    Ranges(mean=_IMAGENET_MEAN, std=_IMAGENET_STD),
)
_LEAKY = ("leaky0.2", "leaky0.1", "leaky0.01")
# From this width on, EDSR scales its residuals down, to be trained at all.
_WIDE = 256
# SRCNN has so few; what has fewer could be anything.
_FEWEST_STAGES = 3
# From this depth on, networks learn the difference from their input.
_DEEP = 8


@dataclass(frozen=True)
class Plan:
    """A network as far as its weights tell it, and what they leave open."""

    parts: Parts
    options: Options
    likely: bool = True
    """Whether the shapes alone speak for it; else it takes photos that it restores."""
    told: Options = field(default_factory=dict)
    """What names and numbers say of options: believed if the network then restores photos."""
    family: str = ""


@dataclass(frozen=True)
class Family:
    """Plain networks of one kind."""

    name: str
    _plan: Callable[[Chain], Plan]

    def plan(self, chain: Chain) -> Plan:
        """Return how a chain is one of the family's.

        Raises:
            MismatchError: it is none; the text says why.
        """
        return replace(self._plan(chain), family=self.name)


def _srresnet(chain: Chain) -> Plan:
    parts, likely = residual(chain)
    if not any(stage.norm for block in parts.blocks for stage in block):
        raise MismatchError("has no normalisation in residual blocks")
    return Plan(parts, _residual_options(parts), likely, _told(parts))


def _edsr(chain: Chain) -> Plan:
    parts, likely = residual(chain)
    if any(stage.norm for stage in chain.stages):
        raise MismatchError("has normalisations")
    options = _residual_options(parts)
    if parts.blocks[0][0].inputs >= _WIDE:
        options["residual_scale"] = (0.1, 1.0)
    if chain.shifts:
        bias = chain.shifts[0].bias
        large = bias is not None and bool(bias.abs().max() > 1)
        options["ranges"] = (_BYTES if large else Ranges(),)
    elif chain.channels == 3 and parts.shuffled > 1:
        options["mean"] = ("div2k", "none")
        options["ranges"] = (_BYTES, *(each for each in options["ranges"] if each != _BYTES))
    return Plan(parts, options, likely, _told(parts))


def _msrresnet(chain: Chain) -> Plan:
    plan = _edsr(chain)
    if plan.parts.before_skip(Settings()) or plan.parts.shuffled == 1 or chain.shifts:
        raise MismatchError("has a convolution between residual blocks and pixel shuffles")
    options = plan.options | {
        "activation": ("leaky0.1", "leaky0.2", "relu"),
        "block_activation": ("relu", "same"),
        "head_activation": (True, False),
        "tail_activation": (True, False),
        "residual": ("bilinear", "none", "bicubic", "nearest"),
        "ranges": _ranges(chain),
        "mean": ("none",),
    }
    return Plan(plan.parts, options, plan.likely)


def _espcn(chain: Chain) -> Plan:
    parts = _straight(chain)
    if parts.shuffled == 1 or parts.transposed:
        raise MismatchError("has no pixel shuffle" if parts.shuffled == 1 else "is transposed")
    options = _straight_options(parts, ("tanh", "relu", *_LEAKY))
    options["scale"] = (parts.shuffled,)
    options["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return Plan(parts, options, len(chain.stages) <= _DEEP and _rises(chain) == 0)


def _fsrcnn(chain: Chain) -> Plan:
    parts = _straight(chain)
    if not _ends_like_fsrcnn(parts):
        raise MismatchError("has no single transposed convolution, with an odd kernel, at its end")
    options = _straight_options(parts, ("relu", *_LEAKY))
    options["scale"] = _scales(parts, options, (2, 3, 4, 8))
    options["output_padding"] = (True, False)
    options["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return Plan(parts, options, _rises(chain) <= 1)


def _ends_like_fsrcnn(parts: Parts) -> bool:
    last = parts.tail[-1]
    single = parts.transposed == 1 and last.transposed and last.size % 2 == 1
    return single and not (_even(parts.chain) or any(each.norm for each in parts.chain.stages))


def _conv_transpose(chain: Chain) -> Plan:
    parts = _straight(chain)
    if not parts.transposed or _ends_like_fsrcnn(parts):
        raise MismatchError("is FSRCNN" if parts.transposed else "has no transposed convolution")
    options = _straight_options(parts, ("leaky0.2", "relu", "leaky0.01", "leaky0.1"))
    options["final"] = ("tanh", "none", "sigmoid")
    options["ranges"] = (_RANGES[2], *(each for each in _ranges(chain) if each != _RANGES[2]))
    wider = any(each.outputs > each.inputs for each in chain.stages[1:] if not each.transposed)
    options["strided"] = (False, True) if wider and not _even(chain) else (False,)
    size = chain.stages[-1].size if parts.transposed == 1 else 0
    usual = (size // 2,) if size % 2 == 0 and size > 4 else ()
    options["scale"] = _scales(parts, options, (*usual, 2, 4, 8, 3, 16, 1))
    options["output_padding"] = (True, False)
    options["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return Plan(parts, options, _rises(chain) == 0 and not _even(chain))


def _restorer(chain: Chain) -> Plan:
    parts = _untold(chain)
    options = _straight_options(parts, ("relu", *_LEAKY, "tanh"))
    usual = ("none", "add", "subtract")
    if len(chain.stages) >= _DEEP:
        normalised = any(stage.norm for stage in chain.stages)
        usual = ("subtract", "add", "none") if normalised else ("add", "subtract", "none")
    options["residual"] = usual
    options["scale"] = (1,)
    return Plan(parts, options, _rises(chain) == 0)


def _nearest(chain: Chain) -> Plan:
    parts = _untold(chain)
    options = _straight_options(parts, ("relu", *_LEAKY, "tanh"))
    options["residual"] = ("none", "nearest", "bilinear", "bicubic")
    told = _told(parts)
    options["scale"] = _first(told, "scale", (2, 4, 3, 8))
    options["full_size"] = _first(told, "full_size", (2, 1, *range(3, len(parts.tail) + 1)))
    return Plan(parts, options, _rises(chain) == 0, told)


FAMILIES = (
    Family("SRResNet", _srresnet),
    Family("MSRResNet", _msrresnet),
    Family("EDSR", _edsr),
    Family("FSRCNN", _fsrcnn),
    Family("ESPCN", _espcn),
    Family("ConvTranspose", _conv_transpose),
    Family("ConvRestorer", _restorer),
    Family("NearestConv", _nearest),
)


def _straight(chain: Chain) -> Parts:
    """Return the parts of a chain without residual blocks.

    Raises:
        MismatchError: it looks like no network that gives images.
    """
    if chain.shifts:
        raise MismatchError("takes a mean off, as networks with residual blocks do")
    head, *tail = chain.stages
    if not tail:
        raise MismatchError("has a single convolution")
    parts = Parts(chain, (head,), (), tuple(tail))
    if _even(chain) and not parts.transposed:
        raise MismatchError("makes the image smaller and never larger again")
    return parts


def _untold(chain: Chain) -> Parts:
    """Return the parts of a chain in which nothing tells of a scale."""
    parts = _straight(chain)
    if parts.transposed or parts.shuffled > 1:
        raise MismatchError("enlarges by weights")
    if len(chain.stages) < _FEWEST_STAGES:
        raise MismatchError(f"has fewer than {_FEWEST_STAGES} convolutions")
    if chain.stages[-1].inputs > chain.stages[0].outputs:
        raise MismatchError("grows wider towards its end, as discriminators do")
    return parts


def _told(parts: Parts) -> Options:
    """Return what names and numbers say of enlargement by repeated pixels."""
    times, full_size = enlargement(parts) or (0, 0)
    scales: dict[int, tuple[int, ...]] = {1: (2, 3), 2: (4,), 3: (8,)}
    fits = parts.nearest and times in scales
    if not fits or not parts.fits(Settings(scale=scales[times][0], full_size=full_size)):
        return {}
    return {"scale": scales[times], "full_size": (full_size,)}


def _first(told: Options, name: str, values: tuple[int, ...]) -> tuple[int, ...]:
    """Return values with those in front that were told."""
    return tuple(dict.fromkeys((*told.get(name, ()), *values)))


def _residual_options(parts: Parts) -> Options:
    chain, body = parts.chain, parts.before_skip(Settings())
    normalised = any(stage.norm for block in parts.blocks for stage in block)
    inner = [stage for block in parts.blocks for stage in block[:-1]]
    behind = parts.tail[0 if parts.nearest else body : -1]
    usual = normalised and not _some_told(chain.stages)
    options: Options = {
        "activation": ("none",) if _all_told([*inner, *parts.head, *behind]) else ("relu", *_LEAKY),
        "head_activation": (False,) if _all_told(parts.head) else (usual, not usual),
        "tail_activation": (False,) if _all_told(behind) else (usual, not usual),
        "long_skip": (True, False) if body or parts.nearest else (False, True),
        "final": ("none", "tanh", "sigmoid"),
        "ranges": _ranges(chain),
        **_common(chain),
    }
    if parts.nearest:
        told = _told(parts)
        # The convolution that ends the body, then one for each enlargement, then the last.
        likeliest = {1: 1, 2: 1, 3: 2}.get(len(parts.tail), 4)
        options["scale"] = _first(told, "scale", (likeliest, 1, 2, 4, 3, 8))
        options["full_size"] = _first(told, "full_size", (2, 3, 1))
        options["residual"] = ("none", "add", "subtract", "nearest", "bilinear", "bicubic")
    else:
        options["scale"] = _scales(parts, options, (parts.shuffled, 2, 4, 3, 8))
        options["residual"] = ("none", "bilinear", "bicubic", "nearest")
    return options


def _straight_options(parts: Parts, activations: tuple[str, ...]) -> Options:
    hidden = parts.chain.stages[:-1]
    if _some_told(hidden):
        activations = ("none",) if _all_told(hidden) else ("none", "relu")
    return {
        "activation": activations,
        "final": ("none", "tanh", "sigmoid"),
        "ranges": _ranges(parts.chain),
        **_common(parts.chain),
    }


def _common(chain: Chain) -> Options:
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


def _rises(chain: Chain) -> int:
    """Return how often stages grow wider again after they were narrower.

    Those with squeezed stages in between are seldom plain: they have attention, or skips.
    """
    widths = [stage.given for stage in chain.stages[:-1]]
    turns = [one < other for one, other in pairwise(widths) if one != other]
    return sum(rising and not before for before, rising in pairwise(turns))


def _even(chain: Chain) -> bool:
    """Return whether convolutions have even kernels, which halve the image."""
    return any(stage.size % 2 == 0 for stage in chain.stages if not stage.transposed)


def _ranges(chain: Chain) -> tuple[Ranges, ...]:
    return (*_RANGES, *(_IMAGENET if chain.channels == 3 else ()))


def _scales(parts: Parts, options: Options, scales: tuple[int, ...]) -> tuple[int, ...]:
    """Return the scales among those given that the chain can have."""
    fitting = [
        scale
        for scale in dict.fromkeys(scales)
        for strided in options.get("strided", (False,))
        if parts.fits(Settings(scale=scale, strided=strided))
    ]
    if not fitting:
        raise MismatchError("enlarges by no whole number")
    return tuple(dict.fromkeys(fitting))
