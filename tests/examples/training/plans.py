"""Trainings that take a second."""

from __future__ import annotations

from dataclasses import replace

from examples.training.recipes import RECIPES, Contest, Plan


def plan(network: str = "compact", contest: Contest | None = None, **changes: object) -> Plan:
    recipe = replace(
        RECIPES[network], steps=6, batch=2, patch=8, average=0.9, contest=contest, rate=1e-3
    )
    blocks = {} if network == "espcn" else {"blocks": 1}
    usual = Plan(
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
    return replace(usual, **changes)


def contest(kind: str = "vanilla", steps: int = 4) -> Contest:
    return Contest(kind, "patch", steps=steps, rate=1e-3, weight=1e-2)
