"""What `rewriting` puts in the place of parts of networks: modules, and modes that they run in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from torch import Tensor


class MatrixTransforms(TorchFunctionMode):
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
        return torch.unflatten(product, -1, matrix.shape[-2:])


class DistinctSorts(TorchFunctionMode):
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
        total = features
        for number, expert in enumerate(self.experts):
            total = total + expert(features, keys) * weights[:, number, None, None, None]
        return total


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
