"""Operations and memory, counted by hand for small graphs."""

from __future__ import annotations

import pytest
from torch import nn

from architectures.translators import AttentiveTranslator
from sr_export.graph import cost
from sr_export.graph.to_onnx import Strategy, export, export_generator
from tests.sr_export.generators import Dcgan
from tests.sr_export.networks import Attended, Convolutions, Windowed, network


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


@pytest.mark.slow
def test_attention_takes_memory_for_each_pair_of_pixels() -> None:
    model = export(network(AttentiveTranslator(), scale=1, grid=8), Strategy(8, None))
    spent = cost.measure(model, (128, 128))
    pairs = cost.bytes_per_pair(model, (128, 128), spent)
    # What goes into the softmax and what comes out, at an eighth of the height and the width.
    assert pairs == pytest.approx(2 * 4 / 64**2, rel=0.1)
    model = export(network(Attended()), Strategy(1, None))
    assert cost.bytes_per_pair(model, (64, 64), cost.measure(model, (64, 64))) == 0


def test_a_generator_is_counted_per_pixel_of_its_image() -> None:
    model = export_generator(nn.Sequential(nn.Unflatten(1, (5, 1, 1)), Dcgan(5, 4, 3, 3).main), 5)
    found = cost.measure(model, (16, 16))
    operations = 2 * 16 * (5 * 8 + 16 * 8 * 4 + 64 * 4 * 3)
    assert found.operations == pytest.approx(operations / 16**2)


def test_peak_is_what_lives_at_once() -> None:
    module = nn.Sequential(nn.Conv2d(3, 32, 1), nn.ReLU(), nn.Conv2d(32, 8, 1), nn.Conv2d(8, 3, 1))
    found = cost.measure(export(network(module, scale=1), Strategy(1, None)), (64, 64))
    # 32 channels go into the activation and 32 come out; the image is dead by then.
    assert found.bytes == 4 * (32 + 32)
