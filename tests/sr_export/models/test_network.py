"""Weights are recognised, described, and refused in plain words."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.models.network import Network, describe, recognise, window_sizes
from sr_export.models.registry import registry
from tests.sr_export.networks import Windowed


def _run(found: Network, side: int = 16) -> Tensor:
    with torch.inference_mode():
        return found.module(torch.rand(1, found.channels, side, side))


def _compact(channels: int = 3, scale: int = 2) -> dict[str, Tensor]:
    from spandrel.architectures.Compact import Compact

    return Compact(
        num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=scale
    ).state_dict()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("scale", [1, 2, 4])
def test_compact_is_recognised(channels: int, scale: int) -> None:
    found = recognise([_compact(channels, scale)])
    assert (found.architecture, found.scale, found.channels) == ("Compact", scale, channels)
    assert _run(found).shape == (1, channels, 16 * scale, 16 * scale)


def test_the_likeliest_names_that_fit_are_taken() -> None:
    prefixed = {f"net_g.{name}": tensor for name, tensor in _compact().items()}
    assert recognise([prefixed, _compact()]).architecture == "Compact"


def test_a_wrong_architecture_is_refused() -> None:
    with pytest.raises(CheckpointError, match="the network is not SwinIR"):
        recognise([_compact()], "SwinIR")
    with pytest.raises(InvalidInputError, match="unknown architecture 'Foo'; known are: ATD"):
        recognise([_compact()], "Foo")


def test_architectures_of_spandrel_take_no_arguments() -> None:
    assert recognise([_compact()], "Compact").architecture == "Compact"
    with pytest.raises(InvalidInputError, match="Compact takes no arguments: its weights tell"):
        recognise([_compact()], "Compact scale=2")


def test_weights_that_do_not_fit_their_architecture_say_so() -> None:
    weights = _compact()
    del weights["body.2.weight"]
    with pytest.raises(CheckpointError, match="look like Compact, but do not fit it"):
        recognise([weights])


def test_a_classifier_is_told_from_other_unknown_networks() -> None:
    classifier = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 10)).state_dict()
    with pytest.raises(CheckpointError, match="it looks like a classifier"):
        recognise([classifier])
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)).state_dict()
    seen = r"Its 4 tensors begin with: 0\.weight 8x3x3x3, 0\.bias 8, .*--arch-file FILE"
    with pytest.raises(CheckpointError, match=seen) as error:
        recognise([other])
    assert "classifier" not in str(error.value)


def test_the_nearest_architecture_is_named() -> None:
    """By names where those are some architecture's, by layers where they are of a plain chain."""
    weights = {"conv_first.weight": torch.rand(8, 3, 3, 3), "fc.weight": torch.rand(2, 8)}
    names = ("conv_after_body", "layers.0.residual_group.blocks.0.norm1")
    weights |= {f"{name}.weight": torch.rand(8) for name in names}
    with pytest.raises(CheckpointError, match=r"nearest to \w+: \d+% of those that tell it"):
        recognise([weights])
    chain = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 16, 3))
    chain.append(nn.Conv2d(16, 1, 3))
    with pytest.raises(CheckpointError, match="nearest to ConvRestorer, but grows wider"):
        recognise([chain.state_dict()])


def _drunet(taken: int, given: int) -> dict[str, Tensor]:
    from spandrel.architectures.DRUNet import DRUNet

    return DRUNet(in_nc=taken, out_nc=given, nc=[4, 4, 4, 4], nb=2).state_dict()


@pytest.mark.parametrize(("taken", "channels"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_drunet_with_and_without_a_noise_level(taken: int, channels: int) -> None:
    """Its map of the noise level is a constant, for those trained with one."""
    found = recognise([_drunet(taken, channels)])
    assert (found.architecture, found.channels, found.scale) == ("DRUNet", channels, 1)
    assert _run(found).shape == (1, channels, 16, 16)


@pytest.mark.parametrize(
    ("taken", "given", "message"),
    [
        (6, 3, "takes 5 channels, which is an image and 2 more beside it"),
        (4, 1, "takes 3 channels, which makes a map of an image"),
        (5, 4, "takes 4 channels, and gives 4; networks are exported that take one gray or RGB"),
    ],
)
def test_other_channels_are_refused_in_plain_words(taken: int, given: int, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        recognise([_drunet(taken, given)])


def test_networks_that_need_a_mask_are_refused() -> None:
    with pytest.raises(CheckpointError, match="needs a mask"):
        describe(object(), "LaMa")


def test_every_architecture_of_spandrel_and_ours_is_there() -> None:
    names = {str(each.architecture.id) for each in registry()}
    assert {
        "Compact",
        "ESRGAN",
        "SwinIR",
        "HAT",
        "MSRResNet",
        "EDSR",
        "SRResNet",
        "FSRCNN",
    } <= names


def test_windows_are_found() -> None:
    assert window_sizes(nn.Sequential(Windowed())) == {4}
