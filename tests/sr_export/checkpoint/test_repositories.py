"""Checkpoints in the layouts of public training repositories are found, rebuilt and equal.

The layouts are written anew here: names around the weights, and names of the weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from sr_export.checkpoint import load, state_dict
from sr_export.models.recognize import recognize

from spandrel.architectures import (  # isort: skip
    ESRGAN,
    PLKSR,
    SPAN,
    Compact,
    DnCNN,
    SwiftSRGAN,
    SwinIR,
)

from examples.training.networks import RrdbNet
from tests.sr_export.layouts import (
    Edsr,
    MsrResNet,
    NestedBlocks,
    NormalizedUpsampling,
    NumberedBlocks,
    Trunk,
)

# SwinIR's own code, not ours.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")


def _discriminator() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(8, 1, 3, 2, 1))


def _losses() -> nn.Module:
    return nn.ModuleDict({"vgg": nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))})


def _adam(module: nn.Module) -> dict[str, Any]:
    optimizer = torch.optim.Adam(module.parameters())
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    return optimizer.state_dict()


def _under(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def _basicsr(net: nn.Module, raw: nn.Module) -> Any:
    return {"params": raw.state_dict(), "params_ema": net.state_dict()}


def _ema_only(net: nn.Module, _: nn.Module) -> Any:
    return {"params_ema": net.state_dict()}


def _params(net: nn.Module, _: nn.Module) -> Any:
    return {"params": net.state_dict()}


def _plain(net: nn.Module, _: nn.Module) -> Any:
    return net.state_dict()


def _data_parallel(net: nn.Module, _: nn.Module) -> Any:
    return _under("module.", net)


def _with_metrics(net: nn.Module, raw: nn.Module) -> Any:
    return {
        "epoch": 7,
        "best_psnr": 27.1,
        "best_ssim": 0.78,
        "optimizer": _adam(net),
        "state_dict": raw.state_dict(),
        "ema_state_dict": net.state_dict(),
        "scheduler": {"last_epoch": 7, "_step_count": 8},
    }


def _model(net: nn.Module, _: nn.Module) -> Any:
    return {"model": net.state_dict()}


def _inner(net: nn.Module, _: nn.Module) -> Any:
    return _under("net.", net)


def _lightning(net: nn.Module, _: nn.Module) -> Any:
    judge = _discriminator()
    inside = _under("generator.", net) | _under("discriminator.", judge)
    return {
        "epoch": 7,
        "global_step": 700,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": inside | _under("perceptual.", _losses()),
        "loops": {},
        "callbacks": {},
        "optimizer_states": [_adam(net), _adam(judge)],
        "lr_schedulers": [],
        "hyper_parameters": {"scale": 2, "lr": 1e-4},
    }


def _openmmlab(net: nn.Module, _: nn.Module) -> Any:
    inside = _under("generator.", net) | _under("discriminator.", _discriminator())
    inside |= _under("perceptual_loss.", _losses()) | {"step_counter": torch.tensor(700)}
    return {
        "meta": {"epoch": 7, "iter": 700},
        "state_dict": inside,
        "optimizer": {"generator": _adam(net)},
    }


@dataclass(frozen=True)
class Repository:
    """The layout in which a repository saves a network.

    Attributes:
        make: The network, with the repository's names of weights.
        content: The saved object, from the network to deploy and a second one.
        taken: Path at which the weights are found.
        found: Architecture that is recognized.
        scale: Its scale.
        spec: Settings that untrained weights leave open, as for `--arch`.
        suffix: Suffix of its files.
    """

    make: Callable[[], nn.Module]
    content: Callable[[nn.Module, nn.Module], Any]
    taken: str
    found: str
    scale: int
    spec: str = ""
    suffix: str = ".pth"
    save: Callable[[Any, Path], Any] = field(default=torch.save)


def _swinir() -> nn.Module:
    return SwinIR.SwinIR(
        img_size=16,
        window_size=8,
        depths=[2],
        embed_dim=12,
        num_heads=[2],
        mlp_ratio=2,
        upscale=2,
        upsampler="pixelshuffledirect",
    )


REPOSITORIES: dict[str, Repository] = {
    "xinntao/BasicSR": Repository(MsrResNet, _basicsr, "params_ema", "MSRResNet", 4),
    "xinntao/Real-ESRGAN": Repository(
        lambda: RrdbNet(4, features=16, blocks=1), _ema_only, "params_ema", "ESRGAN", 4
    ),
    "xinntao/Real-ESRGAN, small": Repository(
        lambda: Compact.Compact(num_feat=8, num_conv=2, upscale=4), _params, "params", "Compact", 4
    ),
    "xinntao/ESRGAN, before BasicSR": Repository(
        lambda: ESRGAN.ESRGAN(num_filters=16, num_blocks=1), _plain, "the whole file", "ESRGAN", 4
    ),
    "JingyunLiang/SwinIR": Repository(_swinir, _params, "params", "SwinIR", 2),
    "cszn/KAIR": Repository(
        lambda: DnCNN.DnCNN(in_nc=3, out_nc=3, nc=8, nb=9, act_mode="R"),
        *(_data_parallel, "the whole file", "DnCNN", 1),
    ),
    "sanghyun-son/EDSR-PyTorch": Repository(
        Edsr, _plain, "the whole file", "EDSR", 4, suffix=".pt"
    ),
    "Lornatang/SRGAN-PyTorch": Repository(
        Trunk, _with_metrics, "ema_state_dict", "SRResNet", 2, suffix=".pth.tar"
    ),
    "eriklindernoren/PyTorch-GAN": Repository(
        NormalizedUpsampling, _plain, "the whole file", "SRResNet", 4, "SRResNet final=tanh"
    ),
    "leftthomas/SRGAN": Repository(
        NumberedBlocks, _plain, "the whole file", "SRResNet", 4, "SRResNet final=tanh"
    ),
    # It saves whole modules, which are refused; the error shows how to save their weights.
    "sgrvinod/a-PyTorch-Tutorial-to-Super-Resolution": Repository(
        NestedBlocks, _inner, "the whole file", "SRResNet", 2, "SRResNet final=tanh", ".pth.tar"
    ),
    "Koushik0901/Swift-SRGAN": Repository(
        lambda: SwiftSRGAN.SwiftSRGAN(num_channels=8, num_blocks=1, upscale_factor=2),
        *(_model, "model", "SwiftSRGAN", 2),
        suffix=".pth.tar",
    ),
    "the-database/traiNNer-redux": Repository(
        lambda: SPAN.SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2),
        *(_plain, "the whole file", "SPAN", 2),
        suffix=".safetensors",
        save=save_file,
    ),
    "neosr-project/neosr": Repository(
        lambda: PLKSR.RealPLKSR(dim=16, n_blocks=1, upscaling_factor=2),
        *(_params, "params", "PLKSR", 2),
    ),
    "Lightning-AI/pytorch-lightning": Repository(
        Trunk, _lightning, "state_dict.generator", "SRResNet", 2, suffix=".ckpt"
    ),
    "open-mmlab/mmagic": Repository(
        lambda: RrdbNet(4, features=16, blocks=1), _openmmlab, "state_dict.generator", "ESRGAN", 4
    ),
}


def _awake(module: nn.Module) -> nn.Module:
    """Give weights to all branches, also those that training initializes to zero."""
    for weight in module.parameters():
        if weight.ndim == 4 and not weight.any():
            nn.init.normal_(weight, std=0.1)
    return module.eval()


@pytest.mark.parametrize("name", REPOSITORIES)
def test_repository(name: str, tmp_path: Path) -> None:
    repository = REPOSITORIES[name]
    torch.manual_seed(0)
    net, raw = _awake(repository.make()), _awake(repository.make())
    path = tmp_path / f"net{repository.suffix}"
    repository.save(repository.content(net, raw), path)
    content = load.read(path)
    assert isinstance(content, load.Weights)
    assert content.taken.split(" (")[0] == repository.taken
    found = recognize(state_dict.strippings(content.tensors), repository.spec or None)
    assert found.architecture.split()[0] == repository.found
    assert (found.scale, found.channels) == (repository.scale, 3)
    white = 255 if isinstance(net, Edsr) else 1
    image = torch.rand(1, 3, 16, 24) * white
    with torch.inference_mode():
        # The same operations, some of them in another order: float32 rounding at white's height.
        expected = net(image.clone())
        torch.testing.assert_close(found.module(image), expected, atol=2e-5 * white, rtol=1e-5)
