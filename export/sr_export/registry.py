"""The architectures that weights are recognised by: spandrel's, and those that it lacks."""

from __future__ import annotations

import functools
import importlib.machinery
import sys
import types
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spandrel import ArchRegistry


@functools.cache
def registry() -> ArchRegistry:
    """Return spandrel's registry with this project's architectures added to it."""
    _import_spandrel()
    from spandrel import MAIN_REGISTRY, ArchSupport

    from sr_export.architectures import ARCHITECTURES

    extended = MAIN_REGISTRY.copy()
    extended.add(*(ArchSupport.from_architecture(each()) for each in ARCHITECTURES))
    return extended


def _import_spandrel() -> None:
    """Import spandrel, where need be with an empty torchvision.

    Two of its networks, for faces and for inpainting, use torchvision, so all of it imports
    torchvision; and a torchvision built for another torch does not import. Nothing that can be
    exported calls it: an empty stand-in does, for as long as the import takes.
    """
    try:
        import torchvision  # noqa: F401
    except (ImportError, RuntimeError):  # RuntimeError: its operators do not fit this torch
        pass
    else:
        import spandrel

        return
    broken = [name for name in sys.modules if name.partition(".")[0] == "torchvision"]
    for name in broken:
        del sys.modules[name]
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    for name in names:
        sys.modules[name] = _stand_in(name)
    try:
        import spandrel  # noqa: F401
    finally:
        for name in names:
            del sys.modules[name]


def _stand_in(name: str) -> types.ModuleType:
    """Return a module that has any attribute, all None."""
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__getattr__ = lambda _: None  # type: ignore[method-assign]
    return module
