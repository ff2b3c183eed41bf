"""Small generators in the layouts of public repositories."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Dcgan(nn.Module):
    """The generator of PyTorch's DCGAN example; each layer doubles the size."""

    def __init__(self, size: int = 10, features: int = 4, channels: int = 3, layers: int = 4):
        super().__init__()
        widths = [size, *(features * 2**i for i in reversed(range(layers - 1))), channels]
        parts: list[nn.Module] = []
        for i in range(layers):
            stride, padding = (1, 0) if i == 0 else (2, 1)
            kernel = nn.ConvTranspose2d(widths[i], widths[i + 1], 4, stride, padding, bias=False)
            last = i == layers - 1
            parts.append(kernel)
            parts += [nn.Tanh()] if last else [nn.BatchNorm2d(widths[i + 1]), nn.ReLU(True)]
        self.main = nn.Sequential(*parts)

    def forward(self, noise: Tensor) -> Tensor:
        return self.main(noise)


class NestedDcgan(nn.Module):
    """A DCGAN in blocks, with a last bias, and leaky activations that weights do not show."""

    def __init__(self, size: int = 10) -> None:
        super().__init__()

        def block(inputs: int, outputs: int, stride: int, padding: int) -> nn.Module:
            kernel = nn.ConvTranspose2d(inputs, outputs, 4, stride, padding, bias=False)
            return nn.Sequential(kernel, nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))

        last = nn.ConvTranspose2d(8, 1, 4, 2, 1)
        self.net = nn.Sequential(block(size, 16, 1, 0), block(16, 8, 2, 1), last, nn.Sigmoid())

    def forward(self, noise: Tensor) -> Tensor:
        return self.net(noise)


class Discriminator(nn.Module):
    """The discriminator of a DCGAN, whose layer names resemble the generator's."""

    def __init__(self, features: int = 4) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(3, features, 4, 2, 1, bias=False),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(features, 2 * features, 4, 2, 1, bias=False),
            nn.BatchNorm2d(2 * features),
            nn.LeakyReLU(0.2, True),
            nn.Conv2d(2 * features, 1, 4, 1, 0, bias=False),
            nn.Sigmoid(),
        )


class Repeating(nn.Module):
    """A fully connected layer, upsampling by repetition, and convolutions; takes (N, size)."""

    def __init__(self, size: int = 12) -> None:
        super().__init__()
        self.first = nn.Linear(size, 8 * 4 * 4)
        self.body = nn.Sequential(
            nn.BatchNorm2d(8),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(),
            nn.Upsample(scale_factor=2),
            nn.Conv2d(8, 3, 3, padding=1),
            nn.Tanh(),
        )

    def forward(self, noise: Tensor) -> Tensor:
        return self.body(self.first(noise).view(-1, 8, 4, 4))


def trained(module: nn.Module, size: int) -> nn.Module:
    """Return a module in eval mode, with weights and statistics as after training."""
    torch.manual_seed(0)
    for name, each in module.named_parameters():
        nn.init.normal_(each, 1.0 if each.ndim == 1 and name.endswith("weight") else 0.0, 0.2)
    shape = (64, size) if isinstance(module, Repeating) else (64, size, 1, 1)
    with torch.no_grad():
        for _ in range(50):
            module(torch.randn(shape))
    return module.eval()


class Noisy(Repeating):
    """Draws noise itself, as StyleGAN does."""

    def forward(self, noise: Tensor) -> Tensor:
        images = super().forward(noise)
        return images + torch.randn_like(images)
