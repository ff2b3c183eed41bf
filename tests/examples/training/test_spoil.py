"""Spoilt copies of photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from examples.training.crops import to_tensor
from examples.training.degradation import Bicubic
from examples.training.spoil import main
from sr_deploy import images
from tests.examples.training.conftest import drawing, save


def test_noise_of_a_strength(tmp_path: Path) -> None:
    gray = np.full((64, 80, 3), 128, np.uint8)
    save(tmp_path / "in" / "a.png", gray)
    save(tmp_path / "in" / "g.png", gray[..., 0].astype(np.uint16) * 257)
    options = ["--degradation", "noise", "--sigma", "20"]
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    for name, white in (("a.png", 255), ("g.png", 65535)):
        before = images.read(tmp_path / "in" / name).pixels
        found = images.read(tmp_path / "out" / name).pixels
        assert (found.shape, found.dtype) == (before.shape, before.dtype)
        # Of 5120 values, the deviation is known to 1 %; 5 standard errors.
        deviation = (found.astype(float) - before).std() / white * 255
        assert deviation == pytest.approx(20, rel=0.05)


def test_small_versions(tmp_path: Path) -> None:
    save(tmp_path / "in" / "a.png", drawing(0, 97, 121))
    options = ["--degradation", "bicubic", "--scale", "4"]
    assert main([str(tmp_path / "in"), str(tmp_path / "out"), *options]) == 0
    found = images.read(tmp_path / "out" / "a.png").pixels
    wanted = Bicubic()(to_tensor(drawing(0, 97, 121)[:96, :120]), 4, np.random.default_rng())
    assert np.array_equal(found, wanted.mul(255).round().byte().permute(1, 2, 0).numpy())


def test_nothing_is_overwritten(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [str(folder), str(folder), "--degradation", "noise"]
    before = (folder / "0.png").read_bytes()
    assert main(command) == 1
    assert "is there already" in capsys.readouterr().err
    assert (folder / "0.png").read_bytes() == before
    assert main([str(folder), str(tmp_path / "x"), "--degradation", "jpeg", "--sigma", "3"]) == 1
    assert "--sigma is for --degradation noise" in capsys.readouterr().err
