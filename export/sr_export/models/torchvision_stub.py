"""Importing spandrel where torchvision is broken, as it is beside torch's CPU builds.

Two of spandrel's networks, for faces and for inpainting, use torchvision, so all of it imports
torchvision; and a torchvision built for another torch does not import. Nothing that can be exported
calls more of it than one function: an empty stand-in does, for as long as the import takes.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_NAMES = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def import_spandrel() -> None:
    """Import spandrel; from then on `import spandrel` works anywhere."""
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):  # RuntimeError: its operators do not fit this torch
        _import_without_torchvision()
    else:
        importlib.import_module("spandrel")
    # torchvision's asks its arguments whether a divisor is zero, which cannot be exported.
    faces = importlib.import_module("spandrel.architectures.RestoreFormer")
    vars(faces)["tv_normalize"] = normalise


def normalise(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Compute what torchvision's `normalize` does, of an (N, C, H, W) image."""
    return (image - image.new_tensor(mean)[:, None, None]) / image.new_tensor(std)[:, None, None]


def _import_without_torchvision() -> None:
    half_imported = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    for name in half_imported:
        del sys.modules[name]
    sys.modules.update({name: _stand_in(name) for name in _NAMES})
    try:
        importlib.import_module("spandrel")
    finally:
        for name in _NAMES:
            del sys.modules[name]


def _stand_in(name: str) -> types.ModuleType:
    """Return a module that has any attribute, all None."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__getattr__ = lambda _: None  # type: ignore[method-assign]
    return module
