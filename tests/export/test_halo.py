"""The halo is the receptive field, found by looking."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sr_export import halo
from sr_export.runner import OnnxRunner
from sr_export.to_onnx import Strategy, export
from tests.export.networks import Attended, Convolutions, Windowed, network


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


def test_a_windowed_network_reaches_across_its_window() -> None:
    assert _halo(Windowed(), 1, grid=4) == 3


def test_a_global_network_has_none() -> None:
    assert _halo(Attended(), 2) is None
