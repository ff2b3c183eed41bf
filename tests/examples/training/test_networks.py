"""The networks are known by their weights, at every scale and number of channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from examples.training.networks import NETWORKS
from sr_deploy.errors import InvalidInputError
from sr_export.models.recognize import recognize

NAMES = {"espcn": "ESPCN", "compact": "Compact", "srresnet": "SRResNet", "rrdb": "ESRGAN"}


CASES = [(name, scale, channels) for name in NETWORKS for scale, channels in ((2, 1), (4, 3))]
CASES += [("compact", 1, 3), ("compact", 3, 1), ("srresnet", 1, 1), ("espcn", 3, 3), ("rrdb", 1, 3)]


@pytest.mark.parametrize(("name", "scale", "channels"), CASES)
def test_the_exporter_rebuilds_the_very_same_network(name: str, scale: int, channels: int) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](scale, channels)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as training leaves them: not 0 and 1
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    found = recognize([network.state_dict()])
    image = torch.rand(1, channels, 12, 17)
    with torch.inference_mode():
        wanted, got = network.eval()(image), found.module(image)
    assert (found.architecture, found.scale, found.channels) == (NAMES[name], scale, channels)
    # The same operations in float32; only their order within a sum may differ.
    torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "scale"), [("espcn", 1), ("srresnet", 3), ("rrdb", 6)])
def test_a_scale_that_a_network_has_not(name: str, scale: int) -> None:
    with pytest.raises(InvalidInputError, match="scale"):
        NETWORKS[name](scale)


@pytest.mark.parametrize("name", ["srresnet", "rrdb"])
def test_a_new_network_repeats_pixels_nearly(name: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        found = NETWORKS[name](4).eval()(image)
    wanted = torch.nn.functional.interpolate(image, scale_factor=4.0)
    inner = (..., slice(40, -40), slice(40, -40))
    # Noise to learn from is below what separates two random images, 0.4 on average, by far.
    assert (found[inner] - wanted[inner]).abs().mean() < 0.12
