"""Exporting: what is free stays free, and what breaks says why."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from sr_deploy.errors import CheckpointError, ExportError
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.to_onnx import OPSET, Padded, Strategy, export, strategies
from tests.sr_export.networks import Attended, Convolutions, Windowed, network


def _largest_difference(model: onnx.ModelProto, module: nn.Module, shape: tuple[int, ...]) -> float:
    image = np.random.default_rng(0).random(shape, np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(image)).numpy()
    return float(np.abs(OnnxRunner(model)(image) - expected).max())


@pytest.mark.parametrize(
    "module", [Convolutions(), Attended()], ids=lambda each: type(each).__name__
)
def test_any_size_and_batch(module: nn.Module) -> None:
    model = export(network(module), Strategy(1, None))
    for shape in ((1, 3, 1, 1), (3, 3, 7, 12), (1, 3, 32, 17)):
        # float32 rounding of a few hundred terms near 1
        assert _largest_difference(model, module, shape) < 1e-5, shape


def test_padding_inside_the_graph_matches_a_network_that_pads_itself() -> None:
    module = Windowed()
    model = export(network(module, scale=1, grid=4), Strategy(4, 1))
    for size in ((3, 3), (5, 9), (9, 5), (16, 8), (17, 23)):
        assert _largest_difference(model, module, (1, 3, *size)) < 1e-5, size


def test_padded_gives_the_size_of_the_whole_image() -> None:
    padded = Padded(network(Convolutions()), 8)
    assert padded(torch.zeros(1, 3, 9, 13)).shape == (1, 3, 18, 26)


def test_graph_is_tidy() -> None:
    model = export(network(Convolutions()), Strategy(1, None))
    onnx.checker.check_model(model)
    assert [each.version for each in model.opset_import if each.domain == ""] == [OPSET]
    text = str(model)
    assert "/" not in "".join(node.doc_string for node in model.graph.node)
    assert "metadata_props" not in text  # it would hold the exporting machine's paths
    names = [dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert names == ["batch", "", "height", "width"]


def test_refusal_gives_the_cause() -> None:
    class Refusing(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            raise RuntimeError("no networks on Sundays")

    with pytest.raises(ExportError, match="no networks on Sundays"):
        export(network(Refusing()), Strategy(1, None))


class Branching(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image / 255 if image.max() > 1 else image


class Untranslatable(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return torch.special.bessel_j0(image)


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (Branching(), "depends on the image"),
        (Untranslatable(), "bessel_j0"),
    ],
)
def test_known_refusals_are_put_in_words(module: nn.Module, words: str) -> None:
    with pytest.raises(ExportError, match=words):
        export(network(module), Strategy(1, None))


def test_networks_that_draw_random_numbers_are_refused() -> None:
    class Noisy(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image + torch.randn_like(image)

    with pytest.raises(CheckpointError, match="random numbers"):
        export(network(Noisy()), Strategy(1, None))


def test_networks_too_large_for_a_file_are_refused() -> None:
    module = Convolutions()
    module.register_parameter("large", nn.Parameter(torch.empty(2**29, device="meta")))
    with pytest.raises(CheckpointError, match=r"2\.0 GiB"):
        export(network(module), Strategy(1, None))


def test_sorts_keep_the_order_of_equals() -> None:
    class Sorting(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            order = torch.sort((image * 4).floor(), dim=-1, descending=True, stable=True).indices
            return image.gather(-1, order)

    module = Sorting()
    assert _largest_difference(export(network(module), Strategy(1, 1)), module, (1, 3, 8, 64)) == 0


def test_most_flexible_strategy_comes_first_and_a_fixed_size_last() -> None:
    free = list(strategies(network(Convolutions())))
    assert free[0] == Strategy(1, None)
    assert free[-1] == Strategy(1, 1, (64, 64))
    windowed = list(strategies(network(Windowed(), grid=4)))
    assert windowed[0] == Strategy(4, 1)
    assert len(set(windowed)) == len(windowed)
