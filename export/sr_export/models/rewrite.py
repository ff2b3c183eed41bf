"""Rewrite parts of networks that cannot be exported, or give random results.

Every rewrite computes the same values as the original, and is checked against it where possible.
"""

from __future__ import annotations

import functools
import inspect
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


def rewrite(module: nn.Module) -> None:
    """Rewrite the parts of a network in place."""
    _fuse_branches(module)
    for part in list(module.modules()):
        if isinstance(part, torch.jit.ScriptModule):
            continue  # compiled code cannot be rewritten
        _compare_instead_of_assign(part)
        _multiply_patches(part)
        _sort_stably(part)
        _keep_noise(part)
        _substitute_children(part)


def _fuse_branches(module: nn.Module) -> None:
    """Replace SPAN's three-branch convolutions by the equivalent single convolution.

    They fuse themselves in each call by assigning to `.data`, which crashes the exporter.
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
            _fuse_branches(child)


def _compare_instead_of_assign(part: nn.Module) -> None:
    """Replace the mask of shifted windows in SwinIR and its descendants.

    The original numbers image regions by assigning to slices. That exports as ScatterND, which
    OpenVINO does not support. Comparing coordinates results in the same numbers.
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
            same = False  # another function with this name
    if same:
        # An instance attribute has priority over the method of the class.
        object.__setattr__(part, "calculate_mask", compared)


def window_mask(
    size: int, shift: int, image: Sequence[int], dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the attention mask of shifted windows.

    Args:
        size: side of the windows.
        shift: offset of the windows.
        image: height and width, multiples of `size`.
        dtype: dtype of the mask.

    Returns:
        (windows, size * size, size * size); -100 for pixels from opposite borders of the image,
        which the shift made neighbors, else 0.
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
    masked = windows.unsqueeze(1) != windows.unsqueeze(2)
    return masked.to(dtype) * -100.0


def _kind(part: nn.Module) -> str:
    """Return the name of a part's class, if spandrel defines it; others may use the same name."""
    kind = type(part)
    return kind.__name__ if kind.__module__.startswith("spandrel.") else ""


def _multiply_patches(part: nn.Module) -> None:
    """Compute the FFTs of FFTformer as matrix products.

    OpenVINO cannot read the FFTs, and for 8x8 patches they are no faster.
    """
    side: Any = getattr(part, "patch_size", None)
    if _kind(part) in ("FSAS", "DFFN") and side is not None:
        _run_in(MatrixTransforms(side), part)


def _sort_stably(part: nn.Module) -> None:
    """Sort stably in ATD's attention.

    It sorts pixels by category, and the order inside a category decides which pixels attend to each
    other. torch's order is undefined, so that no other runtime could reproduce the result.
    """
    if _kind(part) == "AC_MSA":
        _run_in(DistinctSorts(), part)


def _run_in(mode: TorchFunctionMode, part: nn.Module) -> None:
    """Run the forward of a part in a mode that replaces some functions of torch."""
    original = part.forward

    def forward(*arguments: Any) -> Any:
        with mode:
            return original(*arguments)

    object.__setattr__(part, "forward", forward)


def _keep_noise(part: nn.Module) -> None:
    """Make StyleGAN decoders add the noise stored with their weights, instead of new noise."""
    if "randomize_noise" in inspect.signature(part.forward).parameters:
        fixed = functools.partial(part.forward, randomize_noise=False)
        object.__setattr__(part, "forward", fixed)


def _substitute_children(part: nn.Module) -> None:
    """Replace modules with data-dependent control flow by modules that compute all branches."""
    for name, child in list(part.named_children()):
        if substitute := _SUBSTITUTES.get(_kind(child)):
            setattr(part, name, substitute(child))


class MatrixTransforms(TorchFunctionMode):
    """Computes the FFTs of square, real patches as matrix products."""

    def __init__(self, side: int) -> None:
        super().__init__()
        pixels = torch.eye(side**2).view(-1, side, side)
        self.forth = torch.fft.rfft2(pixels)
        waves = torch.eye(self.forth[0].numel()).view(-1, *self.forth.shape[1:])
        self.back = [torch.fft.irfft2(each, (side, side)) for each in (waves, 1j * waves)]

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.fft.rfft2:
            parts = [self._times(args[0], each) for each in (self.forth.real, self.forth.imag)]
            return torch.complex(*parts)
        if func is torch.fft.irfft2:
            real, imaginary = self.back
            return self._times(args[0].real, real) + self._times(args[0].imag, imaginary)
        return func(*args, **(kwargs or {}))

    @staticmethod
    def _times(patches: Tensor, matrix: Tensor) -> Tensor:
        product = patches.flatten(-2) @ matrix.flatten(-2).contiguous()
        return torch.unflatten(product, -1, matrix.shape[-2:])


class DistinctSorts(TorchFunctionMode):
    """Sorts integers stably by making them distinct, since OpenVINO has no stable sort."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.sort:
            return func(*args, **(kwargs or {}))
        numbers = args[0]
        count = numbers.shape[-1]
        order = func(numbers * count + torch.arange(count), dim=-1).indices
        return numbers.gather(-1, order), order


class AllExperts(nn.Module):
    """SeemoRe's mixture of experts, with all experts run and the unselected ones weighted by 0.

    The original runs the experts that it selects for an image, which a graph cannot.
    """

    def __init__(self, mixture: nn.Module) -> None:
        super().__init__()
        self.gate: Any = mixture.gate
        self.experts: Any = mixture.experts
        self.selected: Any = mixture.num_expert

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        """Combine two NCHW feature maps."""
        weights = self.gate(features).softmax(1)
        best = weights.topk(self.selected).indices
        numbers = torch.arange(len(self.experts))
        weights = weights * (best[:, :, None] == numbers).any(1)
        total = features
        for number, expert in enumerate(self.experts):
            total = total + expert(features, keys) * weights[:, number, None, None, None]
        return total


class BranchlessHvi(nn.Module):
    """HVI-CIDNet's color conversion, with `where` over all cases instead of masked assignment.

    The number of pixels of each case depends on the image, which a graph cannot represent. The
    original avoids division by zero by adding 1e-8, which the exporter removes as adding zero.
    Clamping to 1e-8 instead changes 8-bit images by less than 1e-5.
    """

    _EPSILON = 1e-8

    def __init__(self, colors: nn.Module) -> None:
        super().__init__()
        self.density_k: Any = colors.density_k
        self.saturation = 1.3 if colors.gated else 1.0
        self.gain: Any = colors.alpha if colors.gated2 else 1.0

    def HVIT(self, image: Tensor) -> Tensor:  # noqa: N802  # called by the network
        """Convert RGB in [0, 1] to two coordinates of hue and saturation, and the value."""
        red, green, blue = image.unbind(1)
        value, least = image.amax(1), image.amin(1)
        spread = (value - least).clamp(min=self._EPSILON)
        hue = 4 + (red - green) / spread
        hue = torch.where(green == value, 2 + (blue - red) / spread, hue)
        hue = torch.where(red == value, (green - blue) / spread % 6, hue)
        angle = torch.where(least == value, 0.0, hue) / 6 * (2 * math.pi)
        saturation = (value - least) / value.clamp(min=self._EPSILON)
        radius = self._sensitivity(value) * saturation
        return torch.stack([radius * angle.cos(), radius * angle.sin(), value], 1)

    def PHVIT(self, hvi: Tensor) -> Tensor:  # noqa: N802
        """Convert the output of HVIT back to RGB."""
        value = hvi[:, 2].clamp(0, 1)
        coordinates = hvi[:, :2].clamp(-1, 1) / self._sensitivity(value)[:, None]
        across, up = coordinates.clamp(-1, 1).unbind(1)
        hue = torch.atan2(up, across) / (2 * math.pi) % 1 * 6
        saturation = ((across**2 + up**2).sqrt() * self.saturation).clamp(0, 1)
        sector = hue.floor()
        within = hue - sector
        low = value * (1 - saturation)
        falling = value * (1 - within * saturation)
        rising = value * (1 - (1 - within) * saturation)
        cases = (
            (value, rising, low),
            (falling, value, low),
            (low, value, rising),
            (low, falling, value),
            (rising, low, value),
            (value, low, falling),
        )
        rgb = torch.zeros_like(hvi)
        for number, case in enumerate(cases):
            rgb = torch.where((sector == number)[:, None], torch.stack(case, 1), rgb)
        return rgb * self.gain

    def _sensitivity(self, value: Tensor) -> Tensor:
        return (value * (math.pi / 2)).sin().clamp(min=self._EPSILON).pow(self.density_k)


# By the class names in SeemoRe and in HVI-CIDNet.
_SUBSTITUTES: dict[str, Callable[[nn.Module], nn.Module]] = {
    "MoELayer": AllExperts,
    "RGB_HVI": BranchlessHvi,
}
