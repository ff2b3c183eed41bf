"""The configurations of a machine, the checkpoints of bundles, and other interpreters."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import sr_deploy
from sr_bench import configurations
from sr_bench.records import Configuration
from sr_deploy import backends
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import BackendError, InvalidInputError
from tests.sr_bench.conftest import Tiny


def test_the_engine_runs_in_every_precision_of_this_machine(tiny: Tiny) -> None:
    found = configurations.engine_configurations(Bundle.open(tiny.bundle), None, None)
    for backend in backends.candidates("auto"):
        computed = backend.precisions(None)
        ours = {each.precision for each in found if each.backend == backend.name}
        assert ours == {"fp32", "bf16"}.intersection(computed)  # all that the bundle has


def test_requested_backends_and_precisions_are_selected(tiny: Tiny) -> None:
    found = configurations.engine_configurations(
        Bundle.open(tiny.bundle), ["onnxruntime"], ["fp32", "int8"]
    )
    assert found == [Configuration("sr-deploy", "onnxruntime", "fp32")]


def test_no_configuration_that_runs_is_an_error(tiny: Tiny) -> None:
    with pytest.raises(InvalidInputError, match="int8"):
        configurations.engine_configurations(Bundle.open(tiny.bundle), None, ["int8"])


def test_a_backend_in_another_environment_is_queried_there(tiny: Tiny, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny.bundle)
    pythons = {"onnxruntime": sys.executable}
    found = configurations.engine_configurations(bundle, ["onnxruntime"], None, None, pythons)
    assert found == configurations.engine_configurations(bundle, ["onnxruntime"], None)
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho no such module >&2\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(BackendError, match=r"onnxruntime.*no such module"):
        configurations.engine_configurations(
            bundle, ["onnxruntime"], None, None, {"onnxruntime": str(broken)}
        )


def test_on_a_gpu_half_precision_is_fp16() -> None:
    assert {each.precision for each in configurations.torch_configurations("cuda")[1:]} == {
        "fp32",
        "fp16",
    }


def test_the_checkpoint_is_named_or_lies_beside_the_bundle(tiny: Tiny, tmp_path: Path) -> None:
    bundle = Bundle.open(tiny.bundle)
    assert configurations.checkpoint_of(bundle, []) == tiny.checkpoint.resolve()
    assert configurations.checkpoint_of(bundle, [tiny.checkpoint]) == tiny.checkpoint
    other = tmp_path / "other.pth"
    other.write_bytes(b"other")
    assert configurations.checkpoint_of(bundle, [other, tiny.checkpoint]) == tiny.checkpoint
    with pytest.raises(InvalidInputError, match=r"other\.pth"):
        configurations.checkpoint_of(bundle, [other])


def test_a_bundle_alone_has_no_checkpoint(tiny: Tiny, tmp_path: Path) -> None:
    alone = tmp_path / "alone.srd"
    alone.symlink_to(tiny.bundle)
    bundle = Bundle(tmp_path / "nowhere.srd", Bundle.open(alone).manifest)
    assert configurations.checkpoint_of(bundle, []) is None
    (tmp_path / "tiny.pth").write_bytes(b"another")
    assert configurations.checkpoint_of(bundle, []) is None  # of the same name, but not the same


def test_another_interpreter_imports_our_packages_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    with configurations.interpreter_environment(sys.executable) as variables:
        ours, other = variables["PYTHONPATH"].split(os.pathsep)
        assert other == "elsewhere"
        found = sorted(each.name for each in Path(ours).iterdir())
        assert found == ["sr_bench", "sr_deploy", "sr_export"]
        # -S: without what is installed, as in an environment that has none of it.
        command = [sys.executable, "-S", "-c", "import sr_deploy; print(sr_deploy.__version__)"]
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == sr_deploy.__version__
    assert not Path(ours).exists()


def test_this_interpreter_needs_no_variables() -> None:
    with configurations.interpreter_environment(None) as variables:
        assert variables == dict(os.environ)
