"""The recipes of the usual networks, and the configuration of one training."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True)
class AdversarialRecipe:
    """The second stage of a GAN's training, with a discriminator."""

    kind: str
    """Adversarial loss, a key of `gan.ADVERSARIAL_LOSSES`."""
    discriminator: str
    """A key of `gan.DISCRIMINATORS`."""
    steps: int
    rate: float
    """Peak learning rate of both networks."""
    weight: float
    """Weight of the adversarial loss."""
    pixels: float = 0.01
    """Weight of the pixel loss beside a perceptual loss; without one, the weight is 1."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How one kind of network is trained."""

    network: str
    """A key of `networks.NETWORKS`."""
    steps: int
    """Optimizer steps of the first stage, on the pixel loss."""
    batch: int
    """Crops per step."""
    patch: int
    """Low-resolution side of a crop."""
    rate: float
    """Adam's peak learning rate."""
    average: float
    """Decay of the averaged weights (EMA); short trainings need a smaller one."""
    adversarial: AdversarialRecipe | None = None
    """The second stage of a GAN's training."""


# For minutes on two CPU cores. On a GPU, use 10 to 100 times the steps and twice the patch size.
_SRRESNET = TrainingRecipe("srresnet", steps=2_000, batch=8, patch=24, rate=5e-4, average=0.99)
_RRDB = TrainingRecipe("rrdb", steps=3_000, batch=8, patch=24, rate=5e-4, average=0.99)
_SRGAN = AdversarialRecipe("vanilla", "pyramid", steps=1_000, rate=1e-4, weight=1e-3)
_ESRGAN = AdversarialRecipe("relativistic", "pyramid", steps=1_000, rate=1e-4, weight=5e-3)
RECIPES = {
    "espcn": TrainingRecipe("espcn", steps=20_000, batch=16, patch=32, rate=1e-3, average=0.999),
    "compact": TrainingRecipe(
        "compact", steps=16_000, batch=16, patch=48, rate=1e-3, average=0.999
    ),
    "srresnet": _SRRESNET,
    "rrdb": _RRDB,
    "srgan": replace(_SRRESNET, adversarial=_SRGAN),
    "esrgan": replace(_RRDB, adversarial=_ESRGAN),
}
DEFAULT_ADVERSARIAL = _SRGAN
"""For --adversarial with a recipe that has no adversarial stage."""


def for_int8(recipe: TrainingRecipe) -> TrainingRecipe:
    """Return a recipe that fine-tunes a trained network for INT8."""
    return replace(recipe, steps=400, rate=3e-5, average=0.9, adversarial=None)


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that determines the trained weights.

    With the same machine and number of threads, equal configurations give bit-identical weights;
    otherwise the weights differ slightly.
    """

    recipe: TrainingRecipe
    scale: int
    channels: int
    size: dict[str, int]
    """Optional arguments of the network: `features`, `blocks`."""
    loss: str
    """Pixel loss, a key of `losses.PIXEL_LOSSES`."""
    degradation: str
    vgg: str | None
    """File with VGG19's weights, for the perceptual loss."""
    start: str | None
    """Checkpoint with the initial weights."""
    photos: str
    """Fingerprint of the training photos."""
    bfloat16: bool
    """Mixed precision: bfloat16 where it is accurate enough."""
    seed: int
    int8: str | None = None
    """Checkpoint of a trained network to fine-tune for INT8."""

    @property
    def steps(self) -> int:
        """Number of steps of all stages."""
        adversarial = self.recipe.adversarial
        return self.recipe.steps + (adversarial.steps if adversarial else 0)

    def state(self) -> dict[str, Any]:
        """Return the configuration as plain containers, for the checkpoint."""
        return dataclasses.asdict(self)

    def differences(self, other: dict[str, Any]) -> list[str]:
        """Return the differences from the `state` of another configuration, as text."""
        ours, theirs = _flat(self.state()), _flat(other)
        return [
            f"{name.replace('recipe.', '')} was {theirs.get(name)} and is {ours.get(name)}"
            for name in sorted(ours.keys() | theirs.keys())
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
