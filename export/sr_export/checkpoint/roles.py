"""What the names in a training checkpoint say about the weights below them."""

from __future__ import annotations

import re
from typing import Literal

Role = Literal["generator", "training", "unknown"]

# Names are cut into lower-case words: netG_ema is net, g, ema.
GENERATOR = frozenset({"generator", "gen", "netg", "gnet", "student"})
AVERAGED = frozenset({"ema", "swa", "averaged", "shadow"})
TRAINING = frozenset(
    {"discriminator", "discriminators", "disc", "critic", "netd", "dnet", "teacher"}
    | {"optimizer", "optimizers", "optimiser", "optimisers", "optim", "scheduler", "schedulers"}
    | {"loss", "losses", "criterion", "perceptual", "vgg", "lpips", "metric", "metrics", "scaler"}
)
# A lone g or d says something only by itself or beside these: netG, G_state_dict, not conv_g or g1.
BESIDE_A_LETTER = frozenset(
    {"net", "network", "model", "gan", "state", "states", "dict", "params", "weights"} | AVERAGED
)

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")


def role_of(name: str) -> Role:
    """Return what one name says; "training" is all that a finished network does not need."""
    words = _words(name)
    letters = words & {"g", "d"}
    others = words - letters
    if others and not others & BESIDE_A_LETTER:
        letters = set()
    if words & TRAINING or "d" in letters:
        return "training"
    return "generator" if words & GENERATOR or "g" in letters else "unknown"


def is_averaged(name: str) -> bool:
    """Return whether the name is one of a moving average of weights."""
    return bool(_words(name) & AVERAGED)


def _words(name: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(name)}
