"""`sr-export` as a command: the bundle that it writes, and its errors."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from sr_deploy.bundle.bundle import Bundle
from sr_export import photos
from sr_export.cli import main
from sr_export.graph.onnx_runner import OnnxRunner
from tests.sr_export.networks import Attended, Convolutions


@pytest.fixture(scope="module")
def gan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GAN's training checkpoint, as a training loop saves it."""
    from sr_export.models.registry import registry  # noqa: F401 - spandrel is imported through it

    from spandrel.architectures.Compact import Compact  # isort: skip

    torch.manual_seed(0)
    generator = Compact(num_in_ch=3, num_out_ch=3, num_feat=8, num_conv=2, upscale=2)
    discriminator = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 1))
    path = tmp_path_factory.mktemp("gan") / "latest.pth"
    content = {
        "epoch": 7,
        "generator": generator.state_dict(),
        "discriminator": discriminator.state_dict(),
        "optimizer": torch.optim.Adam(generator.parameters()).state_dict(),
    }
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def bundle(gan: Path) -> Path:
    """The bundle that `sr-export` writes without options."""
    assert main([str(gan)]) == 0
    return gan.with_suffix(".srd")


def test_bundle_is_whole(bundle: Path) -> None:
    # Plans are there if TensorRT for RTX is installed.
    names = sorted(path.name for path in bundle.iterdir() if path.name != "engines")
    graphs = ["fp16.onnx", "fp32-rgb48.onnx", "fp32.onnx", "int8.onnx", "model.onnx"]
    assert names == sorted([*graphs, "manifest.json", "report.html"])
    opened = Bundle.open(bundle)
    for each in (opened.manifest.onnx, *opened.manifest.variants):
        opened.verified(each)
    model = opened.manifest.model
    assert (model.architecture, model.scale, model.channels, model.halo) == ("Compact", 2, 3, 4)
    assert opened.manifest.source.taken.startswith("generator")
    assert max(check.max_error for check in opened.manifest.checks) < 1e-5


def test_bundle_is_the_network(bundle: Path, gan: Path) -> None:
    from sr_export.models.recognize import recognize

    module = recognize([torch.load(gan, weights_only=True)["generator"]]).module
    frames = photos.batch(2, 31, 45, 3)
    with torch.inference_mode():
        expected = module(torch.from_numpy(photos.as_float(frames))).numpy()
    levels = np.rint(expected.transpose(0, 2, 3, 1).clip(0, 1) * 255)
    found = OnnxRunner(bundle / "fp32.onnx")(frames)
    assert np.abs(found - levels).max() <= 1  # a value at a half may round either way
    assert (found == levels).mean() > 0.999


@pytest.mark.slow
def test_overwrite_replaces_a_bundle_and_json_prints_the_manifest(
    bundle: Path, gan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (bundle / "model.onnx").stat().st_mtime_ns
    assert main([str(gan), "--json", "--overwrite"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["model"]["scale"] == 2
    assert captured.err == ""  # no terminal, no progress
    assert (bundle / "model.onnx").stat().st_mtime_ns > before
    assert sorted(path.name for path in gan.parent.iterdir()) == ["latest.pth", "latest.srd"]


@pytest.mark.slow
def test_own_network(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = Path(__file__).resolve().parents[2]
    code = tmp_path / "mine.py"
    code.write_text(
        f"import sys\nsys.path[:0] = [{str(root)!r}, {str(root / 'export')!r}]\n"
        "from tests.sr_export.networks import Attended as build\n"
    )
    torch.save(Attended().state_dict(), tmp_path / "mine.pt")
    assert main([str(tmp_path / "mine.pt"), "--arch-file", f"{code}:build", "--color", "bgr"]) == 0
    output = capsys.readouterr().out
    assert "build x2, RGB" in output
    assert "BGR" in output
    assert "global" in output


class _Runs:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return (Path.touch, (self.mark,))


def _classifier(path: Path) -> None:
    classifier = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 10))
    torch.save(classifier.state_dict(), path)


def _truncated(path: Path) -> None:
    torch.save(Convolutions().state_dict(), path)
    path.write_bytes(path.read_bytes()[:500])


def _nan(path: Path) -> None:
    weights = Convolutions().state_dict()
    weights["body.0.bias"][3] = float("nan")
    torch.save(weights, path)


def _malicious(path: Path) -> None:
    torch.save({"params": _Runs(path.parent / "mark")}, path)


def _malicious_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps({"params": _Runs(path.parent / "mark")}))


_BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "folder": (lambda path: path.mkdir(), "folder"),
    "truncated": (_truncated, "damaged"),
    "malicious": (_malicious, r"pathlib\.Path\.touch|getattr"),
    "empty": (lambda path: path.touch(), "empty"),
    "text": (lambda path: path.write_text("epoch 1, loss 0.3\n"), "text"),
    "pickle": (_malicious_pickle, "pickle"),
    "classifier": (_classifier, "classifier"),
    "nan": (_nan, r"'body\.0\.bias'.*NaN"),
}
_FAST = ("folder", "truncated", "malicious")


@pytest.mark.parametrize(
    "name",
    [pytest.param(each, marks=[] if each in _FAST else [pytest.mark.slow]) for each in _BAD],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make, fact = _BAD[name]
    path = tmp_path / "bad.pth"
    make(path)
    assert main([str(path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert re.search(fact, captured.err), captured.err
    assert [each.name for each in tmp_path.iterdir()] == ["bad.pth"]


def test_a_missing_file(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["no-such.pth"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("sr-export: no-such.pth: ")
    assert error.count("\n") == 1


def test_an_existing_bundle_needs_overwrite(
    gan: Path, bundle: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in bundle.iterdir())
    assert main([str(gan)]) == 1
    error = capsys.readouterr().err
    assert str(bundle) in error
    assert "--overwrite" in error
    assert sorted((path.name, path.stat().st_mtime_ns) for path in bundle.iterdir()) == before


@pytest.mark.parametrize(
    "manifest",
    [
        None,
        "",
        "{}",
        '{"name": "my web app", "start_url": "/", "icons": []}',
        '{"schema": 2, "name": "x"}',
        "[" * 100_000,
        '{"schema": ' + "9" * 5000 + "}",
    ],
    ids=["none", "empty", "object", "web app", "fields missing", "nested", "huge number"],
)
@pytest.mark.parametrize("option", [[], ["--overwrite"]])
def test_other_folders_are_never_replaced(
    gan: Path, tmp_path: Path, manifest: str | None, option: list[str]
) -> None:
    target = tmp_path / "folder"
    target.mkdir()
    (target / "precious").write_text("keep")
    if manifest is not None:
        (target / "manifest.json").write_text(manifest)
    assert main([str(gan), "-o", str(target), *option]) == 1
    assert (target / "precious").read_text() == "keep"
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_file_is_never_replaced(gan: Path, tmp_path: Path) -> None:
    target = tmp_path / "notes.txt"
    target.write_text("keep")
    assert main([str(gan), "-o", str(target), "--overwrite"]) == 1
    assert target.read_text() == "keep"


def test_a_failed_export_keeps_the_old_bundle(bundle: Path, tmp_path: Path) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in bundle.iterdir())
    _classifier(tmp_path / "other.pth")
    assert main([str(tmp_path / "other.pth"), "-o", str(bundle), "--overwrite"]) == 1
    assert sorted((path.name, path.stat().st_mtime_ns) for path in bundle.iterdir()) == before


@pytest.mark.slow
def test_photos_are_within_a_level_of_pytorch(shipped_checkpoint: Path, tmp_path: Path) -> None:
    from sr_export.models.recognize import recognize

    bundle = tmp_path / "shipped.srd"
    assert main([str(shipped_checkpoint), "-o", str(bundle), "--precision", "fp32"]) == 0
    run = OnnxRunner(bundle / "fp32.onnx")
    weights = torch.load(shipped_checkpoint, weights_only=True)["params_ema"]
    module = recognize([weights]).module
    for frame in photos.batch(4, 90, 120, 3)[:, None]:
        with torch.inference_mode():
            expected = module(torch.from_numpy(photos.as_float(frame))).numpy()
        levels = np.rint(expected.transpose(0, 2, 3, 1).clip(0, 1) * 255)
        assert np.abs(run(frame).astype(int) - levels).max() <= 1
