"""From weights to a plain network: the families that can have them, and the best of those."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from spandrel import Architecture, ImageModelDescriptor, SizeRequirements
from torch import nn

from sr_deploy.errors import InvalidInputError
from sr_export.models import infer
from sr_export.models.arch_settings import narrowed, shown
from sr_export.models.families import FAMILIES, Family, NetworkPlan
from sr_export.models.layer_order import orders
from sr_export.models.layers import MismatchError, read
from sr_export.models.plain import Plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sr_export.models.arch_settings import ArchSettings
    from sr_export.models.ranges import Ranges


class PlainArch(Architecture[nn.Module]):
    """A family as an architecture of spandrel's."""

    def __init__(self, family: Family) -> None:
        super().__init__(id=family.name, detect=self._detected)
        self._family = family

    def _detected(self, state_dict: Mapping[str, Tensor]) -> bool:
        try:
            self._family.plan(read(state_dict))
        except MismatchError:
            return False
        return True

    def load(self, state_dict: dict[str, Tensor]) -> ImageModelDescriptor[nn.Module]:
        """Build the network that fits the weights, in the ranges of its training."""
        return find(state_dict, self._family.name).descriptor(self)


ARCHITECTURES = tuple(PlainArch(family) for family in FAMILIES)


@dataclass(frozen=True)
class Match:
    """A plain network, and how what weights do not tell was decided."""

    plan: NetworkPlan
    settings: ArchSettings
    how: str
    """In words; empty where nothing was open."""

    def descriptor(self, architecture: Architecture[nn.Module]) -> ImageModelDescriptor[nn.Module]:
        """Return the network as spandrel describes networks."""
        parts, settings = self.plan.parts, self.settings
        module = Plain(parts, settings)
        return ImageModelDescriptor(
            module,
            module.state_dict(),
            architecture=architecture,
            purpose="Restoration" if settings.scale == 1 else "SR",
            tags=[f"{len(parts.chain.stages)} convolutions"],
            supports_half=True,
            supports_bfloat16=True,
            scale=settings.scale,
            input_channels=parts.chain.channels,
            output_channels=parts.chain.channels,
            size_requirements=SizeRequirements(multiple_of=2 ** len(parts.halvings(settings))),
        )


def find(
    tensors: Mapping[str, Tensor],
    name: str | None = None,
    arguments: Mapping[str, str] | None = None,
    ranges: Ranges | None = None,
) -> Match:
    """Find the plain network that has these weights.

    Args:
        tensors: the weights in the order in which their program made them.
        name: of the family; None: all are tried.
        arguments: settings that the user knows.
        ranges: of the images, if the user knows them.

    Raises:
        MismatchError: there is none; the text says how far the weights are one.
        InvalidInputError: the arguments do not fit the weights.
    """
    plans = [_given(plan, arguments or {}, ranges) for plan in _plans(tensors, name)]
    look = infer.best(plans)
    if not look.resembling:
        _check_trusted(plans, name)
    return Match(look.plan, look.settings, _how(look))


def _plans(tensors: Mapping[str, Tensor], name: str | None) -> list[NetworkPlan]:
    """Return how families can have the weights, the likeliest first."""
    plans: list[NetworkPlan] = []
    misfits: dict[str, str] = {}
    misread: MismatchError | None = None
    for order in orders(tensors):
        try:
            chain = read(order)
        except MismatchError as error:
            misread = misread or error
            continue
        for family in FAMILIES:
            if name in (None, family.name):
                try:
                    plans.append(family.plan(chain))
                except MismatchError as error:
                    misfits[family.name] = str(error)
    if len({id(plan.parts.chain) for plan in plans}) > 1:
        plans = [plan for plan in plans if plan.likely] or plans
    if plans:
        return sorted(plans, key=lambda plan: not plan.likely)
    if misfits:
        raise MismatchError(misfits[name] if name else _nearest(misfits))
    assert misread is not None, "there is an order, and each was read or not"
    raise misread


def _given(plan: NetworkPlan, arguments: Mapping[str, str], ranges: Ranges | None) -> NetworkPlan:
    """Return a plan in which what the user knows is settled."""
    options = narrowed(plan.options, arguments, plan.family)
    if ranges is not None:
        options["ranges"] = (ranges,)
    told = {name: values for name, values in plan.told.items() if name not in arguments}
    plan = replace(plan, options=options, told=told)
    if infer.usual(plan) is None:
        given = " ".join(f"{name}={value}" for name, value in arguments.items())
        raise InvalidInputError(f"{plan.family}: no network with these weights has {given}")
    return plan


def _check_trusted(plans: list[NetworkPlan], name: str | None) -> None:
    """Refuse what could be otherwise, where no photo tells."""
    first = plans[0]
    if len({id(plan.parts.chain) for plan in plans}) > 1:
        raise MismatchError(
            f"could be {first.family}, but its tensors are sorted by name, as in safetensors "
            "files, and no order in which they fit restores a photo; torch.save keeps the order"
        )
    if not (first.likely or name):
        raise MismatchError(f"could be {first.family}, but restores no photo, however it is run")


def _nearest(misfits: Mapping[str, str]) -> str:
    """Return which family took most of a chain, and what kept the rest of it out."""
    lacking = "has no "
    names = ("ConvTranspose", "ESPCN", "ConvRestorer")
    name = next(each for each in names if not misfits[each].startswith(lacking))
    return f"is nearest to {name}, but {misfits[name]}"


def _how(look: infer.Look) -> str:
    options = look.plan.options
    usual = infer.usual(look.plan)
    chosen = {
        name: getattr(look.settings, name) for name, values in options.items() if len(values) > 1
    }
    if not chosen:
        return ""
    if not look.resembling:
        texts = [f"{name}={shown(value)}" for name, value in chosen.items() if name != "ranges"]
        return (
            "it restores no photo however it is run (is it trained?), so what is usual was taken: "
            f"{', '.join(texts)}"
        )
    telling = {
        name: value
        for name, value in chosen.items()
        if name == "scale" or (name != "ranges" and value != getattr(usual, name))
    }
    texts = [f"{name}={shown(value)}" for name, value in telling.items()]
    return f"told by photos: {', '.join(texts)}" if texts else ""
