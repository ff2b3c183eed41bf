"""Weights are recognized and described, or refused with the facts."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.models.network import Network, from_descriptor, window_sizes
from sr_export.models.recognize import recognize
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
def test_compact_is_recognized(channels: int, scale: int) -> None:
    found = recognize([_compact(channels, scale)])
    assert (found.architecture, found.scale, found.channels) == ("Compact", scale, channels)
    assert _run(found).shape == (1, channels, 16 * scale, 16 * scale)


def test_the_first_candidate_that_fits_is_used() -> None:
    prefixed = {f"net_g.{name}": tensor for name, tensor in _compact().items()}
    assert recognize([prefixed, _compact()]).architecture == "Compact"


def test_a_wrong_architecture_is_refused() -> None:
    with pytest.raises(CheckpointError, match="SwinIR"):
        recognize([_compact()], "SwinIR")
    with pytest.raises(InvalidInputError, match=r"'Foo'.*ATD, "):
        recognize([_compact()], "Foo")


def test_architectures_of_spandrel_accept_no_settings() -> None:
    assert recognize([_compact()], "Compact").architecture == "Compact"
    with pytest.raises(InvalidInputError, match="Compact"):
        recognize([_compact()], "Compact scale=2")


def test_weights_that_do_not_fit_their_architecture_are_refused() -> None:
    weights = _compact()
    del weights["body.2.weight"]
    with pytest.raises(CheckpointError, match=r"Compact.*body\.2\.weight"):
        recognize([weights])


def test_classifiers_are_identified_among_unknown_networks() -> None:
    classifier = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 10)).state_dict()
    with pytest.raises(CheckpointError, match="classifier"):
        recognize([classifier])
    other = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 3, 3)).state_dict()
    seen = r"\b4 .*0\.weight 8x3x3x3, 0\.bias 8, .*--arch-file FILE"
    with pytest.raises(CheckpointError, match=seen) as error:
        recognize([other])
    assert "classifier" not in str(error.value)


def test_the_nearest_architecture_is_named() -> None:
    """By names for architectures of spandrel, by layers for a plain chain."""
    weights = {"conv_first.weight": torch.rand(8, 3, 3, 3), "fc.weight": torch.rand(2, 8)}
    names = ("conv_after_body", "layers.0.residual_group.blocks.0.norm1")
    weights |= {f"{name}.weight": torch.rand(8) for name in names}
    with pytest.raises(CheckpointError, match=r"nearest to \w+.* \d+%"):
        recognize([weights])
    chain = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Conv2d(8, 8, 3), nn.Conv2d(8, 16, 3))
    chain.append(nn.Conv2d(16, 1, 3))
    with pytest.raises(CheckpointError, match=r"nearest to ConvRestorer.*wider"):
        recognize([chain.state_dict()])


def _drunet(taken: int, given: int) -> dict[str, Tensor]:
    from spandrel.architectures.DRUNet import DRUNet

    return DRUNet(in_nc=taken, out_nc=given, nc=[4, 4, 4, 4], nb=2).state_dict()


@pytest.mark.parametrize(("taken", "channels"), [(1, 1), (2, 1), (3, 3), (4, 3)])
def test_drunet_with_and_without_a_noise_level(taken: int, channels: int) -> None:
    """The noise level map is a constant for networks that were trained with one."""
    found = recognize([_drunet(taken, channels)])
    assert (found.architecture, found.channels, found.scale) == ("DRUNet", channels, 1)
    assert _run(found).shape == (1, channels, 16, 16)


@pytest.mark.parametrize(
    ("taken", "given", "fact"),
    [
        (6, 3, "5 input and 3 output .* 2 more"),
        (4, 1, "3 input and 1 output .*map"),
        (5, 4, "4 input and 4 output"),
    ],
)
def test_other_channels_are_refused(taken: int, given: int, fact: str) -> None:
    with pytest.raises(CheckpointError, match=fact):
        recognize([_drunet(taken, given)])


def test_networks_that_need_a_mask_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"LaMa.*mask"):
        from_descriptor(object(), "LaMa")


def test_the_registry_has_spandrels_architectures_and_ours() -> None:
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
