"""What pyproject.toml promises: versions, extras, what the wheel holds."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from sr_deploy.cli import console

if sys.version_info >= (3, 11):
    import tomllib
else:
    tomllib = pytest.importorskip("tomli")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pyproject() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return found


def _pins(name: str) -> dict[str, str]:
    """Return the pinned versions for this Python."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pins = _for_this_python(line for line in lines if not line.startswith("#"))
    return {each.name.lower(): str(each.specifier).removeprefix("==") for each in pins}


def _requirements(pyproject: dict[str, Any]) -> list[Requirement]:
    """Return the requirements of an installation for development, without our own extras."""
    project, groups = pyproject["project"], pyproject["dependency-groups"]
    extras = project["optional-dependencies"]
    return _for_this_python(
        [
            *project["dependencies"],
            *groups["test"],
            *(each for name in ("cpu", "export", "video") for each in extras[name]),
        ]
    )


def _for_this_python(texts: Iterable[str]) -> list[Requirement]:
    found = [Requirement(each) for each in texts]
    return [each for each in found if each.marker is None or each.marker.evaluate()]


def test_the_lowest_versions_are_the_lower_bounds(pyproject: dict[str, Any]) -> None:
    bounds: dict[str, str] = {}
    for requirement in _requirements(pyproject):
        lower = [each.version for each in requirement.specifier if each.operator == ">="]
        assert len(lower) == 1, f"{requirement}: needs a lower bound"
        name = requirement.name.lower()
        bounds[name] = max(lower[0], bounds.get(name, "0"), key=Version)
    bounds.pop("torch")
    lowest = _pins("constraints-lowest.txt")
    assert set(lowest) == set(bounds)
    for name, version in bounds.items():
        assert (lowest[name] + ".").startswith(version + "."), name


def test_every_dependency_is_pinned(pyproject: dict[str, Any]) -> None:
    names = {each.name.lower() for each in _requirements(pyproject)}
    assert names <= set(_pins("constraints.txt"))


def test_the_wheel_holds_the_three_packages_only(pyproject: dict[str, Any]) -> None:
    packages = pyproject["tool"]["scikit-build"]["wheel"]["packages"]
    assert {Path(each).name for each in packages} == {"sr_deploy", "sr_export", "sr_bench"}


def test_every_extra_that_a_message_names_exists(pyproject: dict[str, Any]) -> None:
    extras = set(pyproject["project"]["optional-dependencies"])
    for folder in ("sr_deploy", "export/sr_export", "benchmarks/sr_bench"):
        for path in (ROOT / folder).rglob("*.py"):
            named = re.findall(r"sr-deploy\[([\w,]+)\]", path.read_text(encoding="utf-8"))
            for extra in (name for each in named for name in each.split(",")):
                assert extra in extras, f"{path}: {extra}"


def test_commands_check_the_packages_of_the_export_extra(pyproject: dict[str, Any]) -> None:
    extras = pyproject["project"]["optional-dependencies"]
    names = {each.name for each in _for_this_python(extras["export"])}
    assert set(console._EXPORT_PACKAGES) == names
    assert extras["bench"] == ["sr-deploy[cpu,export]"]
