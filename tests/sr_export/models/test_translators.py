"""Image-to-image translators: recognized by tensor names, exported, run on their own values."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from architectures import translators
from architectures.translators import (
    AttentiveTranslator,
    Pix2PixUNet,
    ResnetGenerator,
    TransformerNet,
)
from sr_deploy import Engine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Precision
from sr_deploy.errors import CheckpointError
from sr_export import photos, pipeline
from sr_export.models.recognize import recognize
from sr_export.options import Options


def _none(_: int) -> nn.Module:
    return nn.Identity()


LAYOUTS: dict[str, tuple[Callable[[], nn.Module], str, int]] = {
    "U-Net": (Pix2PixUNet, "Pix2PixUNet", 32),
    "U-Net of six levels": (lambda: Pix2PixUNet(6), "Pix2PixUNet", 64),
    "U-Net with instance norm": (lambda: Pix2PixUNet(norm=nn.InstanceNorm2d), "Pix2PixUNet", 32),
    "U-Net without norm": (lambda: Pix2PixUNet(norm=_none), "Pix2PixUNet", 32),
    "U-Net for gray": (lambda: Pix2PixUNet(channels=1), "Pix2PixUNet", 32),
    "ResNet": (ResnetGenerator, "CycleGANResNet", 4),
    "ResNet with dropout": (lambda: ResnetGenerator(3, dropout=True), "CycleGANResNet", 4),
    "ResNet with batch norm, padded by zeros": (
        lambda: ResnetGenerator(norm=nn.BatchNorm2d, reflected=False, dropout=True),
        "CycleGANResNet",
        4,
    ),
    "style transfer": (TransformerNet, "FastNeuralStyle", 4),
}


def _randomized(module: nn.Module) -> nn.Module:
    """Return a module in eval mode all of whose parts affect the output."""
    torch.manual_seed(0)
    for name, each in module.state_dict().items():
        if name.endswith("running_var"):
            each.uniform_(0.5, 1.5)
        elif "parametrizations" in name:
            continue  # the state of a spectral norm must fit its weight
        elif each.is_floating_point():
            nn.init.kaiming_normal_(each) if each.ndim == 4 else each.normal_(0.5, 0.3)
    return module.eval()


def _build(
    folder: Path, weights: dict[str, torch.Tensor], precisions: tuple[Precision, ...] = ("fp32",)
) -> Path:
    torch.save(weights, folder / "net.pth")
    bundle = folder / "net.srd"
    bundle.mkdir()
    options = Options(
        checkpoint=str(folder / "net.pth"), name="net", precisions=precisions, accept=True
    )
    pipeline.build(options, bundle, lambda _: None)
    return bundle


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_are_rebuilt_from_their_weights(layout: str) -> None:
    make, name, grid = LAYOUTS[layout]
    module = _randomized(make())
    found = recognize(
        [
            {f"netG.{key}": each for key, each in module.state_dict().items()},
            dict(module.state_dict()),
        ]
    )
    assert (found.architecture, found.scale, found.grid) == (name, 1, grid)
    image = torch.rand(2, found.channels, 64, 128)
    with torch.inference_mode():
        expected, output = module(image), found.module(image)
    assert expected.std() > 0.01
    assert torch.equal(expected, output)


def test_statistics_of_old_instance_norms_are_ignored() -> None:
    """PyTorch before 0.4 saved them, though it did not use them."""
    module = _randomized(TransformerNet())
    weights = dict(module.state_dict())
    weights |= {
        name.replace("weight", "running_mean"): each + 1
        for name, each in weights.items()
        if name.endswith("weight") and each.ndim == 1
    }
    image = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(recognize([weights]).module(image), module(image))


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"model.model.1.model.9.weight": torch.rand(3)}, r"model\.model\.1"),
        ({"model.model.3.weight": torch.rand(9, 3, 4, 4)}, r"Pix2PixUNet.*expected"),
    ],
)
def test_other_weights_are_refused(change: dict[str, torch.Tensor], fact: str) -> None:
    with pytest.raises(CheckpointError, match=fact):
        recognize([dict(Pix2PixUNet().state_dict()) | change])


@pytest.mark.parametrize(
    ("name", "fact"),
    [
        ("model.12.weight", r"model\.12\.weight"),
        ("model.10.conv_block.5.weight", r"model\.10\.conv_block\.5"),
    ],
)
def test_missing_tensors_are_named(name: str, fact: str) -> None:
    weights = dict(ResnetGenerator().state_dict())
    del weights[name]
    with pytest.raises(CheckpointError, match=fact):
        recognize([weights])


@pytest.mark.slow
def test_unet_in_tanh_is_exported_for_any_size(tmp_path: Path) -> None:
    module = _randomized(Pix2PixUNet())
    bundle = _build(tmp_path, dict(module.state_dict()))
    written = Bundle.open(bundle).manifest
    assert written.source.ranges == "-1 to 1 in, -1 to 1 out"
    assert (written.model.scale, written.model.multiple_of, written.model.fixed_size) == (
        1,
        32,
        None,
    )
    (frame,) = photos.batch(1, 96, 160, 3)
    image = torch.from_numpy(photos.as_float(frame[None])) * 2 - 1
    with torch.inference_mode():
        expected = (module(image)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    with Engine(bundle, precision="fp32") as engine:
        result = engine.upscale(frame)
        odd = engine.upscale(frame[:71, :45])
    # Half a level of rounding, and the difference between two runtimes.
    assert np.abs(result - expected).max() <= 0.6
    assert result.std() > 10
    assert odd.shape == (71, 45, 3)


@pytest.mark.slow
def test_instance_norm_is_global(tmp_path: Path) -> None:
    bundle = _build(tmp_path, dict(_randomized(ResnetGenerator()).state_dict()))
    written = Bundle.open(bundle).manifest
    assert written.model.halo is None
    assert written.model.multiple_of == 4


@pytest.mark.slow
def test_values_beyond_half_precision_are_detected(tmp_path: Path) -> None:
    """Instance norm hides how large its input is, and half precision overflows."""
    module = _randomized(TransformerNet())
    with torch.no_grad():
        module.conv1.conv2d.weight.mul_(1e4)
        module.deconv3.conv2d.weight.mul_(20)
        module.deconv3.conv2d.bias.fill_(128)
    bundle = _build(tmp_path, dict(module.state_dict()), ("fp32", "fp16"))
    written = Bundle.open(bundle).manifest
    assert written.source.ranges == "0 to 255 in, 0 to 255 out"
    assert written.refused["fp16"]
    assert "fp16" not in {each.precision for each in written.variants}
    (frame,) = photos.batch(1, 64, 64, 3)
    with torch.inference_mode():
        expected = module(255 * torch.from_numpy(photos.as_float(frame[None])))
    assert expected.std() > 10
    with Engine(bundle, precision="fp32") as engine:
        found = engine.upscale(frame)
    assert np.abs(found - expected[0].permute(1, 2, 0).numpy().clip(0, 255)).max() <= 0.6


@pytest.mark.slow
def test_self_attention_as_the_users_own_class(tmp_path: Path) -> None:
    """With spectral norm as in SAGAN, in the class and in the file; its tanh is detected."""
    module = _randomized(AttentiveTranslator())
    torch.save({"generator": module.state_dict()}, tmp_path / "sagan.pth")
    bundle = tmp_path / "sagan.srd"
    bundle.mkdir()
    code = translators.__file__
    options = Options(
        checkpoint=str(tmp_path / "sagan.pth"),
        name="sagan",
        precisions=("fp32",),
        arch_file=(f"{code}:AttentiveTranslator",),
    )
    pipeline.build(options, bundle, lambda _: None)
    written = Bundle.open(bundle).manifest
    assert written.model.halo is None
    assert written.model.bytes_per_pair > 0
    assert written.source.ranges == "-1 to 1 in, -1 to 1 out"
    (frame,) = photos.batch(1, 64, 96, 3)
    image = torch.from_numpy(photos.as_float(frame[None])) * 2 - 1
    with torch.inference_mode():
        expected = (module(image)[0].permute(1, 2, 0).numpy() + 1) * 127.5
    with Engine(bundle, precision="fp32") as engine:
        assert np.abs(engine.upscale(frame) - expected).max() <= 0.6
