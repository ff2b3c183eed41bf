"""Parts of networks that do not export as they are written, put in words that do.

Each rewriting computes exactly what was there; where that can be checked at once, it is. What a
network leaves to chance, it settles.
"""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sr_export.models.substitutes import AllExperts, DistinctSorts, HueByChoice, MatrixTransforms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor
    from torch.overrides import TorchFunctionMode

# By the names of classes in SeemoRe and in HVI-CIDNet.
_SUBSTITUTES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "MoELayer": AllExperts,
    "RGB_HVI": HueByChoice,
}


def rewrite(module: nn.Module) -> None:
    """Rewrite a network's parts in place."""
    fuse_reparametrised(module)
    for part in list(module.modules()):
        if isinstance(part, torch.jit.ScriptModule):
            continue  # compiled: nothing of Python is left to rewrite
        _compare_instead_of_assign(part)
        _multiply_patches(part)
        _sort_stably(part)
        _keep_noise(part)
        _substitute_children(part)


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


def _kind(part: nn.Module) -> str:
    """Return the name of a part's class if it is spandrel's; others may mean another by it."""
    kind = type(part)
    return kind.__name__ if kind.__module__.startswith("spandrel.") else ""


def _multiply_patches(part: nn.Module) -> None:
    """Have FFTformer transform its patches by multiplying them with the transform's matrix.

    OpenVINO fails to read the transforms, and patches of 8x8 are too small to gain by fast ones.
    """
    side: Any = getattr(part, "patch_size", None)
    if _kind(part) in ("FSAS", "DFFN") and side is not None:
        _run_in(MatrixTransforms(side), part)


def _sort_stably(part: nn.Module) -> None:
    """Have ATD's attention keep pixels of the same category in their order.

    It sorts pixels by category, and which of a category comes first decides who attends to whom.
    It leaves that to torch, which leaves it to chance: so no other runtime could give the same.
    """
    if _kind(part) == "AC_MSA":
        _run_in(DistinctSorts(), part)


def _run_in(mode: TorchFunctionMode, part: nn.Module) -> None:
    """Have a part run its forward in a mode, which computes some of torch's functions otherwise."""
    original = part.forward

    def forward(*arguments: Any) -> Any:
        with mode:
            return original(*arguments)

    object.__setattr__(part, "forward", forward)


def _keep_noise(part: nn.Module) -> None:
    """Have StyleGAN's decoders add the noise that came with their weights, not a new one each time.

    It is what they offer where the same image must give the same result.
    """
    if "randomize_noise" in inspect.signature(part.forward).parameters:
        fixed = functools.partial(part.forward, randomize_noise=False)
        object.__setattr__(part, "forward", fixed)


def _substitute_children(part: nn.Module) -> None:
    """Replace what asks the image what to compute by what computes all of it."""
    for name, child in list(part.named_children()):
        if substitute := _SUBSTITUTES.get(_kind(child)):
            setattr(part, name, substitute(child))
