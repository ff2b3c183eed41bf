"""Rewritten parts compute what was there."""

from __future__ import annotations

import pytest
import torch

from sr_export.registry import registry
from sr_export.rewriting import rewrite, window_mask

assert registry()  # spandrel is imported through it

from spandrel.architectures.SPAN import SPAN  # noqa: E402
from spandrel.architectures.SwinIR import SwinIR  # noqa: E402


def test_reparametrised_convolutions_are_fused() -> None:
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
def test_masks_of_shifted_windows_are_compared_not_assigned() -> None:
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


def test_pixels_across_the_seam_are_strangers() -> None:
    mask = window_mask(2, 1, (4, 4))
    assert mask.shape == (4, 4, 4)
    assert not mask[0].any()  # the first window was not joined of parts
    assert mask[3, 0].tolist() == [0, -100, -100, -100]  # in the last, every pixel is a part
