"""The networks to export: small ones of every architecture, and those with default arguments."""

from __future__ import annotations

import contextlib
import importlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from architectures.networks import DEFAULTS, GRAY, RGB, SMALL, Small
from architectures.plain import PLAIN, FamilyExample
from sr_export.models.registry import registry

# Standard deviations of outputs, where white is 1.
_LEAST_SPREAD = 0.05
_SPREAD = 0.2


@dataclass(frozen=True)
class Cell:
    """One network: small, with its channels and scale, or with the default arguments."""

    name: str
    channels: int = 0
    """0: default arguments."""
    scale: int = 0

    @property
    def small(self) -> bool:
        """Whether it is a small network."""
        return self.channels > 0

    @property
    def key(self) -> str:
        """The key in the record."""
        if not self.small:
            return self.name
        return f"{self.name} x{self.scale}{' gray' if self.channels == GRAY else ''}"


def small() -> list[Cell]:
    """Return the small networks: one of each architecture first, then other scales and gray."""
    kinds: dict[str, Small | FamilyExample] = {**SMALL, **PLAIN}
    ranked = [
        (rank + (channels != RGB), Cell(name, channels, scale))
        for name, kind in kinds.items()
        for channels in kind.channel_counts
        for rank, scale in enumerate(kind.scales)
    ]
    return [cell for _, cell in sorted(ranked, key=lambda each: each[0])]


def default() -> list[Cell]:
    """Return a cell with default arguments for each architecture of spandrel."""
    found = [each.architecture for each in registry()]
    theirs = [each for each in found if type(each).__module__.startswith("spandrel.")]
    return [Cell(str(each.id)) for each in theirs]


def build(cell: Cell) -> tuple[nn.Module, str]:
    """Return a network with random weights and the value of `sr-export --arch`; "": not needed.

    Raises:
        Exception: Any error of the network class.
    """
    torch.manual_seed(0)
    if cell.name in PLAIN:
        family = PLAIN[cell.name]
        spec = f"{cell.name} {family.spec.format(scale=cell.scale)}" if family.spec else ""
        module = family.make(cell.channels, cell.scale)
    else:
        spec = ""
        module = _of_spandrel(cell)
    _wake(module)
    if cell.small:
        _spread(module, cell.channels)
    return module, spec


def _of_spandrel(cell: Cell) -> nn.Module:
    if not cell.small:
        return _class_of(cell.name)(**DEFAULTS.get(cell.name, {}))
    kind = SMALL[cell.name]
    network = _class_of(cell.name, kind.network.format(scale=cell.scale))
    return network(**kind.of(cell.channels, cell.scale))


def _class_of(name: str, wanted: str = "") -> type[nn.Module]:
    """Return a network class of an architecture's module, by name, or the first."""
    module = importlib.import_module(type(registry()[name].architecture).__module__)
    for each in module.__all__:
        value = getattr(module, each)
        if isinstance(value, type) and issubclass(value, nn.Module) and wanted in ("", each):
            return value
    raise LookupError(f"{module.__name__} exports no network {wanted}")


def _wake(module: nn.Module) -> None:
    """Set weights that are initialized to zero, and so disable a branch, to small random values."""
    with torch.no_grad():
        for name, weight in module.named_parameters():
            if not name.endswith("bias") and not weight.any():
                weight.normal_(std=0.1)


def _spread(module: nn.Module, channels: int) -> None:
    """Scale a nearly constant output to the range from black to white, so that errors show."""
    called: list[Any] = []
    hooks = [
        part.register_forward_hook(lambda part, *_: called.append(part))
        for part in module.modules()
        if isinstance(part, nn.Conv2d)
    ]
    with torch.no_grad(), contextlib.suppress(RuntimeError, TypeError):  # needs more than an image
        found = module.eval()(torch.rand(1, channels, 64, 64))
        output = found[0] if isinstance(found, tuple) else found
        if output.std() < _LEAST_SPREAD:
            called[-1].weight *= _SPREAD / output.std()
            called[-1].bias += 0.5 - output.mean()
    for hook in hooks:
        hook.remove()
