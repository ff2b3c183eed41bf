from __future__ import annotations

import sys
import types

import pytest

from sr_export.models.spandrel_import import ArchRegistry, ArchSupport, extra_architectures
from sr_export.models.translators import UNET


def test_architectures_under_other_licenses_are_used_if_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = types.ModuleType("spandrel_extra_arches")
    found = ArchRegistry()
    found.add(ArchSupport.from_architecture(UNET))
    vars(package)["EXTRA_REGISTRY"] = found
    monkeypatch.setitem(sys.modules, package.__name__, package)
    assert [str(each.architecture.id) for each in extra_architectures()] == [str(UNET.id)]
    monkeypatch.delitem(sys.modules, package.__name__)
    assert extra_architectures() == []
