"""The promises on precisions, kept by the command and the checkpoint that people get."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Variant
from sr_export import photos
from sr_export.cli import main
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.metrics import y_psnr
from tests import imresize
from tests.conftest import ROOT

ORIGINAL = ROOT / "examples" / "original" / "cat.png"


@pytest.fixture(scope="module")
def shipped(shipped_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The shipped checkpoint, exported with no option."""
    target = tmp_path_factory.mktemp("shipped") / "shipped.srd"
    assert main([str(shipped_checkpoint), "-o", str(target)]) == 0
    return Bundle.open(target)


def _variant(bundle: Bundle, precision: str) -> Variant:
    (found,) = (
        each
        for each in bundle.manifest.variants
        if (each.precision, each.pixel_format) == (precision, "rgb24")
    )
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "budget"), [("fp16", 58), ("bf16", 45), ("int8", 45)])
def test_the_shipped_checkpoint_holds_every_budget(
    precision: str, budget: float, shipped: Bundle
) -> None:
    quality = _variant(shipped, precision).quality
    assert quality is not None
    assert quality.psnr is not None
    assert quality.psnr >= budget


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_photos_lose_a_tenth_of_a_decibel_at_most(precision: str, shipped: Bundle) -> None:
    runs = [
        OnnxRunner(shipped.folder / _variant(shipped, each).file) for each in ("fp32", precision)
    ]
    losses = []
    for truth in [*photos.batch(4, 256, 320, 3), np.asarray(Image.open(ORIGINAL))]:
        frame = imresize.shrunk(truth, 2)[None]
        exact, found = (y_psnr(truth, run(frame)[0], 2) for run in runs)
        losses.append(exact - found)
    assert np.mean(losses) <= 0.1


@pytest.mark.slow
def test_summary_names_every_precision(
    shipped: Bundle, shipped_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [str(shipped_checkpoint), "-o", str(shipped.folder), "--min-psnr", "int8=99"]
    assert main([*arguments, "--precision", "int8", "--overwrite"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  int8 +rejected", printed, re.MULTILINE)
    assert "99 dB" in printed
    assert "% of the multiply-adds, rounding optimized" in printed  # every step is told
    assert "fp16" not in printed
    opened = Bundle.open(shipped.folder)
    assert opened.manifest.int8 is not None
    assert not (shipped.folder / "int8.onnx").exists()


def _no_folder(folder: Path) -> None:
    pass


def _file(folder: Path) -> None:
    folder.write_text("no images")


def _empty(folder: Path) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_text("no images")


def _corrupt(folder: Path) -> None:
    folder.mkdir()
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_no_folder, "no such folder"),
        (_file, "a file; calibration needs a folder"),
        (_empty, "no calibration images"),
        pytest.param(_corrupt, "none of the 1 images can be read|a.png", marks=pytest.mark.slow),
    ],
)
def test_calibration_folders_that_hold_nothing(
    make: object,
    message: str,
    shipped_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert callable(make)
    checkpoint = Path(shutil.copy(shipped_checkpoint, tmp_path / "net.pth"))
    folder = tmp_path / "photos"
    make(folder)
    before = sorted(tmp_path.iterdir())
    assert main([str(checkpoint), "--calibration", str(folder)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert any(each in captured.err for each in message.split("|")), captured.err
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("text", ["int8", "int8=", "int8=x", "fp64=40", "int8=-3", "fp32=50"])
def test_budgets_that_are_none(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["net.pth", "--min-psnr", text])
    assert caught.value.code == 2
    assert f"{text!r} is not PRECISION=DB" in capsys.readouterr().err
