"""Parts of networks that do not export as they are written, put in words that do.

Each rewriting computes exactly what was there; where that can be checked at once, it is. What a
network leaves to chance, it settles.
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
    """Rewrite a network's parts in place."""
    fuse_reparametrised(module)
    for part in list(module.modules()):
        _compare_instead_of_assign(part)
        _multiply_patches(part)
        _sort_stably(part)
        _keep_noise(part)
        for name, child in list(part.named_children()):
            if isinstance(getattr(child, "experts", None), nn.ModuleList):
                setattr(part, name, AllExperts(child))
            elif hasattr(child, "HVIT") and hasattr(child, "density_k"):
                setattr(part, name, HueByChoice(child))


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


def _multiply_patches(part: nn.Module) -> None:
    """Have FFTformer transform its patches by multiplying them with the transform's matrix.

    OpenVINO fails to read the transforms, and patches of 8x8 are too small to gain by fast ones.
    """
    side = getattr(part, "patch_size", None)
    if isinstance(side, int) and "rfft2" in _names_in(part.forward):
        _run_in(_MatrixTransforms(side), part)


def _sort_stably(part: nn.Module) -> None:
    """Have ATD's attention keep pixels of the same category in their order.

    It sorts pixels by category, and which of a category comes first decides who attends to whom.
    It leaves that to torch, which leaves it to chance: so no other runtime could give the same.
    """
    if hasattr(part, "category_size"):
        _run_in(_DistinctSorts(), part)


def _run_in(mode: TorchFunctionMode, part: nn.Module) -> None:
    """Have a part run its forward in a mode, which computes some of torch's functions otherwise."""
    original = part.forward

    def forward(*arguments: Any) -> Any:
        with mode:
            return original(*arguments)

    object.__setattr__(part, "forward", forward)


class _MatrixTransforms(TorchFunctionMode):
    """Computes Fourier transforms of square, real patches as products with matrices."""

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
        return product.unflatten(-1, matrix.shape[-2:])


class _DistinctSorts(TorchFunctionMode):
    """Sorts whole numbers stably by making them distinct, since OpenVINO has no stable sort."""

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is not torch.sort:
            return func(*args, **(kwargs or {}))
        numbers = args[0]
        count = numbers.shape[-1]
        order = func(numbers * count + torch.arange(count), dim=-1).indices
        return numbers.gather(-1, order), order


def _names_in(method: Any) -> tuple[str, ...]:
    """Return the global names and attributes that a method's code uses."""
    names: tuple[str, ...] = getattr(getattr(method, "__code__", None), "co_names", ())
    return names


def _keep_noise(part: nn.Module) -> None:
    """Have StyleGAN's decoders add the noise that came with their weights, not a new one each time.

    It is what they offer where the same image must give the same result.
    """
    if "randomize_noise" in inspect.signature(part.forward).parameters:
        fixed = functools.partial(part.forward, randomize_noise=False)
        object.__setattr__(part, "forward", fixed)


class AllExperts(nn.Module):
    """SeemoRe's mixture of experts, which runs those that an image calls for; a graph cannot.

    So all run, and those that were not called for count nothing.
    """

    def __init__(self, mixture: nn.Module) -> None:
        super().__init__()
        self.gate: Any = mixture.gate
        self.experts: Any = mixture.experts
        self.called: Any = mixture.num_expert

    def forward(self, features: Tensor, keys: Tensor) -> Tensor:
        """Take two NCHW feature maps, and give one."""
        weights = self.gate(features).softmax(1)
        best = weights.topk(self.called).indices
        numbers = torch.arange(len(self.experts))
        weights = weights * (best[:, :, None] == numbers).any(1)
        for number, expert in enumerate(self.experts):
            weight = weights[:, number, None, None, None]
            features = features + expert(features, keys) * weight
        return features


class HueByChoice(nn.Module):
    """HVI-CIDNet's colours, which it computes by assigning to the pixels of each case in turn.

    How many pixels a case has is known to no graph; choosing among all cases gives the same. It
    keeps from dividing by zero by adding 1e-8, which the exporter takes for adding nothing: here,
    nothing gets smaller than that, which makes a difference of less than 1e-5 to 8-bit images.
    """

    _LEAST = 1e-8

    def __init__(self, colours: nn.Module) -> None:
        super().__init__()
        self.density_k: Any = colours.density_k
        self.saturation = 1.3 if colours.gated else 1.0
        self.gain: Any = colours.alpha if colours.gated2 else 1.0

    def HVIT(self, image: Tensor) -> Tensor:  # noqa: N802  # the network calls it so
        """Turn RGB in [0, 1] into two coordinates of hue and saturation, and the value."""
        red, green, blue = image.unbind(1)
        value, least = image.amax(1), image.amin(1)
        spread = (value - least).clamp(min=self._LEAST)
        hue = 4 + (red - green) / spread
        hue = torch.where(green == value, 2 + (blue - red) / spread, hue)
        hue = torch.where(red == value, (green - blue) / spread % 6, hue)
        angle = torch.where(least == value, 0.0, hue) / 6 * (2 * math.pi)
        saturation = (value - least) / value.clamp(min=self._LEAST)
        radius = self._sensitivity(value) * saturation
        return torch.stack([radius * angle.cos(), radius * angle.sin(), value], 1)

    def PHVIT(self, hvi: Tensor) -> Tensor:  # noqa: N802
        """Turn what HVIT gives back into RGB."""
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
        return (value * (math.pi / 2)).sin().clamp(min=self._LEAST).pow(self.density_k)
