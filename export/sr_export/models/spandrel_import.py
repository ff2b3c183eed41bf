"""Import spandrel, also if torchvision is broken, as it often is beside CPU builds of torch.

Two of spandrel's networks, for faces and for inpainting, use torchvision, so spandrel always
imports it; and a torchvision that was built for another torch cannot be imported. Exportable
networks call only one function of it. An empty stub therefore suffices during the import.

Import spandrel's names from here; afterwards, `import spandrel` works everywhere.

spandrel_extra_arches has architectures under licenses for non-commercial use. It is not required,
and used if it is installed.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

_EXTRA = "spandrel_extra_arches"
_STUBBED = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")


def _import_spandrel() -> None:
    try:
        importlib.import_module("torchvision")
    except (ImportError, RuntimeError):  # RuntimeError: its operators do not fit this torch
        _import_without_torchvision()
    else:
        _import_packages()
    # torchvision's function compares its arguments with 0, which cannot be exported.
    faces = importlib.import_module("spandrel.architectures.RestoreFormer")
    vars(faces)["tv_normalize"] = normalize


def _import_packages() -> None:
    importlib.import_module("spandrel")
    if importlib.util.find_spec(_EXTRA) is not None:
        importlib.import_module(_EXTRA)


def extra_architectures() -> list[ArchSupport]:
    """Return the architectures of spandrel_extra_arches, if it is installed."""
    package = sys.modules.get(_EXTRA)
    return list(package.EXTRA_REGISTRY) if package else []


def normalize(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Compute torchvision's `normalize` of an (N, C, H, W) image."""
    return (image - image.new_tensor(mean)[:, None, None]) / image.new_tensor(std)[:, None, None]


def _import_without_torchvision() -> None:
    half_imported = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    for name in half_imported:
        del sys.modules[name]
    sys.modules.update({name: _stub(name) for name in _STUBBED})
    try:
        _import_packages()
    finally:
        for name in _STUBBED:
            del sys.modules[name]


def _stub(name: str) -> types.ModuleType:
    """Return a module whose attributes all exist and are None."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__file__ = f"{name}.py"  # inspect takes a module without one for a built-in module
    module.__getattr__ = lambda _: None  # type: ignore[method-assign]
    return module


_import_spandrel()

from spandrel import (  # noqa: E402  not before torchvision is checked
    MAIN_REGISTRY,
    ArchId,
    Architecture,
    ArchRegistry,
    ArchSupport,
    ImageModelDescriptor,
    SizeRequirements,
)
from spandrel.architectures.__arch_helpers.dysample import DySample  # noqa: E402
from spandrel.util import KeyCondition  # noqa: E402

__all__ = [
    "MAIN_REGISTRY",
    "ArchId",
    "ArchRegistry",
    "ArchSupport",
    "Architecture",
    "DySample",
    "ImageModelDescriptor",
    "KeyCondition",
    "SizeRequirements",
    "extra_architectures",
]
