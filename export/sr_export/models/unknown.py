"""What to say of weights that no architecture has: what was seen, and what is nearest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sr_export.models.registry import registry  # first, since it sees to spandrel's import

from spandrel.util import KeyCondition  # isort: skip

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

_SHOWN = 4
# Of the names by which an architecture is told, so many must be there for it to be near.
_NEAR = 0.5


def describe(candidates: Sequence[dict[str, Tensor]], name: str | None, plain: str = "") -> str:
    """Return the whole message.

    Args:
        candidates: the same weights under differently stripped names.
        name: of the architecture that the user asked for.
        plain: why the weights are of no plain network, if they could be.
    """
    tensors = candidates[0]
    what = f"is not {name}" if name else "is of no architecture that is known"
    hint = ""
    if _looks_like_classifier(tensors):
        hint = "; it looks like a classifier (it ends in a fully connected layer)"
    shown = [
        f"{key} {'x'.join(map(str, each.shape)) or 'one number'}" for key, each in tensors.items()
    ]
    more = ", ..." if len(shown) > _SHOWN else ""
    reasons = "; ".join(each for each in (plain, _nearest(candidates)) if each)
    return (
        f"the network {what}{hint}. Its {len(tensors)} tensors begin with: "
        f"{', '.join(shown[:_SHOWN])}{more}. {reasons[:1].upper()}{reasons[1:]}. "
        "Export your own class with --arch-file FILE.py:CLASS (and --latent N, if it makes images "
        "of N random numbers), or save it as a TorchScript, torch.export or ONNX file and export "
        "that"
    )


def _nearest(candidates: Sequence[dict[str, Tensor]]) -> str:
    shares = [
        (share, str(support.architecture.id))
        for support in registry()
        for names in candidates
        for share in _shares(support.architecture._detect, names)
    ]
    share, name = max(shares, key=lambda pair: pair[0], default=(0.0, ""))
    if share < _NEAR:
        return "no architecture is told by names like these"
    return f"by its names it is nearest to {name}: {share:.0%} of those that tell it are there"


def _shares(condition: object, names: dict[str, Tensor]) -> Iterator[float]:
    """Yield how much of each set of names that tells an architecture is there."""
    if not isinstance(condition, KeyCondition):
        return
    keys = [key for key in condition._keys if isinstance(key, str)]
    inner = [key for key in condition._keys if not isinstance(key, str)]
    if condition._kind == "all" and keys:
        yield sum(key in names for key in keys) / len(keys)
    for each in inner:
        yield from _shares(each, names)


def _looks_like_classifier(tensors: dict[str, Tensor]) -> bool:
    weights = [each for name, each in tensors.items() if name.endswith("weight") and each.ndim > 1]
    return bool(weights) and weights[-1].ndim == 2
