"""Halo and grid of exported networks are right: tiled results equal whole ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from sr_deploy import Engine
from sr_export import photos, pipeline
from sr_export.checkpoint import load
from sr_export.models.registry import registry
from sr_export.options import Options

from spandrel.architectures import Compact, ESRGAN, SwinIR  # isort: skip

from tests.sr_export.layouts import Edsr, MsrResNet  # isort: skip

# In SwinIR's own code.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")]

NETWORKS: dict[str, Any] = {
    "Compact": lambda: Compact.Compact(
        num_in_ch=3, num_out_ch=3, num_feat=16, num_conv=4, upscale=2
    ),
    "gray Compact": lambda: Compact.Compact(
        num_in_ch=1, num_out_ch=1, num_feat=8, num_conv=2, upscale=3
    ),
    "MSRResNet": MsrResNet,
    "EDSR": Edsr,
    "FSRCNN": lambda: nn.Sequential(
        *(nn.Conv2d(1, 8, 5, padding=2), nn.PReLU(8), nn.Conv2d(8, 8, 3, padding=1)),
        nn.PReLU(8),
        nn.ConvTranspose2d(8, 1, 9, 2, 4, output_padding=1),
    ),
    "ESRGAN": lambda: ESRGAN.ESRGAN(
        in_nc=3, out_nc=3, num_filters=8, num_blocks=1, scale=4, shuffle_factor=None
    ),
    "ESRGAN x2 on a grid of 4": lambda: ESRGAN.ESRGAN(
        in_nc=12, out_nc=3, num_filters=8, num_blocks=1, scale=4, shuffle_factor=2
    ),
    "SwinIR with windows": lambda: SwinIR.SwinIR(
        img_size=16,
        window_size=4,
        depths=[2],
        embed_dim=12,
        num_heads=[2],
        mlp_ratio=2,
        upscale=2,
        upsampler="pixelshuffledirect",
        resi_connection="1conv",
    ),
}


@pytest.fixture(scope="module", params=NETWORKS)
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported network whose weights spread information over its whole receptive field."""
    assert len(registry()) > len(NETWORKS)
    torch.manual_seed(0)
    module: nn.Module = NETWORKS[request.param]()
    for parameter in module.parameters():
        if parameter.ndim == 4 and parameter.requires_grad:
            nn.init.kaiming_uniform_(parameter, a=0.5)
    folder = tmp_path_factory.mktemp("bundle")
    torch.save(module.state_dict(), folder / "x.pth")
    assert isinstance(load.read(folder / "x.pth"), load.Weights)
    options = Options(checkpoint=str(folder / "x.pth"), name="x", precisions=("fp32",), accept=True)
    pipeline.build(options, folder, lambda _: None)
    return folder


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("size", [(131, 97), (96, 160)])
def test_tiled_equals_whole(bundle: Path, backend: str, size: tuple[int, int]) -> None:
    with Engine(bundle, backend=backend, precision="fp32") as whole:
        channels = whole.spec.channels
        image = photos.batch(1, *size, channels)[0]
        expected = whole.upscale(image)
    with Engine(bundle, backend=backend, precision="fp32", tile=72) as tiled:
        found = tiled.upscale(image)
    difference = _levels(found, expected)
    # For another shape, a convolution may sum in another order, which can change a rounding.
    assert difference.max() <= 1
    assert (difference > 0).mean() < 1e-3


def test_backends_agree(bundle: Path) -> None:
    outputs = []
    for backend in ("openvino", "onnxruntime"):
        with Engine(bundle, backend=backend, precision="fp32") as engine:
            outputs.append(engine.upscale(photos.batch(1, 50, 61, engine.spec.channels)[0]))
    assert _levels(*outputs).max() <= 1


def _levels(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.int_]:
    return np.abs(one.astype(int) - other.astype(int))
