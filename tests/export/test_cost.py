"""Operations and memory, counted by hand for small graphs."""

from __future__ import annotations

import pytest
from torch import nn

from sr_export import cost
from sr_export.to_onnx import Strategy, export
from tests.export.networks import Convolutions, Windowed, network


def test_convolutions_are_counted() -> None:
    model = export(network(Convolutions()), Strategy(1, None))
    found = cost.measure(model, (32, 48))
    assert found.operations == 2 * 9 * (3 * 8 + 8 * 8 + 8 * 12)


def test_transposed_convolutions_are_counted_at_their_input() -> None:
    module = nn.ConvTranspose2d(3, 3, 4, stride=2, padding=1)
    found = cost.measure(export(network(module), Strategy(1, None)), (32, 32))
    assert found.operations == 2 * 3 * 3 * 16


def test_matrix_products_are_counted_through_reshapes() -> None:
    model = export(network(Windowed(), scale=1, grid=4), Strategy(4, 1))
    found = cost.measure(model, (32, 32))
    assert found.operations == pytest.approx(2 * 16 * 3)


def test_peak_is_what_lives_at_once() -> None:
    module = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 1), nn.Conv2d(8, 3, 1))
    found = cost.measure(export(network(module, scale=1), Strategy(1, None)), (64, 64))
    # 32 channels go into the activation and 32 come out; the image is dead by then.
    assert found.bytes == 4 * (32 + 32)
