"""Small networks for the exporter's tests, each with one special property."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sr_export.models.network import Network


class Convolutions(nn.Module):
    """Three 3x3 convolutions and a pixel shuffle: halo 3."""

    def __init__(self, channels: int = 3, scale: int = 2) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.PReLU(8),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.LeakyReLU(0.1),
            nn.Conv2d(8, channels * scale**2, 3, padding=1),
            nn.PixelShuffle(scale),
        )

    def forward(self, image: Tensor) -> Tensor:
        return self.body(image)


class Attended(nn.Module):
    """Convolutions weighted by the mean of the whole image: a global halo."""

    def __init__(self) -> None:
        super().__init__()
        self.convolutions = Convolutions()
        self.weights = nn.Conv2d(3, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        weights = torch.sigmoid(self.weights(image.mean((2, 3), keepdim=True)))
        return self.convolutions(image) * weights


class Windowed(nn.Module):
    """Mixes pixels in 4x4 windows, and folds the batch into them, as SwinIR does."""

    def __init__(self) -> None:
        super().__init__()
        self.window_size = 4
        self.mix = nn.Linear(16, 16)

    def forward(self, image: Tensor) -> Tensor:
        size = self.window_size
        batch, channels, height, width = image.shape
        if height % size or width % size:  # a branch that the exporter freezes
            image = F.pad(image, (0, -width % size, 0, -height % size), "reflect")
        rows, columns = image.shape[2] // size, image.shape[3] // size
        windows = image.view(batch, channels, rows, size, columns, size).permute(0, 2, 4, 1, 3, 5)
        windows = self.mix(windows.reshape(-1, channels, size * size))
        windows = windows.view(batch, rows, columns, channels, size, size)
        mixed = windows.permute(0, 3, 1, 4, 2, 5).reshape(image.shape)
        return mixed[..., :height, :width]


def network(module: nn.Module, scale: int = 2, channels: int = 3, grid: int = 1) -> Network:
    """Return the exporter's description of a module."""
    return Network(
        module.eval(), "test", scale, channels, grid=grid, windowed=hasattr(module, "window_size")
    )
