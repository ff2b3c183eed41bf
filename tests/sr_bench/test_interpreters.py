"""Another interpreter is lent our packages, and nothing else that is installed here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sr_deploy
from sr_bench import interpreters


def test_our_packages_are_found_and_the_rest_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    with interpreters.environment(sys.executable) as variables:
        ours, other = variables["PYTHONPATH"].split(os.pathsep)
        assert other == "elsewhere"
        found = sorted(each.name for each in Path(ours).iterdir())
        assert found == ["sr_bench", "sr_deploy", "sr_export"]
        # -S: without what is installed, as in an environment that has none of it.
        command = [sys.executable, "-S", "-c", "import sr_deploy; print(sr_deploy.__version__)"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == sr_deploy.__version__
    assert not Path(ours).exists()


def test_the_interpreter_here_needs_nothing() -> None:
    with interpreters.environment(None) as variables:
        assert variables == dict(os.environ)
