"""The families of plain networks: which chains they accept, and the settings they leave open.

A family checks the order and shapes of the stages. If several accept a chain, `infer` tests which
one restores photos best.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from sr_export.models.arch_settings import ArchSettings
from sr_export.models.candidates import (
    LEAKY,
    TO_255,
    TO_TANH,
    Choices,
    bottlenecks,
    has_even_kernels,
    hinted_first,
    possible_scales,
    range_candidates,
    residual_choices,
    straight_choices,
    upsampling_hint,
)
from sr_export.models.layer_chain import MismatchError
from sr_export.models.ranges import Ranges
from sr_export.models.topology import Topology, residual

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_export.models.layer_chain import LayerChain

# From this width on, EDSR scales its residuals, without which training diverges.
_WIDE = 256
# SRCNN has three; fewer could be anything.
_FEWEST_STAGES = 3
# From this depth on, networks learn the difference to their input.
_DEEP = 8


@dataclass(frozen=True)
class NetworkPlan:
    """A family's reading of the weights, and the settings that they leave open."""

    topology: Topology
    choices: Choices
    likely: bool = True
    """Whether the shapes alone are convincing; otherwise it must restore photos."""
    hints: Choices = field(default_factory=dict)
    """Choices suggested by layer names: used if the network then restores photos."""
    family: str = ""


@dataclass(frozen=True)
class PlainFamily:
    """A family of plain networks."""

    name: str
    _plan: Callable[[LayerChain], NetworkPlan]

    def plan(self, chain: LayerChain) -> NetworkPlan:
        """Return the family's reading of a chain.

        Raises:
            MismatchError: the chain is not of this family; the message says why.
        """
        return replace(self._plan(chain), family=self.name)


def _srresnet(chain: LayerChain) -> NetworkPlan:
    topology, likely = residual(chain)
    if not any(stage.norm for block in topology.blocks for stage in block):
        raise MismatchError("has no normalization in residual blocks")
    return NetworkPlan(topology, residual_choices(topology), likely, upsampling_hint(topology))


def _edsr(chain: LayerChain) -> NetworkPlan:
    topology, likely = residual(chain)
    if any(stage.norm for stage in chain.stages):
        raise MismatchError("has normalizations")
    choices = residual_choices(topology)
    if topology.blocks[0][0].inputs >= _WIDE:
        choices["residual_scale"] = (0.1, 1.0)
    if chain.shifts:
        bias = chain.shifts[0].bias
        large = bias is not None and bool(bias.abs().max() > 1)
        choices["ranges"] = (TO_255 if large else Ranges(),)
    elif chain.channels == 3 and topology.shuffled > 1:
        choices["mean"] = ("div2k", "none")
        choices["ranges"] = (TO_255, *(each for each in choices["ranges"] if each != TO_255))
    return NetworkPlan(topology, choices, likely, upsampling_hint(topology))


def _msrresnet(chain: LayerChain) -> NetworkPlan:
    plan = _edsr(chain)
    if plan.topology.before_skip(ArchSettings()) or plan.topology.shuffled == 1 or chain.shifts:
        raise MismatchError("has a convolution between residual blocks and pixel shuffles")
    choices = plan.choices | {
        "activation": ("leaky0.1", "leaky0.2", "relu"),
        "block_activation": ("relu", "same"),
        "head_activation": (True, False),
        "tail_activation": (True, False),
        "residual": ("bilinear", "none", "bicubic", "nearest"),
        "ranges": range_candidates(chain),
        "mean": ("none",),
    }
    return NetworkPlan(plan.topology, choices, plan.likely)


def _espcn(chain: LayerChain) -> NetworkPlan:
    topology = _straight(chain)
    if topology.shuffled == 1 or topology.transposed:
        raise MismatchError("has no pixel shuffle" if topology.shuffled == 1 else "is transposed")
    choices = straight_choices(topology, ("tanh", "relu", *LEAKY))
    choices["scale"] = (topology.shuffled,)
    choices["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return NetworkPlan(topology, choices, len(chain.stages) <= _DEEP and bottlenecks(chain) == 0)


def _fsrcnn(chain: LayerChain) -> NetworkPlan:
    topology = _straight(chain)
    if not _ends_like_fsrcnn(topology):
        raise MismatchError("has no single transposed convolution, with an odd kernel, at its end")
    choices = straight_choices(topology, ("relu", *LEAKY))
    choices["scale"] = possible_scales(topology, choices, (2, 3, 4, 8))
    choices["output_padding"] = (True, False)
    choices["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return NetworkPlan(topology, choices, bottlenecks(chain) <= 1)


def _ends_like_fsrcnn(topology: Topology) -> bool:
    last = topology.tail[-1]
    single = topology.transposed == 1 and last.transposed and last.size % 2 == 1
    return single and not (
        has_even_kernels(topology.chain) or any(each.norm for each in topology.chain.stages)
    )


def _conv_transpose(chain: LayerChain) -> NetworkPlan:
    topology = _straight(chain)
    if not topology.transposed or _ends_like_fsrcnn(topology):
        raise MismatchError("is FSRCNN" if topology.transposed else "has no transposed convolution")
    choices = straight_choices(topology, ("leaky0.2", "relu", "leaky0.01", "leaky0.1"))
    choices["final"] = ("tanh", "none", "sigmoid")
    choices["ranges"] = (TO_TANH, *(each for each in range_candidates(chain) if each != TO_TANH))
    wider = any(each.outputs > each.inputs for each in chain.stages[1:] if not each.transposed)
    choices["strided"] = (False, True) if wider and not has_even_kernels(chain) else (False,)
    size = chain.stages[-1].size if topology.transposed == 1 else 0
    usual = (size // 2,) if size % 2 == 0 and size > 4 else ()
    choices["scale"] = possible_scales(topology, choices, (*usual, 2, 4, 8, 3, 16, 1))
    choices["output_padding"] = (True, False)
    choices["residual"] = ("none", "nearest", "bilinear", "bicubic")
    return NetworkPlan(topology, choices, bottlenecks(chain) == 0 and not has_even_kernels(chain))


def _restorer(chain: LayerChain) -> NetworkPlan:
    topology = _unscaled(chain)
    choices = straight_choices(topology, ("relu", *LEAKY, "tanh"))
    usual = ("none", "add", "subtract")
    if len(chain.stages) >= _DEEP:
        normalized = any(stage.norm for stage in chain.stages)
        usual = ("subtract", "add", "none") if normalized else ("add", "subtract", "none")
    choices["residual"] = usual
    choices["scale"] = (1,)
    choices["enlarge"] = (1, 2, 3, 4)
    return NetworkPlan(topology, choices, bottlenecks(chain) == 0)


def _nearest(chain: LayerChain) -> NetworkPlan:
    topology = _unscaled(chain)
    choices = straight_choices(topology, ("relu", *LEAKY, "tanh"))
    choices["residual"] = ("none", "nearest", "bilinear", "bicubic")
    hint = upsampling_hint(topology)
    choices["scale"] = hinted_first(hint, "scale", (2, 4, 3, 8))
    choices["full_size"] = hinted_first(
        hint, "full_size", (2, 1, *range(3, len(topology.tail) + 1))
    )
    return NetworkPlan(topology, choices, bottlenecks(chain) == 0, hint)


FAMILIES = (
    PlainFamily("SRResNet", _srresnet),
    PlainFamily("MSRResNet", _msrresnet),
    PlainFamily("EDSR", _edsr),
    PlainFamily("FSRCNN", _fsrcnn),
    PlainFamily("ESPCN", _espcn),
    PlainFamily("ConvTranspose", _conv_transpose),
    PlainFamily("ConvRestorer", _restorer),
    PlainFamily("NearestConv", _nearest),
)


def _straight(chain: LayerChain) -> Topology:
    """Return the topology of a chain without residual blocks.

    Raises:
        MismatchError: the chain cannot restore images.
    """
    if chain.shifts:
        raise MismatchError("subtracts a mean, as networks with residual blocks do")
    head, *tail = chain.stages
    if not tail:
        raise MismatchError("has only one convolution")
    topology = Topology(chain, (head,), (), tuple(tail))
    if has_even_kernels(chain) and not topology.transposed:
        raise MismatchError("reduces the image size and never enlarges it again")
    return topology


def _unscaled(chain: LayerChain) -> Topology:
    """Return the topology of a chain whose weights show no scale."""
    topology = _straight(chain)
    if topology.transposed or topology.shuffled > 1:
        raise MismatchError("has upsampling weights")
    if len(chain.stages) < _FEWEST_STAGES:
        raise MismatchError(f"has fewer than {_FEWEST_STAGES} convolutions")
    if chain.stages[-1].inputs > chain.stages[0].outputs:
        raise MismatchError("becomes wider towards its end, as discriminators do")
    return topology
