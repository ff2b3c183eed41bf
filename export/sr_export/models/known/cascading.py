"""Networks that pass features on to later stages: CARN, PAN and LapSRN."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from sr_export.models.known.blocks import AddSkip
from sr_export.models.named_arch import BuiltNetwork, NamedArch
from sr_export.models.ranges import Ranges
from sr_export.models.spandrel_import import KeyCondition

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers

# LapSRN and PAN.
_LEAKY = 0.2


class _Cascade(nn.Module):
    """Three steps; a 1x1 convolution fuses the outputs of all steps so far."""

    def __init__(self, steps: list[nn.Module], fuses: list[nn.Conv2d]) -> None:
        super().__init__()
        self.steps, self.fuses = nn.ModuleList(steps), nn.ModuleList(fuses)

    def forward(self, x: Tensor) -> Tensor:
        gathered = x
        for step, fuse in zip(self.steps, self.fuses, strict=True):
            gathered = torch.cat([gathered, step(x)], 1)
            x = F.relu(fuse(gathered))
        return x


def _cascade(named: NamedLayers, prefix: str, steps: list[nn.Module]) -> _Cascade:
    return _Cascade(steps, [named.same(f"{prefix}c{i}.body.0") for i in (1, 2, 3)])


def _carn_block(named: NamedLayers, name: str, width: int) -> nn.Module:
    """Build a cascade of residual blocks; CARN-M repeats one block of grouped convolutions."""
    shared = not named.has_below(f"{name}.b2")
    numbers = (1,) if shared else (1, 2, 3)
    steps = [_carn_residual(named, f"{name}.b{i}.body", width) for i in numbers]
    return _cascade(named, f"{name}.", steps * 3 if shared else steps)


def _carn_residual(named: NamedLayers, name: str, width: int) -> nn.Module:
    parts: list[nn.Module] = [named.same(f"{name}.0", inputs=width)]
    for i in (2, 4):
        if named.has(f"{name}.{i}.weight"):
            parts += [nn.ReLU(), named.same(f"{name}.{i}", inputs=width)]
    return nn.Sequential(AddSkip(*parts), nn.ReLU())


def _carn(named: NamedLayers) -> BuiltNetwork:
    head = named.same("entry")
    width = head.out_channels
    steps = [_carn_block(named, f"b{i}", width) for i in (1, 2, 3)]
    body = _cascade(named, "", steps)
    single = named.has_below("upsample.up")
    trained = [each for each in (4, 3, 2) if named.has_below(f"upsample.up{each}")]
    scale = 0 if single else named.choice("scale", trained)
    name = "upsample.up.body" if single else f"upsample.up{scale}.body"
    tail: list[nn.Module] = []
    total, index = 1, 0
    while named.has(f"{name}.{index}.weight"):
        up = named.same(f"{name}.{index}", inputs=width)
        factor = 3 if up.out_channels == 9 * width else 2
        tail += [up, nn.ReLU(), nn.PixelShuffle(factor)]
        total, index = total * factor, index + 3
    named.skip(*(f"upsample.up{each}" for each in trained))
    parts = (head, body, *tail, named.same("exit"))
    module = nn.Sequential(named.same("sub_mean.shifter"), *parts, named.same("add_mean.shifter"))
    return BuiltNetwork(module, head.in_channels, head.in_channels, total)


class _PixelAttentionBlock(nn.Module):
    """PAN's block: one half convolves, the other weights its pixels."""

    def __init__(self, named: NamedLayers, name: str) -> None:
        super().__init__()
        self.left = named.same(f"{name}.conv1_a")
        self.right = named.same(f"{name}.conv1_b")
        self.convolve = named.same(f"{name}.k1.0")
        self.weigh = named.same(f"{name}.PAConv.k2")
        self.weighed = named.same(f"{name}.PAConv.k3")
        self.behind = named.same(f"{name}.PAConv.k4")
        self.fuse = named.same(f"{name}.conv3")

    def forward(self, x: Tensor) -> Tensor:
        left = self.convolve(F.leaky_relu(self.left(x), _LEAKY))
        right = F.leaky_relu(self.right(x), _LEAKY)
        right = self.behind(self.weighed(right) * torch.sigmoid(self.weigh(right)))
        both = F.leaky_relu(torch.cat([left, right], 1), _LEAKY)
        return x + self.fuse(both)


class _PixelAttention(nn.Module):
    def __init__(self, weigh: nn.Conv2d) -> None:
        super().__init__()
        self.weigh = weigh

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.weigh(x))


class _AddEnlarged(nn.Module):
    """Adds the bilinearly enlarged input."""

    def __init__(self, parts: nn.Module, scale: int) -> None:
        super().__init__()
        self.parts, self.scale = parts, float(scale)

    def forward(self, x: Tensor) -> Tensor:
        enlarged = F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)
        return self.parts(x) + enlarged


def _pan(named: NamedLayers) -> BuiltNetwork:
    head = named.same("conv_first")
    count = named.count("SCPA_trunk.{}")
    blocks = [_PixelAttentionBlock(named, f"SCPA_trunk.{i}") for i in range(count)]
    twice = named.has("upconv2.weight")
    # Nothing in the weights distinguishes a step of 2 from one of 3.
    scale = 4 if twice else named.choice("scale", (2, 3), testable=True)
    tail: list[nn.Module] = []
    for i in (1, 2) if twice else (1,):
        tail += [
            nn.Upsample(scale_factor=2 if twice else scale),
            named.same(f"upconv{i}"),
            _PixelAttention(named.same(f"att{i}.conv")),
            nn.LeakyReLU(_LEAKY),
            named.same(f"HRconv{i}"),
            nn.LeakyReLU(_LEAKY),
        ]
    last = named.same("conv_last")
    body = AddSkip(*blocks, named.same("trunk_conv"))
    module = _AddEnlarged(nn.Sequential(head, body, *tail, last), scale)
    return BuiltNetwork(module, head.in_channels, last.out_channels, scale)


class _Pyramid(nn.Module):
    """LapSRN: each level doubles the features and the image, and adds what the features show."""

    def __init__(
        self, head: nn.Module, levels: list[tuple[nn.Module, nn.Module, nn.Module]]
    ) -> None:
        super().__init__()
        self.head = head
        self.levels = nn.ModuleList(nn.ModuleList(each) for each in levels)

    def forward(self, image: Tensor) -> Tensor:
        features = self.head(image)
        for level in self.levels:
            assert isinstance(level, nn.ModuleList)
            features = level[0](features)
            image = level[1](image) + level[2](features)
        return image


def _lapsrn(named: NamedLayers) -> BuiltNetwork:
    first = named.same("conv_input")
    trained = named.count("convt_F{}", 1)
    scale = named.choice("scale", [2**i for i in range(trained, 0, -1)])
    levels: list[tuple[nn.Module, nn.Module, nn.Module]] = []
    for i in range(1, scale.bit_length()):
        name = f"convt_F{i}.0.cov_block"
        parts: list[nn.Module] = []
        index = 0
        while named.has(f"{name}.{index + 2}.weight"):
            parts += [named.same(f"{name}.{index}"), nn.LeakyReLU(_LEAKY)]
            index += 2
        parts += [named.transposed(f"{name}.{index}"), nn.LeakyReLU(_LEAKY)]
        enlarge, show = named.transposed(f"convt_I{i}"), named.same(f"convt_R{i}")
        levels.append((nn.Sequential(*parts), enlarge, show))
    named.skip(*(f"convt_{part}{i}" for part in "FIR" for i in range(1, trained + 1)))
    module = _Pyramid(nn.Sequential(first, nn.LeakyReLU(_LEAKY)), levels)
    return BuiltNetwork(module, first.in_channels, first.in_channels, scale)


CASCADING = (
    NamedArch(
        "CARN",
        KeyCondition.has_all(
            "entry.weight", "b1.b1.body.0.weight", "b1.c3.body.0.weight", "c3.body.0.weight"
        ),
        _carn,
        Ranges(),
    ),
    NamedArch(
        "PAN",
        KeyCondition.has_all(
            "conv_first.weight",
            "SCPA_trunk.0.PAConv.k2.weight",
            "upconv1.weight",
            "att1.conv.weight",
        ),
        _pan,
        Ranges(),
    ),
    NamedArch(
        "LapSRN",
        KeyCondition.has_all(
            "conv_input.weight",
            "convt_I1.weight",
            "convt_R1.weight",
            "convt_F1.0.cov_block.0.weight",
        ),
        _lapsrn,
        Ranges(),
    ),
)
