"""A whole training from the command line: killed, resumed, exported."""

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

SRGAN = "--recipe srgan --scale 4 --patch 8 --batch 2 --features 16 --blocks 1 --threads 1 "
SRGAN += "--discriminator patch --precision float32"


def train(folder: Path, output: Path, options: str, code: int = 0) -> None:
    assert cli.main([str(folder), "--output", str(output), *options.split()]) == code


def checkpoint(output: Path) -> dict[str, Any]:
    return torch.load(output / "checkpoint.pt", weights_only=True)


def start(folder: Path, output: Path, options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "examples.training", str(folder), "--output", str(output)]
    return subprocess.Popen(
        [*command, *options.split()], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, f"no {path}"
        time.sleep(0.02)


def test_killed_and_resumed_it_ends_with_the_same_weights(folder: Path, tmp_path: Path) -> None:
    options = f"{SRGAN} --steps 40 --contest-steps 20 --exam-steps 10"
    train(folder, tmp_path / "whole", options)
    running = start(folder, tmp_path / "cut", options)
    wait_for(tmp_path / "cut" / "checkpoint.pt")
    running.kill()
    running.communicate()
    assert checkpoint(tmp_path / "cut")["step"] < 60
    train(folder, tmp_path / "cut", options)
    whole, cut = checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "cut")
    assert cut["step"] == 60
    for part in ("generator", "generator_ema", "discriminator"):
        for name, weight in whole[part].items():
            assert torch.equal(weight, cut[part][name]), (part, name)
    scores = [[row["psnr"] for row in each["history"]] for each in (whole, cut)]
    assert scores[0] == scores[1]
    assert len(scores[0]) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_step_and_saves(folder: Path, tmp_path: Path, number: int) -> None:
    output = tmp_path / "run"
    running = start(folder, output, f"{SRGAN} --steps 100000 --exam-steps 5")
    wait_for(output / "checkpoint.pt")
    running.send_signal(number)
    said, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    step = checkpoint(output)["step"]
    assert f"stopped after step {step}; the same command goes on from there" in said


def test_both_files_hold_the_averaged_weights(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "mine", f"{SRGAN} --steps 2 --contest-steps 1")
    files = [read(tmp_path / "mine" / name) for name in ("checkpoint.pt", "mine.pth")]
    averaged = checkpoint(tmp_path / "mine")["generator_ema"]
    for found in files:
        assert isinstance(found, Weights)
        assert torch.equal(found.tensors["conv1.0.weight"], averaged["conv1.0.weight"])


def test_the_log_has_a_row_for_each_exam(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run", f"{SRGAN} --steps 4 --contest-steps 2 --exam-steps 2")
    with (tmp_path / "run" / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [bool(row["discriminator"]) for row in rows] == [False, False, True]
    assert all(10 < float(row["psnr"]) < 60 for row in rows)
    assert sorted(path.stem for path in (tmp_path / "run" / "samples").iterdir()) == [
        "0000002",
        "0000004",
        "0000006",
    ]


@pytest.mark.parametrize(
    "options",
    [
        "--scale 1 --channels 1",
        "--scale 1 --degradation jpeg",
        "--scale 3 --loss l1",
        "--degradation real",
        "--recipe espcn --blocks",
    ],
)
def test_other_tasks(folder: Path, tmp_path: Path, options: str) -> None:
    size = "--features 8" if "espcn" in options else "--features 8 --blocks 1"
    options = options.removesuffix(" --blocks")
    train(folder, tmp_path / "run", f"{options} {size} --steps 2 --patch 8 --batch 2")
    assert checkpoint(tmp_path / "run")["step"] == 2


def test_a_finished_training_is_left_as_it_is(folder: Path, tmp_path: Path) -> None:
    options = f"{SRGAN} --steps 2 --contest-steps 1"
    train(folder, tmp_path / "run", options)
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    train(folder, tmp_path / "run", options)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


def test_other_options_do_not_go_on_with_it(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"{SRGAN} --steps 2 --contest-steps 1"
    train(folder, tmp_path / "run", options)
    train(folder, tmp_path / "run", f"{options} --seed 3 --rate 0.1", code=1)
    error = capsys.readouterr().err
    assert "rate was 0.0005 and is 0.1; seed was 0 and is 3" in error
    assert "choose another --output" in error


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_checkpoint_that_is_none(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "run" / "checkpoint.pt"
    path.parent.mkdir()
    if content is None:
        torch.save({"params": {}}, path)
    else:
        path.write_bytes(content)
    before = path.read_bytes()
    train(folder, tmp_path / "run", "--steps 1", code=1)
    assert str(path) in capsys.readouterr().err
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--scale 3 --recipe srgan", "enlarges by 1, 2, 4 or 8"),
        ("--scale 2 --degradation noise", "for scale 1"),
        ("--vgg vgg.pth", "--recipe srgan or esrgan"),
        ("--patch 500", "too small"),
        ("--device nonsense", "--device nonsense: "),
        ("--start nowhere.pth", "nowhere.pth"),
    ],
)
def test_what_cannot_be_trained(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: str,
    words: str,
) -> None:
    train(folder, tmp_path / "run", options, code=1)
    assert words in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_other_photos_are_another_training(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = f"{SRGAN} --steps 2 --contest-steps 1"
    train(folder, tmp_path / "run", options)
    (folder / "0.png").unlink()
    train(folder, tmp_path / "run", options, code=1)
    assert "photos was" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option", ["--seed -1", "--rate -1", "--rate x", "--batch 0", "--batch x", "--workers -3"]
)
def test_numbers_that_are_none(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    with pytest.raises(SystemExit, match="2"):
        train(folder, tmp_path / "run", option)
    assert "is no " in capsys.readouterr().err
