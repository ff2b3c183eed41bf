"""Fold spectral norm, weight norm and pruning masks into plain weights, as in eval mode.

During training, these keep a weight as a product of other tensors. The norms exist in two forms:
the old hooks (`weight_orig`, `weight_g`) and `torch.nn.utils.parametrizations`.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from sr_deploy.errors import CheckpointError


def fold(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a state dict of plain weights; tensors that need no folding are passed through.

    Args:
        tensors: float32 tensors of one network by name; not changed.

    Raises:
        CheckpointError: a weight has an unknown parametrization.
    """
    folded: dict[str, torch.Tensor] = {}
    used: set[str] = set()
    for key in tensors:
        found = _fold_old(key, tensors) or _fold_parametrized(key, tensors)
        if found:
            name, weight, parts = found
            folded[name] = weight
            used |= parts
        else:
            folded[key] = tensors[key]
    plain = {key: tensor for key, tensor in folded.items() if key not in used}
    for key in plain:
        if "parametrizations." in key or key.endswith("weight_orig"):
            raise CheckpointError(
                f"{key!r} belongs to an unknown parametrization; only spectral norm and weight "
                "norm are supported, remove others before saving "
                "(torch.nn.utils.parametrize.remove_parametrizations)"
            )
    return plain


def remove_norms(module: nn.Module) -> None:
    """Remove spectral and weight norm from a module in place, so that it loads folded weights."""
    for part in module.modules():
        kept = getattr(part, "parametrizations", None)
        for name in list(kept) if isinstance(kept, nn.ModuleDict) else ():
            parametrize.remove_parametrizations(part, name)
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, SpectralNorm):
                nn.utils.remove_spectral_norm(part, hook.name)
            elif isinstance(hook, WeightNorm):
                nn.utils.remove_weight_norm(part, hook.name)


Folded = tuple[str, torch.Tensor, set[str]]
"""The plain name, the plain weight, and the keys that they replace."""


def _fold_old(key: str, tensors: dict[str, torch.Tensor]) -> Folded | None:
    """Fold the hooks of torch.nn.utils: NAME_orig with _u and _v or _mask, NAME_g with _v."""
    name, _, part = key.rpartition("_")
    u, v, mask = (tensors.get(f"{name}_{each}") for each in ("u", "v", "mask"))
    if part == "orig" and u is not None and v is not None:
        return name, spectral(tensors[key], u, v), {key, f"{name}_u", f"{name}_v"}
    if part == "orig" and mask is not None:
        return name, tensors[key] * mask, {key, f"{name}_mask"}
    # Only `weight`: a network may have layers called conv_g and conv_v.
    if part == "g" and name.rpartition(".")[2] == "weight" and v is not None:
        return name, weight_norm(tensors[key], v), {key, f"{name}_v"}
    return None


def _fold_parametrized(key: str, tensors: dict[str, torch.Tensor]) -> Folded | None:
    """Fold LAYER.parametrizations.NAME.original (and 0._u, 0._v) or .original0, .original1."""
    layer, marker, rest = key.rpartition("parametrizations.")
    name, _, part = rest.partition(".")
    if not marker:
        return None
    stem = f"{layer}{marker}{name}"
    u, v = tensors.get(f"{stem}.0._u"), tensors.get(f"{stem}.0._v")
    inside = {each for each in tensors if each.startswith(f"{stem}.")}
    if part == "original" and u is not None and v is not None:
        parts = {f"{stem}.original", f"{stem}.0._u", f"{stem}.0._v"}
        return (layer + name, spectral(tensors[key], u, v), parts) if inside == parts else None
    if part == "original0" and inside == {key, f"{stem}.original1"}:
        return layer + name, weight_norm(tensors[key], tensors[f"{stem}.original1"]), inside
    return None


def spectral(weight: torch.Tensor, u: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return `weight / sigma`, with sigma = u . (W v) and W the weight as a matrix.

    The rows of W are the first dimension of the weight; of a transposed convolution, the second.
    The file does not say which layer it was, but the length of `u` does. If both dimensions have
    that length, the larger sigma is right, since training drives u and v towards the maximum.

    Raises:
        CheckpointError: `u` and `v` fit neither dimension.
    """
    rows = [0] if weight.ndim == 2 else [0, 1]
    sigmas = []
    for dim in rows:
        matrix = weight.movedim(dim, 0).flatten(1)
        if matrix.shape == (u.numel(), v.numel()):
            sigmas.append(torch.dot(u, torch.mv(matrix, v)))
    if not sigmas:
        raise CheckpointError(
            f"spectral norm: u of {tuple(u.shape)} and v of {tuple(v.shape)} do not fit "
            f"a weight of {tuple(weight.shape)}"
        )
    return weight / max(sigmas, key=lambda sigma: abs(float(sigma)))


def weight_norm(g: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return `v * (g / norm of v)`, with the norm over the dimensions in which `g` has size 1.

    Raises:
        CheckpointError: the shape of `g` does not fit `v`.
    """
    if g.ndim == 0:
        return torch._weight_norm(v, g, -1)  # the norm of the whole tensor
    for dim, size in enumerate(v.shape):
        if g.shape == (*[1] * dim, size, *[1] * (v.ndim - dim - 1)):
            return torch._weight_norm(v, g, dim)  # bit-identical to torch's modules
    raise CheckpointError(f"weight norm: g of {tuple(g.shape)} does not fit v of {tuple(v.shape)}")
