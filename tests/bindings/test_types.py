"""Our TensorRT code against the real bindings of every supported version."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bindings import check
from tests.bindings.check import ROOT, VERSIONS, Version
from tests.fakes import tensorrt as fake_tensorrt
from tests.fakes.cuda import FakeCuda

_PACKAGES = ("sr_deploy", "export/sr_export")
_FLAG = re.compile(r"[A-Z][A-Z0-9]+(_[A-Z0-9]+)*")
# Names in capitals that are not TensorRT's: environment variables.
_OTHERS = {"PYTHONPATH", "SR_REQUIRE_GPU"}


def sources() -> list[Path]:
    """Return our modules that import TensorRT."""
    return sorted(
        path
        for package in _PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"^\s*import tensorrt", path.read_text(), re.MULTILINE)
    )


@pytest.fixture(params=VERSIONS, ids=lambda version: version.number)
def version(request: pytest.FixtureRequest) -> Version:
    found: Version = request.param
    if not check.ready(found):
        pytest.skip(f"no bindings of TensorRT {found.number}: python tests/bindings/check.py")
    return found


def test_modules_that_use_tensorrt_are_found() -> None:
    names = {path.name for path in sources()}
    assert {"builder.py", "contexts.py"} <= names


def test_our_code_passes_the_type_checker(version: Version) -> None:
    command = [sys.executable, "-m", "mypy", "--follow-imports=silent"]
    done = subprocess.run(
        [*command, "--cache-dir", str(version.folder / "mypy"), *map(str, sources())],
        env=os.environ | {"MYPYPATH": str(version.stubs)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_type_checker_finds_missing_names(version: Version, tmp_path: Path) -> None:
    # Proves that the stubs are found and are not Any.
    wrong = tmp_path / "wrong.py"
    wrong.write_text("import tensorrt\n\nflag = tensorrt.BuilderFlag.NEVER_WAS\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--cache-dir", str(version.folder / "mypy"), str(wrong)],
        env=os.environ | {"MYPYPATH": str(version.stubs)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert 'has no attribute "NEVER_WAS"' in done.stdout


_CALLBACKS = """
import types
import MODULE as trt
trt.__version__ = "of the package around the bindings"
from sr_deploy.backends.tensorrt.contexts import messages
from sr_export.trt.builder import monitor_progress

log, config, told = messages(trt), types.SimpleNamespace(), []
assert isinstance(log.logger, trt.ILogger)
log.logger.log(trt.ILogger.ERROR, "no kernel")
assert "no kernel" in str(log.error("building"))
monitor = monitor_progress(trt, config, told.append)
if hasattr(trt, "IProgressMonitor"):
    assert isinstance(config.progress_monitor, trt.IProgressMonitor)
    monitor.phase_start("building", None, 2)
    assert monitor.step_complete("building", 0) is True
    assert told[-1] == "building, 50%"
else:
    assert monitor is None
print("right")
"""


def test_callbacks_derive_from_the_real_classes(version: Version) -> None:
    assert version.run(_CALLBACKS.replace("MODULE", version.module)) == "right\n"


def test_every_name_exists_in_each_version(version: Version) -> None:
    names = version.names()
    missing = [
        f"{path.name}:{line}: {'.'.join(chain)}"
        for path in sources()
        for chain, line in _chains(ast.parse(path.read_text()))
        if not _known(names, chain)
    ]
    assert missing == []


def test_every_looked_up_name_exists_in_some_version() -> None:
    ready = [each for each in VERSIONS if check.ready(each)]
    if len(ready) < len(VERSIONS):
        pytest.skip("the bindings of some versions are not here")
    known = {
        name
        for each in ready
        for holder, names in each.names().items()
        for name in (holder, *names)
    }
    wanted = {
        (path.name, node.value)
        for path in [*sources(), ROOT / "export/sr_export/trt/build_request.py"]
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and _FLAG.fullmatch(node.value)
    }
    wanted |= {
        (path.name, node.args[1].value)
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in ("getattr", "hasattr")
        and isinstance(node.args[1], ast.Constant)
        and isinstance(node.args[1].value, str)
    }
    assert len(wanted) > 5
    assert {each for each in wanted if each[1] not in known | _OTHERS} == set()


@pytest.mark.parametrize("number", fake_tensorrt.ALL)
def test_the_fake_has_no_name_that_the_real_one_lacks(number: str) -> None:
    real = next(each for each in VERSIONS if each.number == number)
    if not check.ready(real):
        pytest.skip(f"no bindings of TensorRT {number}")
    names = real.names()
    fake = fake_tensorrt.FakeTensorRt(number, FakeCuda())
    ours = {"cuda", "faults", "builds", "fast_int8", "typed_only", "old", "network"}
    ours |= {"memory", "rtx"}
    found = {name for name in vars(fake) if not name.startswith("__")} - ours
    assert found <= set(names)
    for name in found:
        members = getattr(getattr(fake, name), "__members__", {})
        assert set(members) - {"OTHER"} <= set(names[name]), name


def _chains(tree: ast.Module) -> list[tuple[tuple[str, ...], int]]:
    """Return every `trt.A.B` or `tensorrt.A` in a module, without the first name, and its line."""
    aliases = {"trt", "tensorrt"}
    found = []
    for node in ast.walk(tree):
        chain: list[str] = []
        inner: ast.AST = node
        while isinstance(inner, ast.Attribute):
            chain.insert(0, inner.attr)
            inner = inner.value
        if chain and isinstance(inner, ast.Name) and inner.id in aliases:
            assert isinstance(node, ast.Attribute)
            found.append((tuple(chain), node.lineno))
    return found


def _known(names: dict[str, list[str]], chain: tuple[str, ...]) -> bool:
    if chain[0] in ("__version__", "__name__"):  # of the package around the bindings
        return True
    if chain[0] not in names:
        return False
    return len(chain) == 1 or chain[1] in names[chain[0]]
