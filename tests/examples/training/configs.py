"""Configurations of trainings that take a second."""

from __future__ import annotations

from dataclasses import replace

from examples.training.config import RECIPES, AdversarialRecipe, TrainingConfig


def config(
    network: str = "compact", adversarial: AdversarialRecipe | None = None, **changes: object
) -> TrainingConfig:
    recipe = replace(
        RECIPES[network],
        steps=6,
        batch=2,
        patch=8,
        average=0.9,
        adversarial=adversarial,
        rate=1e-3,
    )
    blocks = {} if network == "espcn" else {"blocks": 1}
    default = TrainingConfig(
        recipe=recipe,
        scale=2,
        channels=3,
        size={"features": 8, **blocks},
        loss="charbonnier",
        degradation="bicubic",
        vgg=None,
        start=None,
        photos="",
        bfloat16=False,
        seed=0,
    )
    return replace(default, **changes)


def adversarial(kind: str = "vanilla", steps: int = 4) -> AdversarialRecipe:
    return AdversarialRecipe(kind, "patch", steps=steps, rate=1e-3, weight=1e-2)
