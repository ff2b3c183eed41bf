"""Folded weights equal the weights that torch's own modules use in eval mode."""

from __future__ import annotations

import copy
import warnings
from typing import TYPE_CHECKING

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint.weight_norm import fold, remove_norms

if TYPE_CHECKING:
    from collections.abc import Callable

# With in = out channels the shapes do not tell which dimension the rows of the matrix were.
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "Conv2d": lambda: nn.Conv2d(5, 7, 3),
    "Conv2d square": lambda: nn.Conv2d(6, 6, 3),
    "Conv2d grouped": lambda: nn.Conv2d(6, 6, 3, groups=3),
    "Linear": lambda: nn.Linear(5, 7),
    "Linear square": lambda: nn.Linear(6, 6),
    "ConvTranspose2d": lambda: nn.ConvTranspose2d(5, 7, 3),
    "ConvTranspose2d square": lambda: nn.ConvTranspose2d(6, 6, 3),
}
NORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "old spectral": nn.utils.spectral_norm,
    "old weight": nn.utils.weight_norm,
    "old weight, whole": lambda layer: nn.utils.weight_norm(layer, dim=None),
    "old weight, dim 1": lambda layer: nn.utils.weight_norm(layer, dim=1),
    "spectral": parametrizations.spectral_norm,
    "weight": parametrizations.weight_norm,
    "weight, whole": lambda layer: parametrizations.weight_norm(layer, dim=None),
}


def trained(
    make: Callable[[], nn.Module], normalize: Callable[[nn.Module], nn.Module]
) -> nn.Module:
    """Return a network with one normalized layer after a few training steps, in eval mode."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old spellings are deprecated
        network = nn.Sequential(nn.Identity(), normalize(make()))
    first = next(p for p in network.parameters() if p.ndim >= 2)
    channels = 5 if "5" in str(network[1]).split(",")[0] else 6
    shape = (4, channels) if first.ndim == 2 else (4, channels, 8, 8)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        network(torch.randn(shape)).square().mean().backward()
        optimizer.step()
    return network.eval()


@pytest.mark.parametrize("norm", NORMS)
def test_a_module_without_norms_loads_folded_weights(norm: str) -> None:
    network = trained(LAYERS["Conv2d"], NORMS[norm])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old spellings are deprecated
        other = nn.Sequential(nn.Identity(), NORMS[norm](LAYERS["Conv2d"]()))
    remove_norms(other)
    folded = fold(network.state_dict())
    assert other.state_dict().keys() == folded.keys()
    with torch.no_grad():
        for name, each in other.state_dict().items():
            each.copy_(folded[name])
    x = torch.randn(3, 5, 9, 9)
    assert torch.allclose(other(x), network(x), rtol=1e-5, atol=1e-6)
    other.train()(x)  # no hook changes the weights any more
    assert torch.allclose(other(x), network(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("layer", LAYERS)
def test_folded_equals_the_module(layer: str, norm: str) -> None:
    network = trained(LAYERS[layer], NORMS[norm])
    plain = nn.Sequential(nn.Identity(), LAYERS[layer]())
    plain.load_state_dict(fold(network.state_dict()))  # strict: nothing missing, nothing left
    channels = plain[1].weight.shape[0 if "Transpose" in layer else 1]
    channels *= getattr(plain[1], "groups", 1)
    x = torch.randn((3, channels) if "Linear" in layer else (3, channels, 9, 9))
    network(x)  # the old hooks set `weight` when the layer runs
    used = network[1].weight
    # The same operations in the same order: equal, but for how a product was blocked.
    assert torch.allclose(plain[1].weight, used, rtol=1e-6, atol=1e-8)
    assert torch.allclose(plain.eval()(x), network(x), rtol=1e-5, atol=1e-6)


def test_pruning_masks_are_applied() -> None:
    layer = nn.Conv2d(4, 4, 3)
    prune.l1_unstructured(layer, "weight", amount=0.5)  # type: ignore[no-untyped-call]
    folded = fold(layer.state_dict())
    assert set(folded) == {"weight", "bias"}
    assert torch.equal(folded["weight"], layer.weight)


def test_plain_tensors_stay_and_the_argument_is_not_changed() -> None:
    state = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).state_dict()
    before = copy.copy(state)
    assert fold(state) == before
    assert state == before


def test_layers_called_g_and_v_are_no_weight_norm() -> None:
    state = {f"conv_{name}.weight": torch.ones(2, 2, 1, 1) for name in "gv"}
    state |= {"gain_g": torch.ones(1), "gain_v": torch.ones(2)}
    assert set(fold(state)) == set(state)


def test_unknown_parametrization_is_named() -> None:
    layer = parametrizations.orthogonal(nn.Linear(4, 4))
    with pytest.raises(CheckpointError, match=r"parametrizations\.weight\."):
        fold(layer.state_dict())


def test_parts_that_do_not_fit_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"u of \(9,\)"):
        fold(
            {
                "weight_orig": torch.ones(4, 4, 3, 3),
                "weight_u": torch.ones(9),
                "weight_v": torch.ones(36),
            }
        )
    with pytest.raises(CheckpointError, match=r"\(9, 1\)"):
        fold({"weight_g": torch.ones(9, 1), "weight_v": torch.ones(4, 4)})
    with pytest.raises(CheckpointError, match="weight_orig"):
        fold({"weight_orig": torch.ones(4, 4)})
