"""The environment of a record."""

from __future__ import annotations

import datetime
import platform
from pathlib import Path

import pytest

from sr_bench import environment
from sr_deploy import machine
from tests.conftest import ROOT


def test_the_machine_and_its_packages_are_described() -> None:
    found = environment.current()
    age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(found.date)
    assert abs(age) < datetime.timedelta(minutes=1)
    assert found.device.cores == machine.cores()
    assert found.device.cpu
    assert found.versions["Python"] == platform.python_version()
    assert {"numpy", "torch"} <= found.versions.keys()


def test_nothing_names_the_machine() -> None:
    assert platform.node() not in str(environment.current())


def test_the_commit_is_that_of_the_checkout() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    found = environment.current()
    assert found.commit is not None
    assert len(found.commit) == 40
    assert found.dirty in (True, False)


def test_without_git_there_is_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = environment.current()
    assert (found.commit, found.dirty) == (None, None)


def test_another_projects_commit_is_not_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "__file__", str(tmp_path / "environment.py"))
    assert environment.current().commit is None
