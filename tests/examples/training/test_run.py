"""Whole trainings from the command line: killed, resumed, and checked for errors."""

from __future__ import annotations

import csv
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from examples.training import cli
from sr_export.checkpoint.load import Weights, read
from tests.conftest import ROOT

SRGAN = "--recipe srgan --scale 4 --patch 8 --batch 2 --features 8 --blocks 1 --threads 1 "
SRGAN += "--discriminator patch --precision float32"
SHORT = f"{SRGAN} --steps 2 --adversarial-steps 1"


def _train(folder: Path, output: Path, options: str, code: int = 0) -> None:
    assert cli.main([str(folder), "--output", str(output), *options.split()]) == code


def _checkpoint(output: Path) -> dict[str, Any]:
    return torch.load(output / "checkpoint.pt", weights_only=True)


def _start(folder: Path, output: Path, options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.training", str(folder), "--output", str(output)]
    return subprocess.Popen(
        [*command, *options.split()], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 300
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Photos, and the output of a short training on them; tests must not change either."""
    from tests.examples.training.conftest import drawing, save

    base = tmp_path_factory.mktemp("finished")
    for number in range(4):
        save(base / "photos" / f"{number}.png", drawing(number))
    _train(base / "photos", base / "run", f"{SHORT} --validation-steps 1")
    return base / "photos", base / "run"


@pytest.mark.slow
def test_a_killed_training_resumes_and_ends_with_the_same_weights(
    folder: Path, tmp_path: Path
) -> None:
    options = f"{SRGAN} --steps 20 --adversarial-steps 10 --validation-steps 5"
    _train(folder, tmp_path / "whole", options)
    running = _start(folder, tmp_path / "killed", options)
    _wait_for(tmp_path / "killed" / "checkpoint.pt")
    running.kill()
    running.communicate()
    assert _checkpoint(tmp_path / "killed")["step"] < 30
    _train(folder, tmp_path / "killed", options)
    whole, killed = _checkpoint(tmp_path / "whole"), _checkpoint(tmp_path / "killed")
    assert killed["step"] == 30
    for part in ("generator", "generator_ema", "discriminator"):
        for name, weight in whole[part].items():
            assert torch.equal(weight, killed[part][name]), (part, name)
    scores = [[row["psnr"] for row in each["history"]] for each in (whole, killed)]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 6


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_step_and_saves(folder: Path, tmp_path: Path, number: int) -> None:
    output = tmp_path / "run"
    running = _start(folder, output, f"{SRGAN} --steps 100000 --validation-steps 5")
    _wait_for(output / "checkpoint.pt")
    running.send_signal(number)
    text, _ = running.communicate(timeout=300)
    assert running.returncode == 130
    step = _checkpoint(output)["step"]
    assert str(step) in text.splitlines()[-1]


def test_both_files_contain_the_averaged_weights(finished: tuple[Path, Path]) -> None:
    _, output = finished
    average = _checkpoint(output)["generator_ema"]
    for name in ("checkpoint.pt", "run.pth"):
        content = read(output / name)
        assert isinstance(content, Weights)
        assert torch.equal(content.tensors["conv1.0.weight"], average["conv1.0.weight"])


def test_the_log_has_a_row_for_each_validation(finished: tuple[Path, Path]) -> None:
    _, output = finished
    with (output / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert [bool(row["discriminator"]) for row in rows] == [False, False, True]
    assert all(10 < float(row["psnr"]) < 60 for row in rows)
    samples = sorted(path.stem for path in (output / "samples").iterdir())
    assert samples == ["0000001", "0000002", "0000003"]


@pytest.mark.parametrize(
    "options",
    [
        "--scale 1 --channels 1 --blocks 1",
        "--scale 1 --degradation jpeg --blocks 1",
        "--scale 3 --loss l1 --blocks 1",
        "--degradation real --blocks 1",
        "--recipe espcn",
    ],
)
def test_other_tasks(folder: Path, tmp_path: Path, options: str) -> None:
    small = "--features 8 --steps 2 --patch 8 --batch 2 --threads 1"
    _train(folder, tmp_path / "run", f"{options} {small}")
    assert _checkpoint(tmp_path / "run")["step"] == 2


def test_a_finished_training_stays_unchanged(finished: tuple[Path, Path]) -> None:
    photos, output = finished
    before = (output / "checkpoint.pt").read_bytes()
    _train(photos, output, SHORT)
    assert (output / "checkpoint.pt").read_bytes() == before


def test_other_options_do_not_resume(
    finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    photos, output = finished
    _train(photos, output, f"{SHORT} --seed 3 --rate 0.1", code=1)
    error = capsys.readouterr().err
    for fact in (str(output), "rate", "0.0005", "0.1", "seed", "3", "--output"):
        assert fact in error
    assert "batch" not in error


def test_other_photos_do_not_resume(
    folder: Path, finished: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, output = finished
    (folder / "0.png").unlink()
    _train(folder, output, SHORT, code=1)
    assert "photos" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_an_invalid_checkpoint_is_an_error_and_stays(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    if content is None:
        torch.save({"params": {}}, path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    _train(folder, tmp_path / "run", "--steps 1 --threads 1", code=1)
    assert str(path) in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "facts"),
    [
        ("--scale 3 --recipe srgan", ["1, 2, 4", "8", "3"]),
        ("--scale 2 --degradation noise", ["noise", "scale 1"]),
        ("--vgg vgg.pth", ["--vgg", "srgan", "esrgan"]),
        ("--int8 x.pth --adversarial hinge", ["--int8", "--adversarial"]),
        ("--patch 500", ["--patch"]),
        ("--device nonsense", ["--device nonsense"]),
        ("--start nowhere.pth", ["nowhere.pth"]),
    ],
)
def test_impossible_trainings_are_errors(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: str,
    facts: list[str],
) -> None:
    _train(folder, tmp_path / "run", f"{options} --threads 1", code=1)
    error = capsys.readouterr().err
    assert all(fact in error for fact in facts)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "option", ["--seed -1", "--rate -1", "--rate x", "--batch 0", "--batch x", "--workers -3"]
)
def test_invalid_numbers_are_usage_errors(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        _train(folder, tmp_path / "run", option)
    name, value = option.split()
    error = capsys.readouterr().err
    assert name in error
    assert repr(value) in error


def test_without_arguments_the_usage_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        cli.main([])
    error = capsys.readouterr().err
    assert error.startswith("usage: python -m examples.training FOLDER")
    assert "--output" in error
