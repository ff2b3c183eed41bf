"""Recognize plain networks: the families that accept the weights, and the best one of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import nn

from sr_deploy.errors import InvalidInputError
from sr_export.models import infer
from sr_export.models.candidates import shown, with_arguments
from sr_export.models.families import FAMILIES, NetworkPlan, PlainFamily
from sr_export.models.layer_chain import MismatchError, orders, read
from sr_export.models.plain_network import PlainNetwork
from sr_export.models.readings import options_text
from sr_export.models.spandrel_import import Architecture, ImageModelDescriptor, SizeRequirements

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from sr_export.models.arch_settings import ArchSettings
    from sr_export.models.ranges import Ranges
    from sr_export.models.restoration import Expected


class PlainArch(Architecture[nn.Module]):
    """A family as an architecture of spandrel's registry."""

    def __init__(self, family: PlainFamily) -> None:
        super().__init__(id=family.name, detect=self._detect_chain)
        self._family = family

    def _detect_chain(self, state_dict: Mapping[str, Tensor]) -> bool:
        try:
            self._family.plan(read(state_dict))
        except MismatchError:
            return False
        return True

    def load(self, state_dict: dict[str, Tensor]) -> ImageModelDescriptor[nn.Module]:
        """Build the network that has these weights, on its own pixel values."""
        return find(state_dict, self._family.name).descriptor(self)


ARCHITECTURES = tuple(PlainArch(family) for family in FAMILIES)


@dataclass(frozen=True)
class PlainMatch:
    """A plain network, and how the settings were decided that weights do not determine."""

    plan: NetworkPlan
    settings: ArchSettings
    how: str
    """For the user; empty if nothing was open."""
    assumed: tuple[str, ...] = ()
    """Settings that photos do not confirm, for the user."""
    restores: bool = True
    """Whether it restores photos with these settings."""

    @property
    def ranges(self) -> Ranges:
        """Its pixel values."""
        return replace(self.settings.ranges, enlarge=self.settings.enlarge)

    def descriptor(self, architecture: Architecture[nn.Module]) -> ImageModelDescriptor[nn.Module]:
        """Return spandrel's description of the network."""
        topology, settings = self.plan.topology, self.settings
        module = PlainNetwork(topology, settings)
        return ImageModelDescriptor(
            module,
            module.state_dict(),
            architecture=architecture,
            purpose="Restoration" if settings.scale == 1 else "SR",
            tags=[f"{len(topology.chain.stages)} convolutions"],
            supports_half=True,
            supports_bfloat16=True,
            scale=settings.scale,
            input_channels=topology.chain.channels,
            output_channels=topology.chain.channels,
            size_requirements=SizeRequirements(multiple_of=2 ** len(topology.halvings(settings))),
        )


def find(
    tensors: Mapping[str, Tensor],
    name: str | None = None,
    arguments: Mapping[str, str] | None = None,
    ranges: Ranges | None = None,
    expected: Expected | None = None,
) -> PlainMatch:
    """Find the plain network that has these weights.

    Args:
        tensors: the weights, in the order in which the program registered them.
        name: the family; None: all are tried.
        arguments: settings given by the user.
        ranges: pixel values given by the user.
        expected: an image and the result of the user's own program.

    Raises:
        MismatchError: no family accepts the weights; the message names the obstacle.
        InvalidInputError: the arguments do not fit the weights.
    """
    plans = [_constrained(plan, arguments or {}, ranges) for plan in _plans(tensors, name)]
    inferred = infer.best(plans, expected)
    found = inferred.best
    if not found.restores:
        _require_certain(plans, name)
    chosen = _chosen(found)
    if not chosen:
        return PlainMatch(found.plan, found.settings, "")
    if expected is None and not inferred.certain:
        assumed = (_assumption(inferred, chosen),)
        return PlainMatch(found.plan, found.settings, "", assumed, found.restores)
    by = "photos" if expected is None else "the result given"
    return PlainMatch(found.plan, found.settings, _explain(found, chosen, by))


def _plans(tensors: Mapping[str, Tensor], name: str | None) -> list[NetworkPlan]:
    """Return the readings of all families that accept the weights, the likeliest first."""
    plans: list[NetworkPlan] = []
    mismatches: dict[str, str] = {}
    unreadable: MismatchError | None = None
    for order in orders(tensors):
        try:
            chain = read(order)
        except MismatchError as error:
            unreadable = unreadable or error
            continue
        for family in FAMILIES:
            if name in (None, family.name):
                try:
                    plans.append(family.plan(chain))
                except MismatchError as error:
                    mismatches[family.name] = str(error)
    if len({id(plan.topology.chain) for plan in plans}) > 1:
        plans = [plan for plan in plans if plan.likely] or plans
    if plans:
        return sorted(plans, key=lambda plan: not plan.likely)
    if mismatches:
        raise MismatchError(mismatches[name] if name else _nearest(mismatches))
    assert unreadable is not None, "there is at least one order, and none could be read"
    raise unreadable


def _constrained(
    plan: NetworkPlan, arguments: Mapping[str, str], ranges: Ranges | None
) -> NetworkPlan:
    """Return a plan with the settings that the user gave."""
    choices = with_arguments(plan.choices, arguments, plan.family)
    if ranges is not None:
        inner = replace(ranges, color="rgb", residual="none", enlarge=1)
        choices["ranges"] = (inner,)
        if "enlarge" in choices or ranges.enlarge > 1:
            choices["enlarge"] = (ranges.enlarge,)
            choices["scale"] = (1,) if ranges.enlarge > 1 else choices["scale"]
        if ranges.residual != "none":
            choices["residual"] = (ranges.residual,)
    hints = {name: values for name, values in plan.hints.items() if name not in arguments}
    plan = replace(plan, choices=choices, hints=hints)
    if infer.default(plan) is None:
        given = " ".join(f"{name}={value}" for name, value in arguments.items())
        raise InvalidInputError(f"{plan.family}: impossible with these weights: {given}")
    return plan


def _require_certain(plans: list[NetworkPlan], name: str | None) -> None:
    """Refuse an ambiguous network that restores no photos."""
    first = plans[0]
    if len({id(plan.topology.chain) for plan in plans}) > 1:
        raise MismatchError(
            f"could be {first.family}, but its tensors are sorted by name, as in safetensors "
            "files, and no layer order that fits restores photos; torch.save keeps the order"
        )
    if not (first.likely or name):
        raise MismatchError(f"could be {first.family}, but no settings make it restore photos")


def _nearest(mismatches: Mapping[str, str]) -> str:
    """Return the family that came closest, and its obstacle."""
    names = ("ConvTranspose", "ESPCN", "ConvRestorer")
    name = next(each for each in names if not mismatches[each].startswith("has no "))
    return f"is nearest to {name}, but {mismatches[name]}"


def _chosen(found: infer.InferredSettings) -> dict[str, Any]:
    """Return the settings that were open."""
    names = [name for name, values in found.plan.choices.items() if len(values) > 1]
    return {name: getattr(found.settings, name) for name in names}


def _explain(found: infer.InferredSettings, chosen: dict[str, Any], by: str) -> str:
    """Return how the open settings were decided."""
    default = infer.default(found.plan)
    texts = [
        f"{name}={shown(value)}"
        for name, value in chosen.items()
        if name == "scale" or (name != "ranges" and value != getattr(default, name))
    ]
    return f"inferred from {by}: {', '.join(texts)}" if texts else ""


def _assumption(inferred: infer.Inference, chosen: dict[str, Any]) -> str:
    """Return what was assumed, the runner-up, and the options that choose it."""
    found = inferred.best
    hidden = {"ranges", "padding"}
    texts = [f"{name}={shown(value)}" for name, value in chosen.items() if name not in hidden]
    if not found.restores:
        score = "no settings make the network restore photos: is it trained?"
    else:
        score = f"pixel values {found.settings.ranges}; {found.gain:+.1f} dB on photos"
    text = f"{', '.join(texts)} ({score})"
    if inferred.rival is not None:
        plan, settings, gain = inferred.rival
        differing = [
            f"{name}={shown(getattr(settings, name))}"
            for name in plan.choices
            if name != "ranges" and getattr(settings, name) != getattr(found.settings, name)
        ]
        options = [f"--arch {plan.family} {' '.join(differing)}".rstrip()]
        if settings.ranges != found.settings.ranges:
            options.append(options_text(settings.ranges))
        text += f"; next best: {' '.join(options)} ({gain:+.1f} dB)"
    return text
