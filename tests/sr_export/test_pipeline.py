"""From a network to files: strategies are tried in turn; networks without a right graph fail."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sr_deploy.bundle.manifest import Manifest
from sr_deploy.errors import CheckpointError
from sr_export import photos, pipeline
from sr_export.checkpoint import load
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.models.network import Network
from sr_export.options import Options
from tests.sr_export.networks import Convolutions, Windowed, network


def _build(found: Network, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """Run the pipeline on a network in place of a checkpoint."""
    (folder / "x.pth").touch()
    monkeypatch.setattr(load, "read", lambda *_, **__: load.Scripted(found.module))
    monkeypatch.setattr(pipeline, "from_module", lambda *_: found)
    torch.manual_seed(0)
    options = Options(checkpoint=str(folder / "x.pth"), name="x", precisions=("fp32",), accept=True)
    return pipeline.build(options, folder, lambda _: None)


def test_gray_networks_get_gray_variants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = _build(network(Convolutions(1), channels=1), tmp_path, monkeypatch)
    assert [each.pixel_format for each in written.variants] == ["gray8", "gray16"]
    assert [each.file for each in written.variants] == ["fp32.onnx", "fp32-gray16.onnx"]


def test_windows_are_padded_to_their_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = _build(network(Windowed(), scale=1, grid=4), tmp_path, monkeypatch)
    model = written.model
    assert (model.multiple_of, model.fixed_batch, model.fixed_size) == (4, 1, None)
    assert model.halo == 3


@pytest.mark.slow
def test_an_unknown_grid_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a grid, the export fails or its graph is wrong; the next grid that works is 8."""
    written = _build(network(Windowed(), scale=1), tmp_path, monkeypatch)
    assert written.model.multiple_of in (1, 8)
    assert max(check.max_error for check in written.checks) < 1e-5


class FrozenBySize(nn.Module):
    """Computes something else for images above 40 pixels: no graph is right for all sizes."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = Convolutions()

    def forward(self, image: Tensor) -> Tensor:
        output = self.convolutions(image)
        return output * 0.5 if image.shape[2] > 40 else output


@pytest.mark.slow
def test_a_branch_on_the_size_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A graph frozen in one branch must not pass for all sizes."""
    written = _build(network(FrozenBySize()), tmp_path, monkeypatch)
    assert written.model.minimum > 40  # the runtime pads smaller images
    assert min(side for check in written.checks for side in check.shape[2:]) > 40


def test_a_network_of_nan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = Convolutions()
    nn.init.constant_(module.body[0].bias, 1e38)
    nn.init.constant_(module.body[2].weight, 1e38)
    with pytest.raises(CheckpointError, match="NaN"):
        _build(network(module), tmp_path, monkeypatch)
    assert not (tmp_path / "manifest.json").exists()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
@pytest.mark.parametrize("form", ["scripted", "traced", "frozen"])
def test_torchscript_from_a_file(tmp_path: Path, form: str) -> None:
    """A loaded module differs from one in memory: it has no Python code and no signature."""
    torch.manual_seed(0)
    module = Convolutions().eval()
    scripted: torch.jit.ScriptModule = torch.jit.script(module)
    if form == "traced":
        scripted = torch.jit.trace(module, torch.rand(1, 3, 16, 16))  # type: ignore[no-untyped-call]
    if form == "frozen":
        scripted = torch.jit.freeze(scripted)
    torch.jit.save(scripted, str(tmp_path / "net.pt"))
    bundle = tmp_path / "net.srd"
    bundle.mkdir()
    options = Options(
        str(tmp_path / "net.pt"), "net", trust=True, precisions=("fp32",), accept=True
    )
    written = pipeline.build(options, bundle, lambda _: None)
    assert (written.model.architecture, written.model.scale) == ("TorchScript", 2)
    parameters = sum(each.numel() for each in module.parameters())
    # Freezing turns a scalar argument into a constant, which is no weight.
    assert parameters <= written.model.parameters < parameters + 20
    frames = photos.batch(1, 33, 47, 3)
    with torch.inference_mode():
        expected = module(torch.from_numpy(photos.as_float(frames))).numpy()
    found = OnnxRunner(bundle / "fp32.onnx")(frames).astype(float).transpose(0, 3, 1, 2)
    assert np.abs(found - 255 * expected.clip(0, 1)).max() <= 0.51


class Noisy(Convolutions):
    """Adds new noise in each call, as StyleGAN does."""

    def forward(self, image: Tensor) -> Tensor:
        output = super().forward(image)
        return output + 0.1 * torch.randn_like(output)


def test_a_network_that_draws_random_numbers_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CheckpointError, match=r"test\b.*random"):
        _build(network(Noisy()), tmp_path, monkeypatch)
