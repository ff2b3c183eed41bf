"""Infer the settings that weights do not determine, by testing which ones restore photos best.

The search is a hill climb over groups of settings, from several starts, since few settings show an
effect as long as certain others are wrong.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from sr_export.models import restoration
from sr_export.models.arch_settings import ArchSettings
from sr_export.models.plain_network import PlainNetwork, base, finish
from sr_export.models.ranges import UNIT, Ranges
from sr_export.models.restoration import MIN_GAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from sr_export.models.candidates import Choices
    from sr_export.models.families import NetworkPlan
    from sr_export.models.topology import Topology

# Settings that compensate for each other, or make no sense alone, are varied together.
_GROUPS = (
    ("full_size", "strided", "output_padding"),
    ("activation", "eps", "final", "ranges", "residual", "mean"),
)
# While these are wrong, right values of the others show no effect: each value is a start.
_STARTS = ("scale", "head_activation", "tail_activation")
# Networks trained with zero padding may look better with another one: never inferred.
_NOT_INFERRED = ("padding",)
# All thresholds in decibels of gain over the baseline of the task.
# Below this, the output does not resemble the photos with any settings.
_RESEMBLANCE = -6.0
# A network that upscales still smooths noise if it runs as a denoiser.
_SCALE_1_BONUS = 1.5
# From here on, other plans need not be tried: the generator of a GAN gains no more.
_RESTORING = -3.0
# Budget of one measurement: weights times pixels, and the sides of small and large test images.
_EFFORT = 3e9
_SIDES = (24, 96)


@dataclass(frozen=True)
class InferredSettings:
    """The best settings of a plan."""

    plan: NetworkPlan
    settings: ArchSettings
    gain: float

    @property
    def restores(self) -> bool:
        """Whether the network restores photos at all; otherwise the settings are defaults."""
        return self.gain > _RESEMBLANCE

    @property
    def score(self) -> float:
        """The gain, comparable between scales."""
        return self.gain - (_SCALE_1_BONUS if self.settings.scale == 1 else 0)


def best(plans: Sequence[NetworkPlan]) -> InferredSettings:
    """Return the plan and the settings with which its weights restore photos best.

    If none restores photos, as with untrained weights, the first plan with default settings.
    """
    hinted = [replace(plan, choices=plan.choices | plan.hints) for plan in plans if plan.hints]
    found = [each for plan in hinted for each in _climbs(plan)]
    if not any(each.restores for each in found):
        found = []
        for plan in plans:
            if plan.likely or not any(each.gain > _RESTORING for each in found):
                found += _climbs(plan)
    highest = max(each.score for each in found)
    winner = next(each for each in found if each.score >= highest - MIN_GAIN)
    if winner.restores:
        return winner
    settings = default(plans[0])
    assert settings is not None, "checked when the user's arguments were applied"
    return InferredSettings(plans[0], settings, -math.inf)


def default(plan: NetworkPlan) -> ArchSettings | None:
    """Return the first combination of choices that fits the topology, if any does."""
    names = list(plan.choices)
    for values in itertools.product(*(plan.choices[name] for name in names)):
        settings = ArchSettings(**dict(zip(names, values, strict=True)))
        if plan.topology.fits(settings):
            return settings
    return None


def _climbs(plan: NetworkPlan) -> Iterator[InferredSettings]:
    """Yield the best settings from each start."""
    names = [name for name in _STARTS if name in plan.choices]
    for values in itertools.product(*(plan.choices[name] for name in names)):
        choices = plan.choices | {name: (each,) for name, each in zip(names, values, strict=True)}
        settings = default(replace(plan, choices=choices))
        if settings is not None:
            found = _climb(plan, settings, choices)
            yield found
            if found.gain > 0 and len(plan.choices["scale"]) == 1:
                return


def _climb(plan: NetworkPlan, settings: ArchSettings, choices: Choices) -> InferredSettings:
    """Improve one group of settings after the other, until nothing improves."""
    gain = _Gain(plan.topology, settings.scale)
    before = None
    while settings != before:
        before = settings
        for group in _grouped(choices):
            for values in group:
                trial = replace(settings, **values)
                if trial.sensible and plan.topology.fits(trial):
                    better = gain(trial) > gain(settings) + MIN_GAIN
                    settings = trial if better else settings
    return InferredSettings(plan, settings, gain(settings))


def _grouped(choices: Mapping[str, tuple[Any, ...]]) -> Iterator[list[dict[str, Any]]]:
    """Yield all combinations of values in each group of settings."""
    others = {*_NOT_INFERRED, *itertools.chain(*_GROUPS)}
    alone = [(name,) for name in choices if name not in others]
    for group in (*_GROUPS, *alone):
        names = [name for name in group if name in choices]
        combinations = itertools.product(*(choices[name] for name in names))
        yield [dict(zip(names, values, strict=True)) for values in combinations]


class _Gain:
    """The gain in decibels over the baseline by settings; each is measured once."""

    def __init__(self, topology: Topology, scale: int) -> None:
        self._topology = topology
        weights = sum(stage.weight.numel() for stage in topology.chain.stages)
        affordable = math.isqrt(int(_EFFORT / weights / restoration.PHOTOS))
        side = max(min(affordable, _SIDES[1] // scale), _SIDES[0])
        self._task = restoration.task(topology.chain.channels, scale, side // 8 * 8)
        self._outputs: dict[ArchSettings, Tensor] = {}
        self._measured = functools.cache(self._measure)

    def __call__(self, settings: ArchSettings) -> float:
        return self._measured(settings)

    def _measure(self, settings: ArchSettings) -> float:
        found = self._restore(lambda image: self._run(image, settings), settings.ranges)
        if settings.residual == "none":
            return found
        # A global residual must beat its base alone. Otherwise any weights would do: in some
        # range, they add next to nothing.
        alone = self._restore(lambda image: base(image, settings), Ranges())
        return found if found > alone + MIN_GAIN else -math.inf

    def _restore(self, network: Callable[[Tensor], Tensor], ranges: Ranges) -> float:
        def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                return network(torch.from_numpy(image)).numpy()

        return self._task.gain(ranges.around(run)(self._task.given))

    def _run(self, image: Tensor, settings: ArchSettings) -> Tensor:
        """Run a network; reuse the output of its stages if only the end differs."""
        ranges = replace(settings.ranges, output=UNIT)
        inner = replace(settings, final="none", residual="none", ranges=ranges)
        if inner not in self._outputs:
            self._outputs[inner] = PlainNetwork(self._topology, inner).eval().inner(image)
        return finish(self._outputs[inner], image, settings)
