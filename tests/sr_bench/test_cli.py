"""The commands of sr-bench."""

from __future__ import annotations

import dataclasses
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sr_bench import configurations, documents, record_files, speed
from sr_bench.cli import main, with_command
from sr_bench.records import BenchRun, Configuration, QualityRecord, SpeedRecord, Timing
from sr_deploy import backends
from sr_deploy.bundle import tuning
from sr_deploy.bundle.manifest import Latent
from sr_deploy.files import sha256_of
from tests.sr_bench.conftest import Tiny
from tests.sr_bench.examples import QUALITY, SERIES, SPEED
from tests.sr_deploy import networks

Output = pytest.CaptureFixture[str]
QUICK = ["--warm-up", "0", "--rounds", "1", "--seconds", "0", "--pause", "0", "--sizes", "16x12"]


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
    assert "antialiased bicubic" in " ".join(out.split())
    record = record_files.read(target)
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
    assert "vs FP32" in out


def test_quality_as_a_page_shows_pictures_beside_fp32(
    tiny: Tiny, photos: Path, tmp_path: Path
) -> None:
    target = tmp_path / "quality.html"
    options = ["--ground-truth", str(photos), "--backend", "onnxruntime", "--html", str(target)]
    assert main(["quality", str(tiny.bundle), *options]) == 0
    page = target.read_text()
    assert page.count('class="layer"') == 3  # bicubic, FP32, the original
    assert "noise" in page


@pytest.mark.slow
def test_speed_compares_with_torch(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    """A bundle alone: its checkpoint is beside it, and speed is the default command."""
    target, page = tmp_path / "speed.json", tmp_path / "speed.html"
    options = ["--backends", "torch", "onnxruntime", "--precisions", "bf16", "fp32", *QUICK]
    options += ["--json", str(target), "--html", str(page), "--no-ceilings"]
    compiled = [Configuration("torch", "compiled", each) for each in ("fp32", "bf16")]
    with pytest.MonkeyPatch.context() as patch:  # compiling takes half a minute
        every = configurations.torch_configurations("cpu")
        kept = [each for each in every if each not in compiled]
        patch.setattr(configurations, "torch_configurations", lambda device: kept)
        assert main([str(tiny.bundle), *options]) == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert "4 configurations" in err  # with the estimated time
    assert lines[5].split()[:2] == ["median", "p90"]
    assert [line[:27].strip() for line in lines[6:10]] == [
        "PyTorch eager FP32",
        "PyTorch channels_last FP32",
        "PyTorch channels_last BF16",
        "sr-deploy ONNX Runtime FP32",
    ]
    record = record_files.read_speed(target)
    (series,) = record.series
    assert series.options.rounds == 1
    assert series.options.quick
    assert [bout.size for bout in series.bouts] == [(16, 12)]
    assert series.subject.files["fp32.onnx"] == sha256_of(tiny.bundle / "fp32.onnx")
    assert page.read_text().startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_a_checkpoint_is_exported_first(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    target = tmp_path / "speed.json"
    options = ["--backends", "onnxruntime", "--precisions", "fp32", "--json", str(target), *QUICK]
    assert main([str(tiny.checkpoint), *options, "--no-ceilings"]) == 0
    (series,) = record_files.read_speed(target).series
    assert series.subject.sha256 == sha256_of(tiny.checkpoint)


def test_records_are_compared_joined_and_shown(tmp_path: Path, capsys: Output) -> None:
    one, other, both = (tmp_path / f"{name}.json" for name in ("one", "other", "both"))
    record_files.write(one, SPEED)
    slower = dataclasses.replace(SERIES, bouts=tuple(map(_slower, SERIES.bouts)))
    record_files.write(other, SpeedRecord(3, "speed", (slower,)))
    assert main(["--compare", str(one), str(other), "--fail-over", "5%"]) == 1
    assert "REGRESSION" in capsys.readouterr().out
    assert main(["--compare", str(one), str(other), "--fail-over", "20%"]) == 0
    assert main(["compare", str(one), str(one), "--fail-over", "0%"]) == 0
    assert "REGRESSION" not in capsys.readouterr().out
    assert main(["merge", str(one), str(other), "--json", str(both)]) == 0
    assert len(record_files.read_speed(both).series) == 2
    page = tmp_path / "both.html"
    assert main(["show", str(both), "--html", str(page)]) == 0
    assert page.read_text().count("<h2>Speedup</h2>") == 2


def _slower(bout: BenchRun) -> BenchRun:
    """The same run with 10 % longer times, except for the baseline."""
    rows = [dataclasses.replace(each, timings=(_longer(each.upscale),)) for each in bout.rows[1:]]
    return dataclasses.replace(bout, rows=(bout.rows[0], *rows))


def _longer(timing: Timing) -> Timing:
    rounds = tuple(tuple(1.1 * each for each in samples) for samples in timing.rounds)
    return dataclasses.replace(timing, rounds=rounds)


def test_tuning_is_saved_in_the_bundle(tiny: Tiny, tmp_path: Path, capsys: Output) -> None:
    bundle = tmp_path / "tiny.srd"
    shutil.copytree(tiny.bundle, bundle)
    options = ["--size", "40x30", "--rounds", "1", "--seconds", "0", "--backend", "onnxruntime"]
    assert main(["--tune", str(bundle), *options, "--dry-run"]) == 0
    assert not (bundle / "tuning.json").exists()
    assert main(["tune", str(bundle), *options]) == 0
    assert f"written to {bundle / 'tuning.json'}" in capsys.readouterr().out
    (entry,) = tuning.read(bundle).entries.values()
    assert entry.size == (40, 30)


@pytest.mark.parametrize(
    ("given", "understood"),
    [
        (["x.srd", "--rounds", "3"], ["speed", "x.srd", "--rounds", "3"]),
        (["--sizes", "8x8", "--rounds", "3"], ["speed", "--sizes", "8x8", "--rounds", "3"]),
        (["--debug", "x.srd"], ["--debug", "speed", "x.srd"]),
        (["quality", "x.srd"], ["quality", "x.srd"]),
        (["--debug", "quality", "x.srd"], ["--debug", "quality", "x.srd"]),
        (["--compare", "a", "b"], ["compare", "a", "b"]),
        (["x.srd", "--for", "latency", "--tune"], ["tune", "x.srd", "--for", "latency"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_the_command_may_be_omitted(given: list[str], understood: list[str]) -> None:
    assert with_command(given) == understood


def test_report_fills_and_checks(tmp_path: Path, capsys: Output) -> None:
    results = tmp_path / documents.RESULTS
    results.mkdir(parents=True)
    record_files.write(results / "quality.json", QUALITY)
    readme = tmp_path / "README.md"
    readme.write_text("<!-- table:quality -->\n<!-- /table -->\n")
    command = ["report", "--root", str(tmp_path)]
    assert main([*command, "--check"]) == 1
    assert capsys.readouterr().out == f"{readme}: differs from the records\n"
    assert main(command) == 0
    assert capsys.readouterr().out == f"{readme}: updated\n"
    assert main([*command, "--check"]) == 0


@pytest.mark.parametrize(
    "command", ["", "quality", "speed", "tune", "compare", "merge", "show", "report"]
)
def test_help_is_complete(command: str, capsys: Output) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([*command.split(), "--help"])
    assert len(capsys.readouterr().out.splitlines()) > 8


@pytest.mark.parametrize("command", ["speed", "quality", "tune", "compare", "merge", "show"])
def test_the_usage_line_starts_with_the_command(command: str, capsys: Output) -> None:
    with pytest.raises(SystemExit, match="0"):
        main([command, "--help"])
    assert capsys.readouterr().out.startswith(f"usage: sr-bench {command} ")


@pytest.mark.parametrize(
    ("options", "rounds", "ceilings"),
    [
        ([], 5, False),
        (["--full"], 10, True),
        (["--full", "--rounds", "7", "--no-ceilings"], 7, False),
    ],
)
def test_a_run_is_quick_unless_it_is_full(
    options: list[str],
    rounds: int,
    ceilings: bool,
    tiny: Tiny,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    given: list[Any] = []

    def measured(targets: Any, request: Any, options: Any) -> SpeedRecord:
        given.extend([request, options])
        return SPEED

    monkeypatch.setattr(speed, "measure_models", measured)
    assert main([str(tiny.bundle), *options]) == 0
    request, used = given
    assert (used.rounds, used.quick) == (rounds, "--full" not in options)
    assert request.with_ceilings == ceilings
    assert request.sizes is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "nowhere.pth"], "nowhere.pth"),
        (["--checkpoint", __file__], "test_cli.py"),
        (["--precisions", "int8"], "int8"),
        (["--json", "nowhere/speed.json"], "nowhere.*speed.json"),
        (["--html", "nowhere/speed.html"], "nowhere.*speed.html"),
    ],
)
def test_an_error_is_one_line(options: list[str], message: str, tiny: Tiny, capsys: Output) -> None:
    assert main(["speed", str(tiny.bundle), *options]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert re.search(message, line)


@pytest.mark.parametrize("command", ["speed", "quality", "tune"])
def test_generators_are_not_measured(
    command: str, photos: Path, tmp_path: Path, capsys: Output
) -> None:
    changes = {"latent": Latent(4, 6, 8), "scale": 1}
    bundle = networks.bundle(tmp_path / "g.srd", networks.generator, ("rgb24",), **changes)
    options = ["--ground-truth", str(photos)] if command == "quality" else []
    assert main([command, str(bundle), *options]) == 1
    assert "sr-generate" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    [
        ["--batch", "0"],
        ["--python", "torch"],
        ["--python", "cobol=x"],
        ["--sizes", "16"],
        ["--sizes", "0x16"],
        ["--rounds", "0"],
        ["--seconds", "-1"],
        ["--pause", "x"],
    ],
)
def test_wrong_usage_exits_with_2(options: list[str], capsys: Output) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["speed", "x.srd", *options])
    assert repr(options[1]) in capsys.readouterr().err


def test_an_invalid_percentage_is_refused(capsys: Output) -> None:
    for text in ("5 pigs", "-5%"):
        with pytest.raises(SystemExit, match="2"):
            main(["--compare", "a", "b", f"--fail-over={text}"])
        assert repr(text) in capsys.readouterr().err


def test_debug_may_come_after_the_command(capsys: Output) -> None:
    assert main(["quality", "nowhere.srd", "--ground-truth", "x", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
