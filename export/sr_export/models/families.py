"""The families of plain networks: which chains are theirs, and what is usual for what is open.

A family looks at the order and the shapes of the stages. Where several can take the same chain, it
is found out by looking which of them restores photos best.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sr_export.models.arch_settings import ArchSettings, Options
from sr_export.models.defaults import (
    LEAKY,
    TO_255,
    TO_TANH,
    even,
    first,
    hinted,
    ranges,
    residual_options,
    rises,
    scales,
    straight_options,
)
from sr_export.models.layers import MismatchError
from sr_export.models.ranges import Ranges
from sr_export.models.residual_blocks import residual
from sr_export.models.topology import Parts

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_export.models.layers import LayerChain

# From this width on, EDSR scales its residuals down, to be trained at all.
_WIDE = 256
# SRCNN has so few; what has fewer could be anything.
_FEWEST_STAGES = 3
# From this depth on, networks learn the difference from their input.
_DEEP = 8


@dataclass(frozen=True)
class NetworkPlan:
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
    _plan: Callable[[LayerChain], NetworkPlan]

    def plan(self, chain: LayerChain) -> NetworkPlan:
        """Return how a chain is one of the family's.

        Raises:
            MismatchError: it is none; the text says why.
        """
        return replace(self._plan(chain), family=self.name)


def _srresnet(chain: LayerChain) -> NetworkPlan:
    parts, likely = residual(chain)
    if not any(stage.norm for block in parts.blocks for stage in block):
        raise MismatchError("has no normalisation in residual blocks")
    return NetworkPlan(parts, residual_options(parts), likely, hinted(parts))


def _edsr(chain: LayerChain) -> NetworkPlan:
    parts, likely = residual(chain)
    if any(stage.norm for stage in chain.stages):
        raise MismatchError("has normalisations")
    options = residual_options(parts)
    if parts.blocks[0][0].inputs >= _WIDE:
        options["residual_scale"] = (0.1, 1.0)
    if chain.shifts:
        bias = chain.shifts[0].bias
        large = bias is not None and bool(bias.abs().max() > 1)
        options["ranges"] = (TO_255 if large else Ranges(),)
    elif chain.channels == 3 and parts.shuffled > 1:
        options["mean"] = ("div2k", "none")
        options["ranges"] = (TO_255, *(each for each in options["ranges"] if each != TO_255))
    return NetworkPlan(parts, options, likely, hinted(parts))


def _msrresnet(chain: LayerChain) -> NetworkPlan:
    plan = _edsr(chain)
    if plan.parts.before_skip(ArchSettings()) or plan.parts.shuffled == 1 or chain.shifts:
        raise MismatchError("has a convolution between residual blocks and pixel shuffles")
    options = plan.options | {
        "activation": ("leaky0.1", "leaky0.2", "relu"),
        "block_activation": ("relu", "same"),
        "head_activation": (True, False),
        "tail_activation": (True, False),
        "residual": ("bilinear", "none", "bicubic", "nearest"),
        "ranges": ranges(chain),
        "mean": ("none",),
    }
    return NetworkPlan(plan.parts, options, plan.likely)


def _espcn(chain: LayerChain) -> NetworkPlan:
    parts = _straight(chain)
    if parts.shuffled == 1 or parts.transposed:
        raise MismatchError("has no pixel shuffle" if parts.shuffled == 1 else "is transposed")
    options = straight_options(parts, ("tanh", "relu", *LEAKY))
    options["scale"] = (parts.shuffled,)
    options["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return NetworkPlan(parts, options, len(chain.stages) <= _DEEP and rises(chain) == 0)


def _fsrcnn(chain: LayerChain) -> NetworkPlan:
    parts = _straight(chain)
    if not _ends_like_fsrcnn(parts):
        raise MismatchError("has no single transposed convolution, with an odd kernel, at its end")
    options = straight_options(parts, ("relu", *LEAKY))
    options["scale"] = scales(parts, options, (2, 3, 4, 8))
    options["output_padding"] = (True, False)
    options["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return NetworkPlan(parts, options, rises(chain) <= 1)


def _ends_like_fsrcnn(parts: Parts) -> bool:
    last = parts.tail[-1]
    single = parts.transposed == 1 and last.transposed and last.size % 2 == 1
    return single and not (even(parts.chain) or any(each.norm for each in parts.chain.stages))


def _conv_transpose(chain: LayerChain) -> NetworkPlan:
    parts = _straight(chain)
    if not parts.transposed or _ends_like_fsrcnn(parts):
        raise MismatchError("is FSRCNN" if parts.transposed else "has no transposed convolution")
    options = straight_options(parts, ("leaky0.2", "relu", "leaky0.01", "leaky0.1"))
    options["final"] = ("tanh", "none", "sigmoid")
    options["ranges"] = (TO_TANH, *(each for each in ranges(chain) if each != TO_TANH))
    wider = any(each.outputs > each.inputs for each in chain.stages[1:] if not each.transposed)
    options["strided"] = (False, True) if wider and not even(chain) else (False,)
    size = chain.stages[-1].size if parts.transposed == 1 else 0
    usual = (size // 2,) if size % 2 == 0 and size > 4 else ()
    options["scale"] = scales(parts, options, (*usual, 2, 4, 8, 3, 16, 1))
    options["output_padding"] = (True, False)
    options["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return NetworkPlan(parts, options, rises(chain) == 0 and not even(chain))


def _restorer(chain: LayerChain) -> NetworkPlan:
    parts = _untold(chain)
    options = straight_options(parts, ("relu", *LEAKY, "tanh"))
    usual = ("none", "add", "subtract")
    if len(chain.stages) >= _DEEP:
        normalised = any(stage.norm for stage in chain.stages)
        usual = ("subtract", "add", "none") if normalised else ("add", "subtract", "none")
    options["residual"] = usual
    options["scale"] = (1,)
    return NetworkPlan(parts, options, rises(chain) == 0)


def _nearest(chain: LayerChain) -> NetworkPlan:
    parts = _untold(chain)
    options = straight_options(parts, ("relu", *LEAKY, "tanh"))
    options["residual"] = ("none", "nearest", "bilinear", "bicubic")
    hint = hinted(parts)
    options["scale"] = first(hint, "scale", (2, 4, 3, 8))
    options["full_size"] = first(hint, "full_size", (2, 1, *range(3, len(parts.tail) + 1)))
    return NetworkPlan(parts, options, rises(chain) == 0, hint)


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


def _straight(chain: LayerChain) -> Parts:
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
    if even(chain) and not parts.transposed:
        raise MismatchError("makes the image smaller and never larger again")
    return parts


def _untold(chain: LayerChain) -> Parts:
    """Return the parts of a chain in which nothing tells of a scale."""
    parts = _straight(chain)
    if parts.transposed or parts.shuffled > 1:
        raise MismatchError("enlarges by weights")
    if len(chain.stages) < _FEWEST_STAGES:
        raise MismatchError(f"has fewer than {_FEWEST_STAGES} convolutions")
    if chain.stages[-1].inputs > chain.stages[0].outputs:
        raise MismatchError("grows wider towards its end, as discriminators do")
    return parts
