"""What is trained and how, as data: the usual recipes, and the plan of one training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class Contest:
    """The second half of a GAN's training, against a discriminator.

    Attributes:
        kind: of adversarial loss, a name in `adversarial.ADVERSARIAL`.
        discriminator: a name in `discriminators.DISCRIMINATORS`.
        steps: of both optimisers.
        rate: the learning rate of both.
        weight: of the adversarial loss.
        pixels: weight of the pixels' loss beside a perceptual one; without, it counts in full.
    """

    kind: str
    discriminator: str
    steps: int
    rate: float
    weight: float
    pixels: float = 0.01


@dataclass(frozen=True)
class Recipe:
    """How one kind of network is trained.

    Attributes:
        network: a name in `networks.NETWORKS`.
        steps: of the optimiser, for the pixels alone.
        batch: crops per step.
        patch: the low-resolution side of a crop.
        rate: Adam's learning rate, at its height.
        average: decay of the averaged weights; short trainings must forget faster.
        contest: what follows, of a GAN.
    """

    network: str
    steps: int
    batch: int
    patch: int
    rate: float
    average: float
    contest: Contest | None = None


# For minutes on two processor cores. On a GPU, take ten to a hundred times the steps, and crops
# twice as large.
_SRRESNET = Recipe("srresnet", steps=2_000, batch=8, patch=24, rate=5e-4, average=0.99)
_RRDB = Recipe("rrdb", steps=3_000, batch=8, patch=24, rate=5e-4, average=0.99)
_SRGAN = Contest("vanilla", "pyramid", steps=1_000, rate=1e-4, weight=1e-3)
_ESRGAN = Contest("relativistic", "pyramid", steps=1_000, rate=1e-4, weight=5e-3)
RECIPES = {
    "espcn": Recipe("espcn", steps=20_000, batch=16, patch=32, rate=1e-3, average=0.999),
    "compact": Recipe("compact", steps=16_000, batch=16, patch=48, rate=1e-3, average=0.999),
    "srresnet": _SRRESNET,
    "rrdb": _RRDB,
    "srgan": replace(_SRRESNET, contest=_SRGAN),
    "esrgan": replace(_RRDB, contest=_ESRGAN),
}


def for_int8(recipe: Recipe) -> Recipe:
    """Returns a recipe to fine-tune the network of another for INT8."""
    return replace(recipe, steps=400, rate=3e-5, average=0.9, contest=None)


@dataclass(frozen=True)
class Plan:
    """All that decides how a training goes: the same plan gives the same weights.

    To the last bit on the same machine with the same number of threads; else nearly.
    """

    recipe: Recipe
    scale: int
    channels: int
    size: dict[str, int]
    """What the network takes beside scale and channels: `features`, `blocks`."""
    loss: str
    degradation: str
    vgg: str | None
    """The file with the weights for the perceptual loss."""
    start: str | None
    """The checkpoint that a new training starts from."""
    photos: str
    """A hash of their names, sizes and shares."""
    bfloat16: bool
    """Computed in it wherever that is good enough."""
    seed: int
    int8: str | None = None
    """The checkpoint of a network that learns to give in INT8 what it gives in FP32."""

    @property
    def steps(self) -> int:
        """Of both halves."""
        contest = self.recipe.contest
        return self.recipe.steps + (contest.steps if contest else 0)

    def state(self) -> dict[str, Any]:
        """Returns the plan as plain containers, for the checkpoint."""
        return dataclasses.asdict(self)

    def changes(self, other: dict[str, Any]) -> list[str]:
        """Returns what another plan's state says differently, in words."""
        ours, theirs = _flat(self.state()), _flat(other)
        return [
            f"{name.replace('recipe.', '')} was {theirs.get(name)} and is {ours.get(name)}"
            for name in ours.keys() | theirs.keys()
            if ours.get(name) != theirs.get(name)
        ]


def _flat(state: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
