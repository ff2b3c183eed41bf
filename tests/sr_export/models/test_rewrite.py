"""Rewritten parts compute the same values as the originals."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.to_onnx import Strategy, export
from sr_export.models.registry import registry
from sr_export.models.rewrite import DistinctSorts, rewrite, window_mask
from tests.sr_export.networks import network

assert registry()  # imports spandrel

from spandrel.architectures.ATD import ATD  # noqa: E402
from spandrel.architectures.FFTformer import FFTformer  # noqa: E402
from spandrel.architectures.HVICIDNet import HVICIDNet  # noqa: E402
from spandrel.architectures.SeemoRe import SeemoRe  # noqa: E402
from spandrel.architectures.SPAN import SPAN  # noqa: E402
from spandrel.architectures.SwinIR import SwinIR  # noqa: E402


def test_reparametrized_convolutions_are_fused() -> None:
    torch.manual_seed(0)
    module = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8).eval()
    image = torch.rand(1, 3, 9, 9)
    with torch.inference_mode():
        before = module(image)
        rewrite(module)
        after = module(image)
    assert torch.equal(before, after)
    assert not any(hasattr(part, "update_params") for part in module.modules())


@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_masks_of_shifted_windows_are_replaced() -> None:
    torch.manual_seed(0)
    module = SwinIR(
        img_size=16, window_size=4, depths=[2], embed_dim=12, num_heads=[2], upscale=2
    ).eval()
    image = torch.rand(1, 3, 24, 20)
    with torch.inference_mode():
        before = module(image)
        rewrite(module)
        after = module(image)
    assert torch.equal(before, after)
    masks = [part.calculate_mask for part in module.modules() if hasattr(part, "calculate_mask")]
    assert window_mask in [getattr(mask, "func", None) for mask in masks]


def test_pixels_from_opposite_borders_are_masked() -> None:
    mask = window_mask(2, 1, (4, 4))
    assert mask.shape == (4, 4, 4)
    assert not mask[0].any()  # the first window has pixels from one place only
    assert mask[3, 0].tolist() == [
        0,
        -100,
        -100,
        -100,
    ]  # the last has all four corners


def test_all_experts_equal_the_selected_ones() -> None:
    torch.manual_seed(0)
    module = SeemoRe(num_layers=2, embedding_dim=8, num_experts=4, topk=2).eval()
    images = torch.rand(3, 3, 17, 20)
    with torch.inference_mode():
        before = torch.cat([module(image[None]) for image in images])  # takes a batch of 1
        rewrite(module)
        after = module(images)
    assert torch.allclose(before, after, atol=1e-6)  # rounding differs between batches


def _primaries() -> Tensor:
    """Return an image of black, white, gray, all primaries and random pixels."""
    corners = torch.cartesian_prod(*3 * [torch.tensor([0.0, 1 / 255, 0.5, 1.0])])
    pixels = torch.cat([corners, torch.rand(64 * 65 - len(corners), 3)])
    return pixels.T.reshape(1, 3, 64, 65)


def test_branchless_colors_equal_the_original() -> None:
    torch.manual_seed(0)
    module = HVICIDNet(channels=[4, 4, 8, 8], heads=[1, 1, 1, 1]).eval()
    original = module.trans
    rewrite(module)
    image = _primaries()
    with torch.inference_mode():
        hvi = original.HVIT(image)
        assert torch.allclose(module.trans.HVIT(image), hvi, atol=1e-5)  # as its docstring says
        assert torch.allclose(module.trans.PHVIT(hvi), original.PHVIT(hvi), atol=1e-5)


@pytest.mark.slow
def test_colors_survive_the_exporter() -> None:
    """The exporter removes additions of 1e-8; divisions by the sum then resulted in NaN."""

    class ThereAndBack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trans = HVICIDNet(channels=[4, 4, 8, 8], heads=[1, 1, 1, 1]).trans

        def forward(self, image: Tensor) -> Tensor:
            return self.trans.PHVIT(self.trans.HVIT(image))

    module = ThereAndBack()
    rewrite(module)
    image = _primaries().numpy()
    found = OnnxRunner(export(network(module, scale=1), Strategy(1, None)))(image)
    assert np.abs(found - image).max() < 1e-5


def test_matrix_products_equal_ffts() -> None:
    torch.manual_seed(0)
    module = FFTformer(dim=8, num_blocks=[1, 1, 1], num_refinement_blocks=1).eval()
    image = torch.rand(1, 3, 32, 64)
    with torch.inference_mode():
        before = module(image)
        rewrite(module)
        after = module(image)
    assert not torch.equal(before, after)  # it was rewritten
    assert torch.allclose(before, after, atol=1e-5)  # rounding of sums of 64 terms, in a few layers


def test_equal_numbers_keep_their_order() -> None:
    torch.manual_seed(0)
    numbers = torch.randint(0, 5, (2, 4096))
    with DistinctSorts():
        values, order = torch.sort(numbers, dim=-1, stable=False)
    expected = torch.sort(numbers, dim=-1, stable=True)
    assert torch.equal(values, expected.values)
    assert torch.equal(order, expected.indices)


@pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")
def test_attention_sorts_stably() -> None:
    torch.manual_seed(0)
    module = ATD(embed_dim=12, depths=[1], num_heads=[2], category_size=16).eval()
    image = torch.rand(1, 3, 16, 24)
    original = torch.sort
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        stably = functools.partial(original, stable=True)
        patch.setattr(torch, "sort", lambda numbers, dim, stable: stably(numbers, dim=dim))
        expected = module(image)
    rewrite(module)
    with torch.inference_mode():
        assert torch.allclose(module(image), expected, atol=1e-6)  # the same sums


def test_stored_noise_is_used() -> None:
    class Noisy(nn.Module):
        def forward(self, image: Tensor, *, randomize_noise: bool = True) -> Tensor:
            return image + torch.rand_like(image) if randomize_noise else image

    module = nn.Sequential(Noisy())
    rewrite(module)
    image = torch.rand(1, 3, 4, 4)
    assert torch.equal(module(image), image)


def test_modules_of_others_are_not_replaced() -> None:
    class MoELayer(nn.Module):  # the name of a class in SeemoRe
        pass

    module = nn.Sequential(MoELayer())
    rewrite(module)
    assert isinstance(module[0], MoELayer)
