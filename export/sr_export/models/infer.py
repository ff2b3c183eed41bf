"""Infer the settings that weights do not determine, by testing which ones restore photos best.

The search is a hill climb over groups of settings, from several starts, since few settings show an
effect as long as certain others are wrong. The starts are compared on tiny images first.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from sr_export.models import restoration
from sr_export.models.arch_settings import ArchSettings
from sr_export.models.plain_network import PlainNetwork, base, finish
from sr_export.models.ranges import UNIT, Color
from sr_export.models.restoration import (
    CLEAR_GAIN,
    EXPECTED_SIDE,
    MIN_GAIN,
    PHOTOS,
    RESEMBLANCE,
    RIVAL,
    SAME_LEVELS,
    difference,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from sr_export.models.candidates import Choices
    from sr_export.models.families import NetworkPlan
    from sr_export.models.restoration import Expected, RestorationTask

# Settings that compensate for each other, or make no sense alone, are varied together.
_GROUPS = (
    ("full_size", "strided", "output_padding"),
    ("activation", "eps", "final", "ranges", "residual", "mean"),
)
# While these are wrong, right values of the others show no effect: each value is a start.
_STARTS = (
    "scale",
    "enlarge",
    "head_activation",
    "tail_activation",
    "long_skip",
    "norm",
    "block_skip",
)
# Starts of each plan that are climbed from, at most, and at most half of them.
_CLIMBS = 3
# Networks trained with zero padding may look better with another one: never inferred.
# The result of the user's own program shows it at the border.
_NOT_INFERRED = ("padding",)
# All thresholds in decibels of gain over the baseline of the task.
# A network that upscales still smooths noise if it runs as a denoiser.
_SCALE_1_BONUS = 1.5
# From here on, other plans need not be tried: the generator of a GAN gains no more.
_RESTORING = -3.0
# At least this PSNR, an image is the result of the user's program, but for its rounding.
_EQUAL = 40.0
# The gain of a large epsilon, which smooths, and so restores a little better by itself.
_UNUSUAL_EPS = 0.5
# Runner-ups whose pictures are compared with the winner's.
_RIVALS = 12
# Budget of one measurement: weights times pixels, and the sides of small and large test images.
_EFFORT = 1e9
_SIDES = (24, 96)


@dataclass(frozen=True)
class InferredSettings:
    """The best settings of a plan."""

    plan: NetworkPlan
    settings: ArchSettings
    gain: float
    measured: _Gain | None = None
    """All settings that were measured from the same start; None: defaults."""

    @property
    def restores(self) -> bool:
        """Whether the network restores photos at all; otherwise the settings are defaults."""
        return self.gain > RESEMBLANCE

    @property
    def score(self) -> float:
        """The gain, comparable between scales."""
        if self.settings.enlarge > 1:
            # Any network of scale 1 passes an enlarged image on, with some loss.
            return self.gain if self.gain > CLEAR_GAIN else self.gain - 2 * _SCALE_1_BONUS
        return self.gain - (_SCALE_1_BONUS if self.settings.scale == 1 else 0)


@dataclass(frozen=True)
class Inference:
    """The best settings, and the runner-up that may be the right one."""

    best: InferredSettings
    rival: tuple[NetworkPlan, ArchSettings, float] | None = None
    """Its plan, settings and gain; None: all others are clearly worse, or give the same picture."""

    @property
    def certain(self) -> bool:
        """Whether nothing was assumed."""
        return self.rival is None and self.best.gain > CLEAR_GAIN


def best(plans: Sequence[NetworkPlan], expected: Expected | None = None) -> Inference:
    """Return the plan and the settings with which its weights restore photos best.

    If none restores photos, as with untrained weights, the first plan with default settings.

    Args:
        plans: The possible readings of the weights, the likeliest first.
        expected: An image and the result of the user's own program; None: photos.
    """
    if expected is not None:
        plans = [_in_all_colors(plan) for plan in plans]
    hinted = [replace(plan, choices=plan.choices | plan.hints) for plan in plans if plan.hints]
    found = [each for plan in hinted for each in _climbs(plan, expected)]
    if not any(each.restores for each in found) or expected is not None:
        for plan in plans:
            if any(each.score > (CLEAR_GAIN if expected is None else _EQUAL) for each in found):
                break
            if plan.likely or not any(each.gain > _RESTORING for each in found):
                found += _climbs(plan, expected)
    highest = max((each.score for each in found), default=-math.inf)
    winner = next((each for each in found if each.score >= highest - MIN_GAIN), None)
    if winner is not None and winner.restores:
        return Inference(winner, _rival(winner, found) if expected is None else None)
    settings = default(plans[0])
    assert settings is not None, "checked when the user's arguments were applied"
    return Inference(InferredSettings(plans[0], settings, -math.inf))


def _rival(
    winner: InferredSettings, found: Sequence[InferredSettings]
) -> tuple[NetworkPlan, ArchSettings, float] | None:
    """Return the best settings that are nearly as good, but result in another picture."""
    assert winner.measured is not None
    near = [
        (gain, each.plan, settings, each.measured)
        for each in found
        if each.measured is not None
        for settings, gain in each.measured.gains.items()
        if gain > winner.gain - RIVAL and settings != winner.settings
    ]
    picture = winner.measured.picture(winner.settings)
    for gain, plan, settings, measured in sorted(near, key=lambda each: -each[0])[:_RIVALS]:
        other = measured.picture(settings)
        if other.shape != picture.shape or difference(other, picture).largest > SAME_LEVELS:
            return plan, settings, gain
    return None


def _in_all_colors(plan: NetworkPlan) -> NetworkPlan:
    """Return a plan whose images may have any colors: a user's result tells them apart."""
    found = plan.choices["ranges"]
    if plan.topology.chain.channels == 3 and len(found) > 1:
        found = tuple(
            replace(each, color=color)
            for color in get_args(Color)
            for each in plan.choices["ranges"]
        )
    return replace(plan, choices=plan.choices | {"ranges": tuple(dict.fromkeys(found))})


def default(plan: NetworkPlan) -> ArchSettings | None:
    """Return the first combination of choices that fits the topology, if any does."""
    names = list(plan.choices)
    for values in itertools.product(*(plan.choices[name] for name in names)):
        settings = ArchSettings(**dict(zip(names, values, strict=True)))
        if plan.topology.fits(settings):
            return settings
    return None


def _climbs(plan: NetworkPlan, expected: Expected | None) -> Iterator[InferredSettings]:
    """Yield the best settings from each of the most promising starts, the usual one first."""
    starts = list(_starts(plan, expected))
    count = min(_CLIMBS, max(len(starts) // 2, 1))
    if len(starts) > count:
        scores = [_scan(plan, *start, expected) for start in starts]
        kept = sorted(range(len(starts)), key=lambda i: -scores[i])[:count]
        starts = [starts[i] for i in sorted(kept)]
    for settings, choices in starts:
        yield _climb(plan, settings, choices, _Gain(plan, settings, expected))


def _starts(plan: NetworkPlan, expected: Expected | None) -> Iterator[tuple[ArchSettings, Choices]]:
    """Yield the starts of a plan: its first settings, and the choices that are left."""
    names = [name for name in _STARTS if name in plan.choices]
    for values in itertools.product(*(plan.choices[name] for name in names)):
        choices = plan.choices | {name: (each,) for name, each in zip(names, values, strict=True)}
        settings = default(replace(plan, choices=choices))
        if settings is None or (settings.norm != "none" and not settings.block_skip):
            continue
        if expected is None or settings.scale * settings.enlarge == expected.scale:
            yield settings, choices


def _scan(
    plan: NetworkPlan, settings: ArchSettings, choices: Choices, expected: Expected | None
) -> float:
    """Return how well a start does on tiny images, with the settings that matter most varied."""
    gain = _Gain(plan, settings, expected, tiny=True)
    # With the user's result, a start in other ranges or colors is as wrong as any.
    few = {"activation": 2, "ranges": 5 if expected is None else len(plan.choices["ranges"])}
    usual = {name: plan.choices.get(name, ())[:count] for name, count in few.items()}
    trials = [
        replace(settings, **values)
        for values in _combined(choices, _GROUPS[1])
        if all(values[name] in usual[name] for name in few if name in values)
    ]
    gains = [gain(each) for each in trials if each.sensible and plan.topology.fits(each)]
    found = InferredSettings(plan, settings, max(gains, default=-math.inf))
    return found.score


def _climb(
    plan: NetworkPlan, settings: ArchSettings, choices: Choices, gain: _Gain
) -> InferredSettings:
    """Improve one group of settings after the other, until nothing improves."""
    before = None
    while settings != before:
        before = settings
        for group in _grouped(choices, padding=gain.sees_padding):
            for values in group:
                trial = replace(settings, **values)
                if trial.sensible and plan.topology.fits(trial):
                    needed = _UNUSUAL_EPS if trial.eps > settings.eps else MIN_GAIN
                    better = gain(trial) > gain(settings) + needed
                    settings = trial if better else settings
    return InferredSettings(plan, settings, gain(settings), gain)


def _grouped(
    choices: Mapping[str, tuple[Any, ...]], *, padding: bool
) -> Iterator[list[dict[str, Any]]]:
    """Yield all combinations of values in each group of settings."""
    others = {*(() if padding else _NOT_INFERRED), *itertools.chain(*_GROUPS)}
    alone = [(name,) for name in choices if name not in others]
    for group in (*_GROUPS, *alone):
        yield _combined(choices, group)


def _combined(choices: Mapping[str, tuple[Any, ...]], group: Sequence[str]) -> list[dict[str, Any]]:
    """Return all combinations of values of the settings of a group."""
    names = [name for name in group if name in choices]
    combinations = itertools.product(*(choices[name] for name in names))
    return [dict(zip(names, values, strict=True)) for values in combinations]


class _Gain:
    """The gain in decibels over the baseline by settings; each is measured once."""

    def __init__(
        self,
        plan: NetworkPlan,
        start: ArchSettings,
        expected: Expected | None,
        *,
        tiny: bool = False,
    ) -> None:
        self._topology = topology = plan.topology
        channels, scale = topology.chain.channels, start.scale * start.enlarge
        self.sees_padding = expected is not None
        if expected is not None:
            grid = 2 ** len(topology.halvings(replace(start, strided=True)))
            side = 2 * _SIDES[0] if tiny else EXPECTED_SIDE
            tasks: tuple[RestorationTask, ...] = (expected.task(channels, grid, side),)
        else:
            weights = sum(stage.weight.numel() for stage in topology.chain.stages)
            affordable = math.isqrt(int(_EFFORT / weights / PHOTOS))
            side = max(min(affordable, _SIDES[1] // start.scale), _SIDES[0])
            side = _SIDES[0] if tiny else side
            side = max(side, 2 * _SIDES[0] if start.enlarge > 1 else 0) // 8 * 8 // start.enlarge
            heavy = weights * (side * start.enlarge) ** 2 * PHOTOS > 2 * _EFFORT
            count = 1 if tiny or heavy else PHOTOS
            tasks = restoration.tasks(channels, scale, (side, side), count)
        self._tasks = tuple(each.upscaled_before(start.enlarge) for each in tasks)
        self._outputs: dict[tuple[ArchSettings, int], Tensor] = {}
        self.gains: dict[ArchSettings, float] = {}
        """Of all settings measured."""

    def __call__(self, settings: ArchSettings) -> float:
        if settings not in self.gains:
            self.gains[settings] = max(
                self._measure(settings, number) for number in range(len(self._tasks))
            )
        return self.gains[settings]

    def picture(self, settings: ArchSettings) -> NDArray[np.uint8]:
        """Return the result of the first task, in levels of 255."""
        output = self._result(settings, 0)
        return (np.nan_to_num(output).clip(0, 1) * 255).round().astype(np.uint8)

    def _measure(self, settings: ArchSettings, number: int) -> float:
        task = self._tasks[number]
        found = task.gain(self._result(settings, number))
        if settings.residual == "none" or self.sees_padding:
            return found
        # A global residual must beat its base alone. Otherwise any weights would do: in some
        # range, they add next to nothing.
        alone = task.gain(base(torch.from_numpy(task.given), settings).numpy())
        return found if found > alone + CLEAR_GAIN else -math.inf

    def _result(self, settings: ArchSettings, number: int) -> NDArray[np.float32]:
        def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
            with torch.inference_mode():
                return self._run(torch.from_numpy(image), settings, number).numpy()

        return settings.ranges.around(run)(self._tasks[number].given)

    def _run(self, image: Tensor, settings: ArchSettings, number: int) -> Tensor:
        """Run a network; reuse the output of its stages if only the end differs."""
        ranges = replace(settings.ranges, output=UNIT)
        inner = replace(settings, final="none", residual="none", ranges=ranges)
        if (inner, number) not in self._outputs:
            module = PlainNetwork(self._topology, inner).eval()
            self._outputs[inner, number] = module.inner(image)
        return finish(self._outputs[inner, number], image, settings)
