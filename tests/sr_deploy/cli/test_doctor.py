from __future__ import annotations

import importlib
import importlib.metadata
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sr_deploy import backends
from sr_deploy.cli import doctor
from sr_deploy.cli.doctor import diagnose, main
from sr_deploy.tiling import native
from tests.fakes import tensorrt as fake_tensorrt
from tests.fakes.cuda import FakeCuda, Status


def test_this_machine_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    text = capsys.readouterr().out
    for name in ("Python", "processor", "cores", "GiB free", "openvino", "onnxruntime", "torch"):
        assert name in text
    assert "BROKEN" not in text


def test_json_holds_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in found["backends"]] == list(backends.REGISTRY)
    details = {each["name"]: each["details"] for each in found["backends"]}
    assert "fp32" in details["openvino"]["CPU"]
    assert details["onnxruntime"]["cpu"] == "fp32, int8, fp16 (fastest first)"
    assert found["cores"] >= 1


def test_every_device_of_onnx_runtime_comes_with_its_precisions(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    providers = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: providers)
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "cuda: fp16, fp32, int8 (fastest first)" in text
    assert "tensorrt: int8, fp16, fp32 (fastest first)" in text


def test_what_is_missing_comes_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(backends, "_installed", lambda _: False)
    monkeypatch.setattr(doctor, "_version", lambda _: None)
    assert main([]) == 0
    text = capsys.readouterr().out
    for package, extra in (("openvino", "cpu"), ("torch", "export"), ("av", "video")):
        pattern = rf"^  {package} .*pip install sr-deploy\[{extra}\]$"
        assert re.search(pattern, text, re.MULTILINE), package


@pytest.mark.parametrize("error", [ImportError("no libfoo.so"), RuntimeError("odd"), SystemError()])
def test_a_broken_package_is_a_line_and_the_others_are_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    whole = importlib.import_module

    def import_module(name: str, *more: Any) -> Any:
        if name == "openvino":
            raise error
        return whole(name, *more)

    monkeypatch.setattr(importlib, "import_module", import_module)
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    (broken,) = (line for line in lines if "BROKEN" in line)
    assert broken.split()[0] == "openvino"
    assert (str(error) or "SystemError") in broken
    assert any("CPUExecutionProvider" in line for line in lines)


def test_a_broken_driver_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/nvidia-smi")

    def fail(*_: Any, **__: Any) -> None:
        raise subprocess.CalledProcessError(9, "nvidia-smi")

    monkeypatch.setattr(subprocess, "run", fail)
    (line,) = diagnose().gpus
    assert line.startswith("nvidia-smi fails: ")


def test_gpus_are_listed_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = "GPU A, 550.1, 80000 MiB, 9.0\nGPU B, 550.1, 16000 MiB, 7.5\n"
    monkeypatch.setattr(shutil, "which", lambda _: "/bin/nvidia-smi")
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(command, 0, answer),
    )
    assert diagnose().gpus == ("GPU A, 550.1, 80000 MiB, 9.0", "GPU B, 550.1, 16000 MiB, 7.5")


def test_without_nvidia_smi_the_driver_speaks_for_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(doctor, "_NVIDIA", tmp_path / "version")
    assert diagnose().gpus == ()
    (tmp_path / "version").write_text("NVRM version: 550.1\nGCC version: 12\n")
    assert diagnose().gpus == ("NVRM version: 550.1",)


def test_a_package_may_come_by_another_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        importlib.metadata, "packages_distributions", lambda: {"there_is_no_such": ["numpy"]}
    )
    assert doctor._version("there_is_no_such") == importlib.metadata.version("numpy")


def test_of_a_gpu_it_says_what_tensorrt_finds(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_tensorrt.install(monkeypatch, "10.3.0", gpu)
    monkeypatch.setattr(native, "kernels", lambda: None)
    monkeypatch.setattr(doctor, "_version", lambda _: "10.3.0")
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "cuda:0: Fake GPU, compute capability 9.0, 1.0 GiB of 1.0 GiB free" in text
    assert "kernels: not built" in text
    gpu.failing["cudaGetDeviceCount"] = Status.cudaErrorNoDevice
    assert main([]) == 0
    assert re.search(r"tensorrt .*BROKEN: .*cudaErrorNoDevice", capsys.readouterr().out)


def test_without_a_driver_tensorrt_for_rtx_still_builds_plans(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake_tensorrt.install(monkeypatch, fake_tensorrt.RTX, gpu)
    monkeypatch.setattr(doctor, "_version", lambda _: fake_tensorrt.RTX)
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "portable plans: are built here" in text
    assert "cuda:0: Fake GPU" in text
    gpu.failing["cudaGetDeviceCount"] = Status.cudaErrorNoDevice
    assert main([]) == 0
    text = capsys.readouterr().out
    assert "portable plans: are built here" in text
    assert re.search("running them: .*cudaErrorNoDevice", text)
