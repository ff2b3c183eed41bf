"""The registry of recognizable architectures: spandrel's, and those that it lacks."""

from __future__ import annotations

import functools

from sr_export.models.known import KNOWN
from sr_export.models.plain_recognition import ARCHITECTURES
from sr_export.models.spandrel_import import (
    MAIN_REGISTRY,
    ArchRegistry,
    ArchSupport,
    extra_architectures,
)
from sr_export.models.translators import TRANSLATORS


@functools.cache
def registry() -> ArchRegistry:
    """Return a copy of spandrel's registry, followed by the architectures of this package."""
    extended = MAIN_REGISTRY.copy()
    named = (ArchSupport.from_architecture(each, each.before) for each in (*TRANSLATORS, *KNOWN))
    extended.add(*extra_architectures(), *named, *map(ArchSupport.from_architecture, ARCHITECTURES))
    return extended
