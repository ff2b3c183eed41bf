"""Weights are recognised, described, and refused in plain words."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from sr_deploy.errors import CheckpointError
from sr_export.network import Network, describe, recognise, window_sizes
from sr_export.registry import registry
from tests.export.networks import Windowed


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
    with pytest.raises(CheckpointError, match="unknown architecture 'Foo'; known are: ATD"):
        recognise([_compact()], "Foo")


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
    with pytest.raises(CheckpointError, match=r"begin with: 0\.weight, .*--network FILE") as error:
        recognise([other])
    assert "classifier" not in str(error.value)


def test_networks_that_need_a_mask_are_refused() -> None:
    with pytest.raises(CheckpointError, match="needs a mask"):
        describe(object(), "LaMa")


def test_every_architecture_of_spandrel_and_ours_is_there() -> None:
    names = {str(each.architecture.id) for each in registry()}
    assert {"Compact", "ESRGAN", "SwinIR", "HAT", "MSRResNet", "EDSR", "SRResNet"} <= names


def test_windows_are_found() -> None:
    assert window_sizes(nn.Sequential(Windowed())) == {4}
