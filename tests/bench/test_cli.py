"""The commands, from the outside."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_bench import records, report
from sr_bench.cli import main
from sr_bench.records import QualityRecord, SpeedRecord
from sr_deploy import backends
from sr_deploy.files import sha256_of
from tests.bench.conftest import Tiny
from tests.bench.examples import QUALITY

Output = pytest.CaptureFixture[str]
QUICK = ["--warm-up", "0", "--rounds", "1", "--turn", "0", "--rest", "0", "--sizes", "16x12"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (40, 30, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png")
    return folder


def test_quality_prints_a_table_and_writes_a_record(
    tiny: Tiny, photos: Path, tmp_path: Path, capsys: Output
) -> None:
    target = tmp_path / "quality.json"
    options = ["--ground-truth", str(photos), "--backend", "onnxruntime", "--json", str(target)]
    assert main(["quality", str(tiny.bundle), *options]) == 0
    out = capsys.readouterr().out
    assert [line.split()[0] for line in out.splitlines()[:3]] == ["image", "noise", "mean"]
    assert "low resolution by antialiased bicubic" in " ".join(out.split())
    record = records.read(target)
    assert isinstance(record, QualityRecord)
    assert record.subject.sha256 == sha256_of(tiny.checkpoint)
    assert (record.images, record.low_resolution) == ("photos", None)
    assert str(record.networks()[0].contender) == "sr-deploy ONNX Runtime FP32"


def test_quality_compares_precisions(tiny: Tiny, photos: Path, capsys: Output) -> None:
    options = ["--ground-truth", str(photos), "--backend", "openvino"]
    options += ["--precision", "fp32", "bf16"]
    if "bf16" not in backends.create("openvino").precisions(None):
        pytest.skip("this CPU does not compute in BF16")
    assert main(["quality", str(tiny.bundle), *options]) == 0
    out = capsys.readouterr().out
    assert "tiny BF16" in out
    assert "against FP32" in out


def test_speed_compares_with_torch(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    target = tmp_path / "speed.json"
    options = ["--backends", "onnxruntime", "--checkpoint", str(tiny.checkpoint), *QUICK]
    assert main(["speed", str(tiny.bundle), *options, "--json", str(target)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:26].strip() for line in lines[:5]] == [
        "16x12",
        "PyTorch eager FP32",
        "PyTorch channels_last FP32",
        "PyTorch channels_last BF16",
        "sr-deploy ONNX Runtime FP3",
    ]
    record = records.read(target)
    assert isinstance(record, SpeedRecord)
    assert record.options.rounds == 1
    assert {each.size for each in record.timings} == {(16, 12)}


def test_report_fills_and_checks(tmp_path: Path, capsys: Output) -> None:
    results = tmp_path / report.RESULTS
    results.mkdir(parents=True)
    records.write(results / "quality.json", QUALITY)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:quality -->\n<!-- /table -->\n")
    command = ["report", "--root", str(tmp_path)]
    assert main([*command, "--check"]) == 1
    assert capsys.readouterr().out == f"{readme}: differs from the records\n"
    assert main(command) == 0
    assert capsys.readouterr().out == f"{readme}: updated\n"
    assert main([*command, "--check"]) == 0


@pytest.mark.parametrize("command", [[], ["quality"], ["speed"], ["report"]])
def test_help_teaches(command: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command, "--help"])
    assert len(capsys.readouterr().out.splitlines()) > 10


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "nowhere.pth"], "nowhere.pth: no such file"),
        (["--checkpoint", __file__], "not the file that .* was made from"),
        (["--precisions", "int8"], "int8 cannot be had"),
        (["--json", "nowhere/speed.json"], "nowhere: no such folder to write speed.json into"),
    ],
)
def test_an_error_is_one_line(options: list[str], message: str, tiny: Tiny, capsys: Output) -> None:
    assert main(["speed", str(tiny.bundle), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


@pytest.mark.parametrize(
    "options",
    [["--sizes", "16"], ["--sizes", "0x16"], ["--rounds", "0"], ["--turn", "-1"], ["--rest", "x"]],
)
def test_wrong_usage_is_2(options: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["speed", "x.srd", *options])
    assert f"{options[1]!r} is not" in capsys.readouterr().err


def test_debug_may_come_after_the_command(capsys: Output) -> None:
    assert main(["quality", "nowhere.srd", "--ground-truth", "x", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
