"""From a generator's checkpoint to a bundle and to images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

from sr_deploy import Engine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Latent
from sr_deploy.cli import generate
from sr_export.cli import main
from tests.sr_export.generators import Dcgan, Discriminator, Repeating, trained

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return trained(Dcgan(), 10)


@pytest.fixture(scope="module")
def bundle(module: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle that `sr-export` writes without options for a GAN's checkpoint."""
    path = tmp_path_factory.mktemp("gan") / "latest.pt"
    content = {"netG": module.state_dict(), "netD": Discriminator().state_dict(), "epoch": 24}
    torch.save(content, path)
    assert main([str(path)]) == 0
    return path.with_suffix(".srd")


def test_the_manifest_describes_a_generator(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for each in (opened.manifest.onnx, *opened.manifest.variants):
        opened.verified(each)
    written = opened.manifest
    assert written.model.latent == Latent(size=10, height=32, width=32)
    assert (written.model.architecture, written.model.channels) == ("DCGAN", 3)
    assert written.source.taken.startswith("netG (of netG, netD, epoch); WARNING")
    assert [each.shape for each in written.checks] == [(n, 3, 32, 32) for n in (1, 3, 8)]
    assert max(each.max_error for each in written.checks) < 1e-5
    offered = {each.precision for each in written.variants}
    assert {"fp32", "fp16"} <= offered
    assert offered | written.refused.keys() == {"fp32", "fp16", "bf16", "int8"}
    assert {each.pixel_format for each in written.variants} == {"rgb24"}
    assert not (bundle / "report.html").exists()
    # One kernel makes 4x4 pixels from one, three double the size; two operations per multiply-add.
    operations = 2 * 16 * (10 * 16 + 16 * 16 * 8 + 64 * 8 * 4 + 256 * 4 * 3)
    found = written.model.gflop_per_megapixel * 1e3 * 32 * 32
    assert found == pytest.approx(operations, rel=1e-3)  # rounded in the manifest


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_images_equal_the_modules(bundle: Path, module: torch.nn.Module, backend: str) -> None:
    noise = np.random.default_rng(5).standard_normal((11, 10), np.float32)
    with torch.inference_mode():
        images = module(torch.from_numpy(noise)[:, :, None, None])
    expected = (images.permute(0, 2, 3, 1).numpy() + 1) * 127.5
    assert expected.std() > 20
    with Engine(bundle, backend=backend, precision="fp32") as engine:
        assert np.abs(engine.generate(noise) - expected).max() <= 0.51
    with Engine(bundle, backend=backend, precision="fp16") as engine:
        off = np.square(engine.generate(noise) - expected).mean()
    assert 10 * np.log10(255**2 / off) > 50  # 58 dB against FP32, and the rounding to levels


def test_the_float_file_is_for_other_tools(bundle: Path, module: torch.nn.Module) -> None:
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    noise = np.random.default_rng(6).standard_normal((3, 10), np.float32)
    (found,) = session.run(None, {session.get_inputs()[0].name: noise})
    with torch.inference_mode():
        images = module(torch.from_numpy(noise)[:, :, None, None])
    assert np.abs(found - (images.numpy() + 1) / 2).max() < 1e-5


def test_the_command_writes_images(bundle: Path, tmp_path: Path) -> None:
    target = tmp_path / "sheet.png"
    assert generate.main([str(bundle), str(target), "--count", "4", "--seed", "1"]) == 0
    assert target.is_file()


def test_the_summary_of_a_generator(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(trained(Repeating(), 12).state_dict(), tmp_path / "mine.pt")
    code = Path(__file__).with_name("generators.py")
    arguments = [str(tmp_path / "mine.pt"), "--arch-file", f"{code}:Repeating"]
    assert main(arguments) == 1
    assert "--latent N" in capsys.readouterr().err
    assert main([*arguments, "--latent", "12", "--precision", "fp32", "int8"]) == 0
    shown = capsys.readouterr().out
    assert "Repeating, 12 random numbers to 16x16, RGB" in shown
    assert "random numbers in, -1 to 1 out" in shown
    assert "3 batches of random numbers" in shown
    assert "GFLOP per image" in shown
    assert "halo" not in shown
    assert "photo" not in shown
    int8 = Bundle.open(tmp_path / "mine.srd").manifest.int8
    assert int8 is not None
    assert int8.calibration == "96 draws of random numbers, seed 0"


@pytest.mark.parametrize(
    ("option", "fact"),
    [
        (["--yuv"], "--yuv"),
        (["--input-range", "-1", "1"], "--input-range"),
    ],
)
def test_options_for_images_are_refused(
    tmp_path: Path, option: list[str], fact: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(Dcgan().state_dict(), tmp_path / "netG.pth")
    assert main([str(tmp_path / "netG.pth"), *option]) == 1
    assert fact in capsys.readouterr().err
    assert not (tmp_path / "netG.srd").exists()
