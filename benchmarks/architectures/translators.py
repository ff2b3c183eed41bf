"""Small image-to-image translators with the layout of public repositories, reimplemented."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Norm = Callable[[int], nn.Module]


class UNetLevel(nn.Module):
    """One level of the U-Net of pix2pix, which contains the inner levels."""

    def __init__(
        self,
        outer: int,
        inner: int,
        submodule: nn.Module | None,
        norm: Norm,
        *,
        image: int | None = None,
        dropout: bool = False,
    ) -> None:
        super().__init__()
        self.outermost = image is not None
        biased = norm is nn.InstanceNorm2d
        down = nn.Conv2d(image or outer, inner, 4, 2, 1, bias=biased)
        width = inner if submodule is None else 2 * inner
        up = nn.ConvTranspose2d(width, image or outer, 4, 2, 1, bias=biased or self.outermost)
        if self.outermost:
            assert submodule is not None
            parts = [down, submodule, nn.ReLU(True), up, nn.Tanh()]
        elif submodule is None:
            parts = [nn.LeakyReLU(0.2, True), down, nn.ReLU(True), up, norm(outer)]
        else:
            before = [nn.LeakyReLU(0.2, True), down, norm(inner)]
            parts = [*before, submodule, nn.ReLU(True), up, norm(outer)]
            parts += [nn.Dropout(0.5)] if dropout else []
        self.model = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """Concatenate the input with the output of the level."""
        return self.model(x) if self.outermost else torch.cat([x, self.model(x)], 1)


class Pix2PixUNet(nn.Module):
    """The U-Net of pix2pix."""

    def __init__(
        self, levels: int = 5, features: int = 4, channels: int = 3, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        level = UNetLevel(8 * features, 8 * features, None, norm)
        for _ in range(levels - 5):
            level = UNetLevel(8 * features, 8 * features, level, norm, dropout=True)
        for factor in (4, 2, 1):
            level = UNetLevel(factor * features, 2 * factor * features, level, norm)
        self.model = UNetLevel(features, features, level, norm, image=channels)

    def forward(self, x: Tensor) -> Tensor:
        """Translate."""
        return self.model(x)


class ResnetBlock(nn.Module):
    """Two convolutions with a skip connection."""

    def __init__(self, features: int, norm: Norm, *, dropout: bool, reflected: bool) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for last in (False, True):
            parts += [nn.ReflectionPad2d(1)] if reflected else []
            biased = norm is nn.InstanceNorm2d
            padding = 0 if reflected else 1
            parts += [nn.Conv2d(features, features, 3, 1, padding, bias=biased), norm(features)]
            parts += [] if last else [nn.ReLU(True), *([nn.Dropout(0.5)] if dropout else [])]
        self.conv_block = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """Add the output to the input."""
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """The generator of CycleGAN."""

    def __init__(
        self,
        blocks: int = 2,
        features: int = 4,
        norm: Norm = nn.InstanceNorm2d,
        *,
        dropout: bool = False,
        reflected: bool = True,
    ) -> None:
        super().__init__()
        biased = norm is nn.InstanceNorm2d
        head = nn.Conv2d(3, features, 7, bias=biased)
        parts: list[nn.Module] = [nn.ReflectionPad2d(3), head, norm(features), nn.ReLU(True)]
        for width in (features, 2 * features):
            down = nn.Conv2d(width, 2 * width, 3, 2, 1, bias=biased)
            parts += [down, norm(2 * width), nn.ReLU(True)]
        for _ in range(blocks):
            parts.append(ResnetBlock(4 * features, norm, dropout=dropout, reflected=reflected))
        for width in (4 * features, 2 * features):
            up = nn.ConvTranspose2d(width, width // 2, 3, 2, 1, output_padding=1, bias=biased)
            parts += [up, norm(width // 2), nn.ReLU(True)]
        parts += [nn.ReflectionPad2d(3), nn.Conv2d(features, 3, 7), nn.Tanh()]
        self.model = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        """Translate."""
        return self.model(x)


class ReflectedConv(nn.Module):
    """A convolution with reflection padding, optionally after nearest-neighbor upsampling."""

    def __init__(
        self, inputs: int, outputs: int, size: int, stride: int = 1, enlarged: int = 1
    ) -> None:
        super().__init__()
        self.enlarged = enlarged
        self.reflection_pad = nn.ReflectionPad2d(size // 2)
        self.conv2d = nn.Conv2d(inputs, outputs, size, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Upsample, pad and convolve."""
        if self.enlarged > 1:
            x = functional.interpolate(x, mode="nearest", scale_factor=self.enlarged)
        return self.conv2d(self.reflection_pad(x))


class StyleBlock(nn.Module):
    """A residual block with instance norm."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1 = ReflectedConv(features, features, 3)
        self.in1 = nn.InstanceNorm2d(features, affine=True)
        self.conv2 = ReflectedConv(features, features, 3)
        self.in2 = nn.InstanceNorm2d(features, affine=True)

    def forward(self, x: Tensor) -> Tensor:
        """Add the output to the features."""
        return x + self.in2(self.conv2(torch.relu(self.in1(self.conv1(x)))))


class TransformerNet(nn.Module):
    """The style transfer network of PyTorch's examples; images range from 0 to 255."""

    def __init__(self, features: int = 4, blocks: int = 2) -> None:
        super().__init__()
        widths = [3, features, 2 * features, 4 * features]
        for i, (inputs, outputs) in enumerate(itertools.pairwise(widths), 1):
            size, stride = (9, 1) if i == 1 else (3, 2)
            self.add_module(f"conv{i}", ReflectedConv(inputs, outputs, size, stride))
            self.add_module(f"in{i}", nn.InstanceNorm2d(outputs, affine=True))
        self.blocks = blocks
        for i in range(blocks):
            self.add_module(f"res{i + 1}", StyleBlock(4 * features))
        self.deconv1 = ReflectedConv(4 * features, 2 * features, 3, enlarged=2)
        self.in4 = nn.InstanceNorm2d(2 * features, affine=True)
        self.deconv2 = ReflectedConv(2 * features, features, 3, enlarged=2)
        self.in5 = nn.InstanceNorm2d(features, affine=True)
        self.deconv3 = ReflectedConv(features, 3, 9)

    def forward(self, x: Tensor) -> Tensor:
        """Transfer the style."""
        for i in (1, 2, 3):
            x = torch.relu(getattr(self, f"in{i}")(getattr(self, f"conv{i}")(x)))
        for i in range(self.blocks):
            x = getattr(self, f"res{i + 1}")(x)
        x = torch.relu(self.in4(self.deconv1(x)))
        x = torch.relu(self.in5(self.deconv2(x)))
        return self.deconv3(x)


class SelfAttention(nn.Module):
    """Self-attention over all positions, as in SAGAN."""

    def __init__(self, features: int) -> None:
        super().__init__()
        spectral = nn.utils.parametrizations.spectral_norm
        self.query = spectral(nn.Conv2d(features, features // 4, 1))
        self.key = spectral(nn.Conv2d(features, features // 4, 1))
        self.value = spectral(nn.Conv2d(features, features, 1))
        self.gamma = nn.Parameter(torch.full((1,), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        """Add the attended values."""
        batch, channels, height, width = x.shape
        query, key, value = (
            layer(x).view(batch, -1, height * width) for layer in (self.query, self.key, self.value)
        )
        attention = torch.softmax(torch.bmm(query.transpose(1, 2), key), dim=-1)
        seen = torch.bmm(value, attention.transpose(1, 2))
        return x + self.gamma * seen.view(batch, channels, height, width)


class AttentiveTranslator(nn.Module):
    """An encoder, self-attention at 1/8 of the size and a decoder, in a layout of our own."""

    def __init__(self, features: int = 8) -> None:
        super().__init__()
        widths = [3, features, 2 * features, 2 * features]
        self.encoder = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(a, b, 4, 2, 1), nn.InstanceNorm2d(b), nn.LeakyReLU(0.2))
                for a, b in itertools.pairwise(widths)
            )
        )
        self.attention = SelfAttention(2 * features)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(2 * features, 2 * features, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * features, features, 4, 2, 1),
            nn.ReLU(),
            nn.ConvTranspose2d(features, 3, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Translate."""
        return self.decoder(self.attention(self.encoder(x)))
