"""The architectures that weights are recognised by: spandrel's, and those that it lacks."""

from __future__ import annotations

import functools

from sr_export.models import ARCHITECTURES, TRANSLATORS  # first, since it sees to spandrel's import

from spandrel import MAIN_REGISTRY, ArchRegistry, ArchSupport  # isort: skip


@functools.cache
def registry() -> ArchRegistry:
    """Return spandrel's registry with this project's architectures behind its own."""
    extended = MAIN_REGISTRY.copy()
    extended.add(*map(ArchSupport.from_architecture, (*TRANSLATORS, *ARCHITECTURES)))
    return extended
