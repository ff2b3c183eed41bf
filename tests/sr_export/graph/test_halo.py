"""The halo is the receptive field, found by looking."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sr_export.graph import halo
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.to_onnx import Strategy, export
from tests.sr_export.networks import Attended, Convolutions, Windowed, network


def _halo(module: nn.Module, scale: int, grid: int = 1) -> int | None:
    torch.manual_seed(0)
    model = export(network(module, scale=scale, grid=grid), Strategy(grid, 1))
    return halo.measure(
        OnnxRunner(model), channels=3, scale=scale, grid=grid, minimum=grid, batch=1
    )


def test_three_convolutions_reach_three_pixels() -> None:
    assert _halo(Convolutions(), 2) == 3


@pytest.mark.parametrize(("size", "dilation"), [(1, 1), (5, 1), (9, 1), (3, 4)])
def test_one_convolution_reaches_half_its_kernel(size: int, dilation: int) -> None:
    reach = size // 2 * dilation
    module = nn.Conv2d(3, 3, size, padding=reach, dilation=dilation)
    assert _halo(module, 1) == reach


def test_a_long_reach_is_found_in_a_wider_strip() -> None:
    module = nn.Sequential(*(nn.Conv2d(3, 3, 3, padding=16, dilation=16) for _ in range(4)))
    nn.init.constant_(module[0].weight, 1.0)
    assert _halo(module, 1) == 64


@pytest.mark.slow
def test_a_windowed_network_reaches_across_its_window() -> None:
    assert _halo(Windowed(), 1, grid=4) == 3


def test_a_global_network_has_none() -> None:
    assert _halo(Attended(), 2) is None


class Pooled(nn.Module):
    """Looks near, but what it pooled is enlarged by another factor at every size."""

    def forward(self, image: Tensor) -> Tensor:
        small = functional.max_pool2d(image, 7, 3)
        weights = functional.interpolate(small, image.shape[2:], mode="bilinear")
        return image * torch.sigmoid(weights)


class Rolled(nn.Module):
    """Looks near, but past the left border it sees the right one."""

    def forward(self, image: Tensor) -> Tensor:
        return image + 0.5 * torch.roll(image, (2, 2), (2, 3))


@pytest.mark.parametrize("make", [Pooled, Rolled])
def test_a_network_that_cannot_be_divided_has_none(make: type[nn.Module]) -> None:
    module = make()

    def run(image: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.asarray(module(torch.from_numpy(image)))

    found = halo.measure(run, channels=3, scale=1, grid=1, minimum=16, batch=1)
    assert found is None
