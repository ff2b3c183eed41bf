"""Parts of networks that do not export as they are written, put in words that do.

Each rewriting computes exactly what was there; where that can be checked at once, it is.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def rewrite(module: nn.Module) -> None:
    """Rewrite a network's parts in place."""
    fuse_reparametrised(module)
    for part in module.modules():
        _compare_instead_of_assign(part)


def fuse_reparametrised(module: nn.Module) -> None:
    """Replace SPAN's three-branch convolutions by the single one that they add up to.

    They fuse themselves at each call by assigning to `.data`, which crashes the exporter.
    """
    for name, child in list(module.named_children()):
        convolution = getattr(child, "eval_conv", None)
        update: Any = getattr(child, "update_params", None)
        if isinstance(convolution, nn.Module) and callable(update):
            child.eval()
            update()
            relu = [nn.LeakyReLU(0.05)] if child.has_relu else []
            setattr(module, name, nn.Sequential(convolution, *relu))
        else:
            fuse_reparametrised(child)


def _compare_instead_of_assign(part: nn.Module) -> None:
    """Replace the mask of shifted windows, as SwinIR and its descendants have it.

    They number the regions of an image by assigning to slices, which becomes a scattering that
    OpenVINO does not take. Comparing coordinates gives the same numbers.
    """
    original: Any = getattr(part, "calculate_mask", None)
    size, shift = getattr(part, "window_size", None), getattr(part, "shift_size", None)
    if not callable(original) or type(size) is not int or type(shift) is not int:
        return
    compared = functools.partial(window_mask, size, shift)
    example = (3 * size, 4 * size)
    try:
        same = torch.equal(original(example), compared(example))
    except (TypeError, RuntimeError):
        try:
            same = torch.equal(original(example, torch.float32), compared(example))
        except (TypeError, RuntimeError):
            same = False  # another function of that name
    if same:
        # Where the module is called, it finds its own attribute before the class's method.
        object.__setattr__(part, "calculate_mask", compared)


def window_mask(
    size: int, shift: int, image: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return which pixels of each window may not see each other, since the shift joined them.

    Args:
        size: side of the windows.
        shift: how far the windows were shifted.
        image: height and width, multiples of `size`.
        dtype: of the mask.

    Returns:
        (windows, size * size, size * size), -100 where pixels are strangers, 0 where not.
    """
    rows, columns = (
        (torch.arange(side) >= side - size).to(dtype)
        + (torch.arange(side) >= side - shift).to(dtype)
        for side in image
    )
    regions = rows[:, None] * 3 + columns
    height, width = image
    windows = regions.view(height // size, size, width // size, size).permute(0, 2, 1, 3)
    windows = windows.reshape(-1, size * size)
    strangers = windows.unsqueeze(1) != windows.unsqueeze(2)
    return strangers.to(dtype) * -100.0
