from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sr_deploy.bundle import plan_store
from sr_export import cli
from sr_export.trt import command
from tests.sr_export.trt.conftest import Workshop

Open = Callable[[str], Workshop]
ROOT = Path(__file__).resolve().parents[3]

_TILE = ["--tile", "64x80"]

# The devices that plans are built on have TensorRT, cuda-python, numpy and Pillow.
_LEAN = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "onnx", "onnxscript", "spandrel", "scipy", "ml_dtypes"}:
            raise AssertionError(f"imports {name}")

sys.meta_path.insert(0, Blocker())
import sr_export.cli
import sr_export.trt.build, sr_export.trt.plan_validation, sr_export.trt.worker
sr_export.cli._parser()
"""


@pytest.fixture
def open_command(workshop: Open, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Makes a machine on which the command works, without another process."""

    def opened(version: str) -> Workshop:
        shop = workshop(version)

        class Worker:
            def __init__(self, report: Any) -> None:
                pass

            def __enter__(self) -> Any:
                return shop.worker

            def __exit__(self, *_: object) -> None:
                pass

        monkeypatch.setattr(command, "TensorRtProcess", Worker)
        return shop

    return opened


def run(shop: Workshop, *options: str) -> int:
    return cli.main([str(shop.bundle.folder), "--engine", *options])


def built(shop: Workshop) -> list[str]:
    folder = shop.bundle.folder / plan_store.FOLDER
    return sorted(path.name.split("-Fake")[0] for path in folder.glob("*.plan"))


def test_fp16_and_int8_are_built_by_default(
    open_command: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = open_command("10.3.0")

    assert run(shop, *_TILE) == 0

    assert built(shop) == ["fp16-1x64x80", "int8-1x64x80"]
    output = capsys.readouterr().out
    assert "fp16 for 1x64x80, TensorRT 10.3.0" in output
    assert "dB against FP32 in onnxruntime" in output


def test_precisions_and_a_range(open_command: Open) -> None:
    shop = open_command("8.6.0")

    assert run(shop, "fp32", "--range", "1x32x32", "1x64x64", "2x96x128") == 0

    assert built(shop) == ["fp32-2x96x128"]


def test_if_a_precision_fails_fp32_is_built_and_the_command_fails(
    open_command: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = open_command("10.3.0")
    shop.tensorrt.faults = ["black", "black"]

    assert run(shop, "fp16", *_TILE) == 1

    assert built(shop) == ["fp32-1x64x80"]
    output = capsys.readouterr()
    assert "one color" in output.out
    assert "fp16" in output.err
    assert "FP32" in output.err


def test_if_fp32_fails_too_no_plan_is_reported(
    open_command: Open, capsys: pytest.CaptureFixture[str]
) -> None:
    shop = open_command("10.3.0")
    shop.tensorrt.faults = ["black"] * 3

    assert run(shop, "fp16", *_TILE) == 1

    assert built(shop) == []
    output = capsys.readouterr().err
    assert "fp16: " in output
    assert "fp32: " in output
    assert "FP32 was built" not in output


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--format", "nv12"], "gray16"),
        (["--format", "rgb99"], "rgb99"),
        (["int8", "--format", "rgb48"], "rgb48"),
        (["--device", "7"], "cudaErrorInvalidDevice"),
    ],
)
def test_unsupported_options_are_reported_in_one_line(
    open_command: Open, capsys: pytest.CaptureFixture[str], options: list[str], text: str
) -> None:
    shop = open_command("10.3.0")

    assert run(shop, *options) == 1

    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        ["--frame", "1080"],
        ["--frame", "0x5"],
        ["--tile", "axb"],
        ["--range", "64x64", "64x64", "64x64"],
        ["--batch", "0"],
        ["--optimization-level", "6"],
        ["--workspace", "much"],
        ["--compatibility", "world"],
    ],
)
def test_wrong_usage_exits_with_2(exported: Path, option: list[str]) -> None:
    with pytest.raises(SystemExit) as found:
        cli.main([str(exported), "--engine", *option])
    assert found.value.code == 2


def test_a_checkpoint_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "net.pth"
    checkpoint.write_bytes(b"")
    assert cli.main([str(checkpoint), "--engine"]) == 1
    assert "net.pth" in capsys.readouterr().err


def test_neither_torch_nor_onnx_is_imported() -> None:
    done = subprocess.run([sys.executable, "-c", _LEAN], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
