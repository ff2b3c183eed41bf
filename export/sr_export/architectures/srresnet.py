"""SRResNet, the generator of SRGAN, in the layouts of the repositories that people train from.

They differ in names and in the range of their images, not in the network. Each layout is a table
that turns its names into ours, and the ranges that its authors chose.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from spandrel import Architecture, ImageModelDescriptor
from spandrel.util import get_seq_len
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Layout:
    """How one family of repositories names the parts, and what it feeds them."""

    marks: tuple[str, ...]
    """Names that only this layout has."""
    renamed: tuple[tuple[str, str], ...]
    """Patterns of its names, and ours."""
    tanh: bool = False
    """The output is squashed to [-1, 1]."""
    imagenet: bool = False
    """The input is normalised with ImageNet's mean and deviation."""


_BLOCK = ("conv1", "bn1", "act", "conv2", "bn2")


def _numbered(prefix: str, parts: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Return renamings for a residual block whose parts are numbered."""
    return tuple((rf"^{prefix}\.{i}\.", rf"blocks.\1.{part}.") for i, part in enumerate(parts))


LAYOUTS = (
    Layout(  # block1 .. block8, whose first and last are not residual
        marks=("block1.0.weight", "block2.conv1.weight", "block8.0.conv.weight"),
        renamed=(
            (r"^block1\.0\.", "head."),
            (r"^block1\.1\.", "head_act."),
            (r"^residual\.(\d+)\.prelu\.", r"blocks.\1.act."),
            (r"^residual\.(\d+)\.", r"blocks.\1."),
            (r"^tail\.0\.", "body_conv."),
            (r"^tail\.1\.", "body_bn."),
            (r"^block8\.(\d+)\.conv\.", r"up.\1.conv."),
            (r"^block8\.(\d+)\.prelu\.", r"up.\1.act."),
            (r"^block8\.\d+\.", "last."),
        ),
        tanh=True,
    ),
    Layout(
        marks=("conv1.0.weight", "trunk.0.rcb.0.weight", "conv3.weight"),
        renamed=(
            (r"^conv1\.0\.", "head."),
            (r"^conv1\.1\.", "head_act."),
            *_numbered(r"trunk\.(\d+)\.rcb", _BLOCK),
            (r"^conv2\.0\.", "body_conv."),
            (r"^conv2\.1\.", "body_bn."),
            (r"^upsampling\.(\d+)\.upsample_block\.0\.", r"up.\1.conv."),
            (r"^upsampling\.(\d+)\.upsample_block\.2\.", r"up.\1.act."),
            (r"^conv3\.", "last."),
        ),
    ),
    Layout(
        marks=("conv1.0.weight", "res_blocks.0.conv_block.0.weight", "conv3.0.weight"),
        renamed=(
            (r"^conv1\.0\.", "head."),
            (r"^conv1\.1\.", "head_act."),
            *_numbered(r"res_blocks\.(\d+)\.conv_block", _BLOCK),
            (r"^conv2\.0\.", "body_conv."),
            (r"^conv2\.1\.", "body_bn."),
            # Four layers a step: convolution, normalisation, shuffle, activation.
            *(
                (rf"^upsampling\.{4 * step + i}\.", f"up.{step}.{part}.")
                for step in range(3)
                for i, part in ((0, "conv"), (1, "bn"), (3, "act"))
            ),
            (r"^conv3\.0\.", "last."),
        ),
        tanh=True,
    ),
    Layout(
        marks=("conv_block1.conv_block.0.weight", "subpixel_convolutional_blocks.0.conv.weight"),
        renamed=(
            (r"^conv_block1\.conv_block\.0\.", "head."),
            (r"^conv_block1\.conv_block\.1\.", "head_act."),
            (r"^residual_blocks\.(\d+)\.conv_block1\.conv_block\.0\.", r"blocks.\1.conv1."),
            (r"^residual_blocks\.(\d+)\.conv_block1\.conv_block\.1\.", r"blocks.\1.bn1."),
            (r"^residual_blocks\.(\d+)\.conv_block1\.conv_block\.2\.", r"blocks.\1.act."),
            (r"^residual_blocks\.(\d+)\.conv_block2\.conv_block\.0\.", r"blocks.\1.conv2."),
            (r"^residual_blocks\.(\d+)\.conv_block2\.conv_block\.1\.", r"blocks.\1.bn2."),
            (r"^conv_block2\.conv_block\.0\.", "body_conv."),
            (r"^conv_block2\.conv_block\.1\.", "body_bn."),
            (r"^subpixel_convolutional_blocks\.(\d+)\.conv\.", r"up.\1.conv."),
            (r"^subpixel_convolutional_blocks\.(\d+)\.prelu\.", r"up.\1.act."),
            (r"^conv_block3\.conv_block\.0\.", "last."),
        ),
        tanh=True,
        imagenet=True,
    ),
)


class _Block(nn.Module):
    """Convolution, normalisation, activation, convolution, normalisation; added to the input."""

    def __init__(self, features: int, bias: bool, slopes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1, bias=bias)
        self.bn1 = nn.BatchNorm2d(features)
        self.act = nn.PReLU(slopes) if slopes else nn.ReLU()
        self.conv2 = nn.Conv2d(features, features, 3, padding=1, bias=bias)
        self.bn2 = nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bn2(self.conv2(self.act(self.bn1(self.conv1(x)))))


class _Upsample(nn.Module):
    """A convolution and a pixel shuffle by `factor`."""

    def __init__(self, features: int, factor: int, normalised: bool, slopes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(features, features * factor**2, 3, padding=1)
        self.bn = nn.BatchNorm2d(features * factor**2) if normalised else nn.Identity()
        self.shuffle = nn.PixelShuffle(factor)
        self.act = nn.PReLU(slopes) if slopes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.shuffle(self.bn(self.conv(x))))


class SrResNet(nn.Module):
    """The generator of SRGAN, shaped by the weights that it will hold."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: dict[str, Tensor], layout: Layout) -> None:
        super().__init__()
        features, channels, size = weights["head.weight"].shape[:3]

        def slopes(name: str) -> int:
            return weights[name].numel() if name in weights else 0

        self._layout = layout
        self.head = nn.Conv2d(channels, features, size, padding=size // 2)
        self.head_act = (
            nn.PReLU(slopes("head_act.weight")) if slopes("head_act.weight") else nn.ReLU()
        )
        self.blocks = nn.Sequential(
            *(
                _Block(
                    features, f"blocks.{i}.conv1.bias" in weights, slopes(f"blocks.{i}.act.weight")
                )
                for i in range(get_seq_len(weights, "blocks"))
            )
        )
        self.body_conv = nn.Conv2d(
            features, features, 3, padding=1, bias="body_conv.bias" in weights
        )
        self.body_bn = nn.BatchNorm2d(features) if "body_bn.weight" in weights else nn.Identity()
        factors = [
            round((weights[f"up.{i}.conv.weight"].shape[0] / features) ** 0.5)
            for i in range(get_seq_len(weights, "up"))
        ]
        self.scale = int(torch.tensor(factors).prod())
        self.up = nn.Sequential(
            *(
                _Upsample(
                    features, factor, f"up.{i}.bn.weight" in weights, slopes(f"up.{i}.act.weight")
                )
                for i, factor in enumerate(factors)
            )
        )
        size = weights["last.weight"].shape[2]
        self.last = nn.Conv2d(features, channels, size, padding=size // 2)
        for name, values in (("mean", _IMAGENET_MEAN), ("deviation", _IMAGENET_DEVIATION)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self._layout.imagenet:
            x = (x - self.mean) / self.deviation
        first = self.head_act(self.head(x))
        y = self.last(self.up(first + self.body_bn(self.body_conv(self.blocks(first)))))
        return (torch.tanh(y) + 1) / 2 if self._layout.tanh else y


class SrResNetArch(Architecture[SrResNet]):
    """Recognises and builds SRResNet in all of the layouts."""

    def __init__(self) -> None:
        super().__init__(id="SRResNet", detect=lambda weights: _layout_of(weights) is not None)

    def load(self, state_dict: dict[str, Tensor]) -> ImageModelDescriptor[SrResNet]:
        """Build the network that fits the weights."""
        layout = _layout_of(state_dict)
        if layout is None:
            raise ValueError("not an SRResNet")
        weights = _renamed(state_dict, layout)
        model = SrResNet(weights, layout)
        channels = weights["head.weight"].shape[1]
        return ImageModelDescriptor(
            model,
            weights,
            architecture=self,
            purpose="SR",
            tags=[f"{len(model.blocks)}nb"],
            supports_half=True,
            supports_bfloat16=True,
            scale=model.scale,
            input_channels=channels,
            output_channels=channels,
        )


def _layout_of(weights: dict[str, Tensor]) -> Layout | None:
    return next((each for each in LAYOUTS if all(mark in weights for mark in each.marks)), None)


def _renamed(weights: dict[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return the weights under this module's names."""
    renamed = {}
    for name, tensor in _unrolled(weights).items():
        for pattern, replacement in layout.renamed:
            name, count = re.subn(pattern, replacement, name)
            if count:
                break
        renamed[name] = tensor
    return renamed


def _unrolled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Number the residual blocks from 0 where `block2` to `block{N-1}` are residual.

    In that layout only `block{N}`, the convolution after them, tells how many there are.
    """
    if "block2.conv1.weight" not in weights:
        return weights
    last = max(int(m[1]) for name in weights if (m := re.match(r"block(\d+)\.conv1\.", name)))
    renamed = {}
    for name, tensor in weights.items():
        match = re.match(r"block(\d+)\.(.*)", name)
        number = int(match[1]) if match else 0
        if match and 2 <= number <= last:
            name = f"residual.{number - 2}.{match[2]}"
        elif match and number == last + 1:
            name = f"tail.{match[2]}"
        renamed[name] = tensor
    return renamed
