"""Deciding what weights do not tell: the choice with which a network restores photos best."""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from sr_export.models import restoration
from sr_export.models.arch_settings import ArchSettings, Options
from sr_export.models.plain import Plain, base, ended
from sr_export.models.ranges import UNIT, Ranges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sr_export.models.families import NetworkPlan
    from sr_export.models.topology import Parts

# Settings that make up for each other, or make no sense alone, are tried together.
_TOGETHER = (
    ("full_size", "strided", "output_padding"),
    ("activation", "eps", "final", "ranges", "residual", "mean"),
)
# What little fits the right choice of others as long as these are wrong: each is a start.
_STARTS = ("scale", "head_activation", "tail_activation")
# Networks trained with zeros around the image may well look better with something else.
_ONLY_GIVEN = ("padding",)
# A wrong choice restores worse, if only by a tenth of a decibel; less than this, in decibels, is
# what two choices that fit equally well differ by.
_TELLING_GAIN = 0.05
# Below this, in decibels, what comes out does not resemble the photos, whatever is chosen.
_RESEMBLANCE = -6.0
# A network that enlarges, run as if it did not, still smooths noise away; in decibels.
_EASE_OF_SCALE_1 = 1.5
# From this on, in decibels, it is not worth looking further: a GAN's generator has no more.
_RESTORING = -3.0
# What one look may cost: weights times pixels.
_EFFORT = 3e9
# Of small images at least, and of large ones at most.
_SIDES = (24, 96)


@dataclass(frozen=True)
class Look:
    """The best choice for a plan."""

    plan: NetworkPlan
    settings: ArchSettings
    gain: float

    @property
    def resembling(self) -> bool:
        """Whether the network restores photos in some way; if not, the choice is the usual one."""
        return self.gain > _RESEMBLANCE

    @property
    def merit(self) -> float:
        """The gain as it compares between scales."""
        return self.gain - (_EASE_OF_SCALE_1 if self.settings.scale == 1 else 0)


def best(plans: Sequence[NetworkPlan]) -> Look:
    """Return the plan and the settings with which its weights restore photos best.

    Where they restore nothing, as untrained weights do, it is the first plan as is usual.
    """
    told = [replace(plan, options=plan.options | plan.told) for plan in plans if plan.told]
    looks = [look for plan in told for look in _looks(plan)]
    if not any(look.resembling for look in looks):
        looks = []
        for plan in plans:
            if plan.likely or not any(look.gain > _RESTORING for look in looks):
                looks += _looks(plan)
    highest = max(look.merit for look in looks)
    found = next(look for look in looks if look.merit >= highest - _TELLING_GAIN)
    if found.resembling:
        return found
    settings = usual(plans[0])
    assert settings is not None, "checked where arguments settle options"
    return Look(plans[0], settings, -math.inf)


def usual(plan: NetworkPlan) -> ArchSettings | None:
    """Return the first choice of all that fits, if any does."""
    names = list(plan.options)
    for values in itertools.product(*(plan.options[name] for name in names)):
        settings = ArchSettings(**dict(zip(names, values, strict=True)))
        if plan.parts.fits(settings):
            return settings
    return None


def _looks(plan: NetworkPlan) -> Iterator[Look]:
    """Yield the best choice from each start."""
    names = [name for name in _STARTS if name in plan.options]
    for values in itertools.product(*(plan.options[name] for name in names)):
        start = {name: (value,) for name, value in zip(names, values, strict=True)}
        options = plan.options | start
        settings = usual(replace(plan, options=options))
        if settings is not None:
            look = _climbed(plan, settings, options)
            yield look
            if look.gain > 0 and len(plan.options["scale"]) == 1:
                return


def _climbed(plan: NetworkPlan, settings: ArchSettings, options: Options) -> Look:
    """Choose one group of settings after the other, until no other choice is better."""
    measure = _Measure(plan.parts, settings.scale)
    before = None
    while settings != before:
        before = settings
        for group in _groups(options):
            for values in group:
                trial = replace(settings, **values)
                if trial.sensible and plan.parts.fits(trial):
                    better = measure(trial) > measure(settings) + _TELLING_GAIN
                    settings = trial if better else settings
    return Look(plan, settings, measure(settings))


def _groups(options: Mapping[str, tuple[Any, ...]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the choices of each group of options."""
    others = {*_ONLY_GIVEN, *itertools.chain(*_TOGETHER)}
    alone = [(name,) for name in options if name not in others]
    for group in (*_TOGETHER, *alone):
        names = [name for name in group if name in options]
        chosen = itertools.product(*(options[name] for name in names))
        yield [dict(zip(names, values, strict=True)) for values in chosen]


class _Measure:
    """By how many decibels choices restore photos better than doing without; each asked once."""

    def __init__(self, parts: Parts, scale: int) -> None:
        self._parts = parts
        weights = sum(stage.weight.numel() for stage in parts.chain.stages)
        affordable = math.isqrt(int(_EFFORT / weights / restoration.PHOTOS))
        side = max(min(affordable, _SIDES[1] // scale), _SIDES[0])
        self._task = restoration.task(parts.chain.channels, scale, side // 8 * 8)
        self._inner: dict[ArchSettings, Tensor] = {}
        self._gain = functools.cache(self._measured)

    def __call__(self, settings: ArchSettings) -> float:
        return self._gain(settings)

    def _measured(self, settings: ArchSettings) -> float:
        found = self._restored(lambda image: self._run(image, settings), settings.ranges)
        if settings.residual == "none":
            return found
        # What adds to its input must do better than that alone: any weights do as well that, in
        # some range, add next to nothing.
        alone = self._restored(lambda image: base(image, settings), Ranges())
        return found if found > alone + _TELLING_GAIN else -math.inf

    def _restored(self, network: Callable[[Tensor], Tensor], ranges: Ranges) -> float:
        def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                return network(torch.from_numpy(image)).numpy()

        return self._task.gain(ranges.around(run)(self._task.given))

    def _run(self, image: Tensor, settings: ArchSettings) -> Tensor:
        """Run a network, or only its end where all else is as it was before."""
        ranges = replace(settings.ranges, output=UNIT)
        inner = replace(settings, final="none", residual="none", ranges=ranges)
        if inner not in self._inner:
            self._inner[inner] = Plain(self._parts, inner).eval().inner(image)
        return ended(self._inner[inner], image, settings)
