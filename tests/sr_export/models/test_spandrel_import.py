from __future__ import annotations

import sys
import types

import pytest
from torch import nn

from sr_export.models.spandrel_import import (
    Architecture,
    ArchRegistry,
    ArchSupport,
    ImageModelDescriptor,
    KeyCondition,
    extra_architectures,
)


class _Restricted(Architecture[nn.Module]):
    def __init__(self) -> None:
        super().__init__(id="Restricted", detect=KeyCondition.has_all("restricted.weight"))

    def load(self, state_dict: dict[str, object]) -> ImageModelDescriptor[nn.Module]:
        raise NotImplementedError


def test_architectures_under_other_licenses_are_used_if_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    package = types.ModuleType("spandrel_extra_arches")
    found = ArchRegistry()
    found.add(ArchSupport.from_architecture(_Restricted()))
    vars(package)["EXTRA_REGISTRY"] = found
    monkeypatch.setitem(sys.modules, package.__name__, package)
    assert [str(each.architecture.id) for each in extra_architectures()] == ["Restricted"]
    monkeypatch.delitem(sys.modules, package.__name__)
    assert extra_architectures() == []
