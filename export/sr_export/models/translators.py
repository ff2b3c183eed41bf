"""Image-to-image translators, recognized by the tensor names of well-known repositories.

Two come from pytorch-CycleGAN-and-pix2pix: its U-Net and its ResNet generator. The third is the
style transfer network of PyTorch's examples. All preserve the image size. Normalization, padding
and dropout are inferred from the names and shapes of the weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import BYTES, SIGNED, Ranges
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

_UNET = "model.model"


class _ConcatSkip(nn.Module):
    """Concatenates the input and the output of its parts."""

    def __init__(self, parts: nn.Module) -> None:
        super().__init__()
        self.parts = parts

    def forward(self, image: Tensor) -> Tensor:
        return torch.cat([image, self.parts(image)], 1)


class _AddSkip(nn.Module):
    """Adds the input to the output of its parts."""

    def __init__(self, *parts: nn.Module) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, image: Tensor) -> Tensor:
        return image + self.parts(image)


def _unet(named: NamedLayers) -> BuiltNetwork:
    """Build pix2pix's U-Net: each level contains the next one, at half the size.

    The dropout of inner levels has no weights, and no effect in eval mode.
    """
    depth = 1
    while named.has(f"{_inside(depth)}.1.weight"):
        depth += 1
    down, up = named.convolution(f"{_UNET}.0", 2, 1), named.transposed(f"{_UNET}.3")
    module = nn.Sequential(down, _level(named, 1, depth - 1), nn.ReLU(), up, nn.Tanh())
    return BuiltNetwork(module, down.in_channels, up.out_channels, grid=2**depth)


def _inside(level: int) -> str:
    """Return the name of a level; the outermost is 0."""
    steps = ["1", *["3"] * (level - 1)][:level]
    return ".".join([_UNET, *(f"{step}.model" for step in steps)])


def _level(named: NamedLayers, level: int, last: int) -> nn.Module:
    name = _inside(level)
    down = named.convolution(f"{name}.1", 2, 1)
    if level == last:
        inner: list[nn.Module] = []
        up, norm = named.transposed(f"{name}.3"), f"{name}.4"
    else:
        inner = [named.norm(f"{name}.2", down), _level(named, level + 1, last)]
        up, norm = named.transposed(f"{name}.5"), f"{name}.6"
    parts = [nn.LeakyReLU(0.2), down, *inner, nn.ReLU(), up, named.norm(norm, up)]
    return _ConcatSkip(nn.Sequential(*parts))


def _resnet(named: NamedLayers) -> BuiltNetwork:
    """Build CycleGAN's generator: downsampling, residual blocks, upsampling."""
    head = named.convolution("model.1")
    parts: list[nn.Module] = [nn.ReflectionPad2d(head.kernel_size[0] // 2), head]
    parts += [named.norm("model.2", head), nn.ReLU()]
    index, downsamplings = 4, 0
    while named.has(f"model.{index}.weight"):
        down = named.convolution(f"model.{index}", 2, 1)
        parts += [down, named.norm(f"model.{index + 1}", down), nn.ReLU()]
        index, downsamplings = index + 3, downsamplings + 1
    while named.has_below(f"model.{index}.conv_block"):
        parts.append(_block(named, f"model.{index}.conv_block"))
        index += 1
    for _ in range(downsamplings):
        up = named.transposed(f"model.{index}")
        parts += [up, named.norm(f"model.{index + 1}", up), nn.ReLU()]
        index += 3
    tail = named.convolution(f"model.{index + 1}")
    parts += [nn.ReflectionPad2d(tail.kernel_size[0] // 2), tail, nn.Tanh()]
    return BuiltNetwork(
        nn.Sequential(*parts), head.in_channels, tail.out_channels, grid=2**downsamplings
    )


def _block(named: NamedLayers, name: str) -> nn.Module:
    """Build a residual block; the indices of its convolutions reveal layers without weights."""
    first = 1 if named.has(f"{name}.1.weight", kernel=True) else 0  # 1 behind a padding layer
    others = (i for i in range(first + 3, 7) if named.has(f"{name}.{i}.weight", kernel=True))
    second = next(others, first)
    parts: list[nn.Module] = []
    for index in (first, second):
        padding = 0 if first else 1
        convolution = named.convolution(f"{name}.{index}", 1, padding)
        parts += [nn.ReflectionPad2d(1)] if first else []
        parts += [convolution, named.norm(f"{name}.{index + 1}", convolution), nn.ReLU()]
    return _AddSkip(*parts[:-1])


def _style_transfer(named: NamedLayers) -> BuiltNetwork:
    """Build the style transfer network of PyTorch's examples, with instance norm throughout."""
    parts: list[nn.Module] = []
    for i in (1, 2, 3):
        parts += [*_normalized(named, f"conv{i}", f"in{i}", stride=min(i, 2)), nn.ReLU()]
    index = 1
    while named.has_below(f"res{index}"):
        one, two = (_normalized(named, f"res{index}.conv{i}", f"res{index}.in{i}") for i in (1, 2))
        parts.append(_AddSkip(*one, nn.ReLU(), *two))
        index += 1
    for i in (1, 2):
        enlarged = _normalized(named, f"deconv{i}", f"in{i + 3}")
        parts += [nn.Upsample(scale_factor=2), *enlarged, nn.ReLU()]
    padding, tail = _padded(named, "deconv3")
    inputs = named.shape("conv1.conv2d.weight")[1]
    return BuiltNetwork(nn.Sequential(*parts, padding, tail), inputs, tail.out_channels, grid=4)


def _padded(named: NamedLayers, name: str, stride: int = 1) -> tuple[nn.Module, nn.Conv2d]:
    convolution = named.convolution(f"{name}.conv2d", stride)
    return nn.ReflectionPad2d(convolution.kernel_size[0] // 2), convolution


def _normalized(named: NamedLayers, name: str, norm: str, stride: int = 1) -> tuple[nn.Module, ...]:
    padding, convolution = _padded(named, name, stride)
    return padding, convolution, named.instance_norm(norm, convolution.out_channels)


UNET = NamedArch(
    "Pix2PixUNet",
    KeyCondition.has_all(
        f"{_UNET}.0.weight", f"{_UNET}.3.weight", f"{_UNET}.3.bias", f"{_inside(1)}.1.weight"
    ),
    _unet,
    Ranges(input=SIGNED, output=SIGNED),
)
RESNET = NamedArch(
    "CycleGANResNet",
    KeyCondition.has_all(
        "model.1.weight",
        "model.4.weight",
        KeyCondition.has_any(
            *(f"model.{i}.conv_block.{j}.weight" for i in (7, 10, 13) for j in (0, 1))
        ),
    ),
    _resnet,
    Ranges(input=SIGNED, output=SIGNED),
)
STYLE = NamedArch(
    "FastNeuralStyle",
    KeyCondition.has_all(
        "conv1.conv2d.weight",
        "in1.weight",
        "res1.conv1.conv2d.weight",
        "deconv1.conv2d.weight",
        "deconv3.conv2d.weight",
    ),
    _style_transfer,
    Ranges(input=BYTES, output=BYTES),
)
TRANSLATORS = (UNET, RESNET, STYLE)
