"""The exporter recognizes the networks by their weights, at every scale and channel count."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from examples.training.networks import NETWORKS
from sr_deploy.errors import InvalidInputError
from sr_export.models.recognize import recognize

NAMES = {"espcn": "ESPCN", "compact": "Compact", "srresnet": "SRResNet", "rrdb": "ESRGAN"}
# Small, since recognition runs the networks on photos.
SIZES: dict[str, dict[str, int]] = {
    "espcn": {"features": 16},
    "compact": {"features": 16, "blocks": 2},
    "srresnet": {"features": 16, "blocks": 2},
    "rrdb": {"features": 16, "blocks": 1},
}

CASES = [(name, scale, channels) for name in NETWORKS for scale, channels in ((2, 1), (4, 3))]
CASES += [("compact", 1, 3), ("compact", 3, 1), ("srresnet", 1, 1), ("espcn", 3, 3), ("rrdb", 1, 3)]


@pytest.mark.parametrize(("name", "scale", "channels"), CASES)
def test_the_exporter_rebuilds_the_same_network(name: str, scale: int, channels: int) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](scale, channels, **SIZES[name])
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as after training, not 0 and 1
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
    recognized = recognize([network.state_dict()])
    image = torch.rand(1, channels, 12, 17)
    with torch.inference_mode():
        expected, rebuilt = network.eval()(image), recognized.module(image)
    assert (recognized.architecture, recognized.scale, recognized.channels) == (
        NAMES[name],
        scale,
        channels,
    )
    # The same float32 operations; only the order of sums may differ.
    torch.testing.assert_close(rebuilt, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("name", "scale"), [("espcn", 1), ("srresnet", 3), ("rrdb", 6)])
def test_unsupported_scales(name: str, scale: int) -> None:
    with pytest.raises(InvalidInputError, match="scale"):
        NETWORKS[name](scale)


@pytest.mark.parametrize("name", ["srresnet", "rrdb"])
def test_a_new_network_is_nearly_nearest_neighbor_upscaling(name: str) -> None:
    torch.manual_seed(0)
    image = torch.rand(1, 3, 24, 24)
    with torch.inference_mode():
        output = NETWORKS[name](4).eval()(image)
    nearest = torch.nn.functional.interpolate(image, scale_factor=4.0)
    inner = (..., slice(40, -40), slice(40, -40))
    # The initial noise is far below the difference of two random images, 0.4 on average.
    assert (output[inner] - nearest[inner]).abs().mean() < 0.12
