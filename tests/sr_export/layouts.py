"""Residual networks in the layouts of public repositories, written anew from their papers."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FEATURES, BLOCKS = 8, 2


def _residual(names: tuple[str, ...] | None = None) -> nn.Module:
    parts = [
        nn.Conv2d(FEATURES, FEATURES, 3, padding=1),
        nn.BatchNorm2d(FEATURES),
        nn.PReLU(),
        nn.Conv2d(FEATURES, FEATURES, 3, padding=1),
        nn.BatchNorm2d(FEATURES),
    ]
    if names is None:
        return nn.Sequential(*parts)
    return nn.ModuleDict(dict(zip(names, parts, strict=True)))


def _parts(block: nn.Module) -> list[nn.Module]:
    return list(block.values()) if isinstance(block, nn.ModuleDict) else list(block.children())


def _through(x: Tensor, parts: list[nn.Module]) -> Tensor:
    for part in parts:
        x = part(x)
    return x


class NumberedBlocks(nn.Module):
    """block1: head; block2 and block3: residual; block4: after them; block8: upsampling."""

    def __init__(self) -> None:
        super().__init__()
        names = ("conv1", "bn1", "prelu", "conv2", "bn2")
        self.block1 = nn.Sequential(nn.Conv2d(3, FEATURES, 9, padding=4), nn.PReLU())
        self.block2, self.block3 = _residual(names), _residual(names)
        self.block4 = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.BatchNorm2d(FEATURES)
        )
        enlarge = [
            nn.ModuleDict(
                {"conv": nn.Conv2d(FEATURES, FEATURES * 4, 3, padding=1), "prelu": nn.PReLU()}
            )
            for _ in range(2)
        ]
        self.block8 = nn.Sequential(*enlarge, nn.Conv2d(FEATURES, 3, 9, padding=4))

    def forward(self, x: Tensor) -> Tensor:
        first = self.block1(x)
        y = first
        for block in (self.block2, self.block3):
            y = y + _through(y, _parts(block))
        y = first + self.block4(y)
        for step in list(self.block8)[:2]:
            y = step["prelu"](F.pixel_shuffle(step["conv"](y), 2))
        return torch.tanh(self.block8[2](y))


class Trunk(nn.Module):
    """conv1, trunk of rcb blocks, conv2, upsampling of upsample_block, conv3."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, FEATURES, 9, padding=4), nn.PReLU())
        self.trunk = nn.Sequential(*(nn.ModuleDict({"rcb": _residual()}) for _ in range(BLOCKS)))
        self.conv2 = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1, bias=False), nn.BatchNorm2d(FEATURES)
        )
        self.upsampling = nn.Sequential(
            nn.ModuleDict(
                {
                    "upsample_block": nn.Sequential(
                        nn.Conv2d(FEATURES, FEATURES * 4, 3, padding=1),
                        nn.PixelShuffle(2),
                        nn.PReLU(),
                    )
                }
            )
        )
        self.conv3 = nn.Conv2d(FEATURES, 3, 9, padding=4)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        y = first
        for block in self.trunk:
            y = y + block["rcb"](y)
        y = first + self.conv2(y)
        return self.conv3(self.upsampling[0]["upsample_block"](y))


class NormalizedUpsampling(nn.Module):
    """res_blocks of conv_block; upsampling steps of four layers, with normalization; tanh."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(nn.Conv2d(3, FEATURES, 9, padding=4), nn.PReLU())
        self.res_blocks = nn.Sequential(
            *(nn.ModuleDict({"conv_block": _residual()}) for _ in range(BLOCKS))
        )
        self.conv2 = nn.Sequential(
            nn.Conv2d(FEATURES, FEATURES, 3, padding=1), nn.BatchNorm2d(FEATURES)
        )
        steps: list[nn.Module] = []
        for _ in range(2):
            steps += [
                nn.Conv2d(FEATURES, FEATURES * 4, 3, padding=1),
                nn.BatchNorm2d(FEATURES * 4),
                nn.PixelShuffle(2),
                nn.PReLU(),
            ]
        self.upsampling = nn.Sequential(*steps)
        self.conv3 = nn.Sequential(nn.Conv2d(FEATURES, 3, 9, padding=4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv1(x)
        y = first
        for block in self.res_blocks:
            y = y + block["conv_block"](y)
        return self.conv3(self.upsampling(first + self.conv2(y)))


class NestedBlocks(nn.Module):
    """Everything in conv_block; tanh."""

    def __init__(self) -> None:
        super().__init__()

        def block(*parts: nn.Module) -> nn.Module:
            return nn.ModuleDict({"conv_block": nn.Sequential(*parts)})

        def convolution(size: int = 3) -> nn.Module:
            return nn.Conv2d(FEATURES, FEATURES, size, padding=size // 2)

        self.conv_block1 = block(nn.Conv2d(3, FEATURES, 9, padding=4), nn.PReLU())
        self.residual_blocks = nn.Sequential(
            *(
                nn.ModuleDict(
                    {
                        "conv_block1": block(convolution(), nn.BatchNorm2d(FEATURES), nn.PReLU()),
                        "conv_block2": block(convolution(), nn.BatchNorm2d(FEATURES)),
                    }
                )
                for _ in range(BLOCKS)
            )
        )
        self.conv_block2 = block(convolution(), nn.BatchNorm2d(FEATURES))
        self.subpixel_convolutional_blocks = nn.Sequential(
            nn.ModuleDict(
                {"conv": nn.Conv2d(FEATURES, FEATURES * 4, 3, padding=1), "prelu": nn.PReLU()}
            )
        )
        self.conv_block3 = block(nn.Conv2d(FEATURES, 3, 9, padding=4), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_block1["conv_block"](x)
        y = first
        for each in self.residual_blocks:
            inner = each["conv_block2"]["conv_block"](each["conv_block1"]["conv_block"](y))
            y = y + inner
        y = first + self.conv_block2["conv_block"](y)
        step = self.subpixel_convolutional_blocks[0]
        y = step["prelu"](F.pixel_shuffle(step["conv"](y), 2))
        return self.conv_block3["conv_block"](y)


class Edsr(nn.Module):
    """The authors' layout: sub_mean, head, body, tail, add_mean; values in [0, 255]."""

    def __init__(self) -> None:
        super().__init__()

        def convolution(out: int = FEATURES) -> nn.Module:
            return nn.Conv2d(FEATURES, out, 3, padding=1)

        self.sub_mean, self.add_mean = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        for shift, sign in ((self.sub_mean, -1), (self.add_mean, 1)):
            shift.weight.data = torch.eye(3).view(3, 3, 1, 1)
            shift.bias.data = sign * 255 * torch.tensor([0.4488, 0.4371, 0.4040])
            shift.requires_grad_(False)
        self.head = nn.Sequential(nn.Conv2d(3, FEATURES, 3, padding=1))
        blocks = [
            nn.ModuleDict({"body": nn.Sequential(convolution(), nn.ReLU(), convolution())})
            for _ in range(BLOCKS)
        ]
        self.body = nn.Sequential(*blocks, convolution())
        self.tail = nn.Sequential(
            nn.Sequential(
                convolution(FEATURES * 4),
                nn.PixelShuffle(2),
                convolution(FEATURES * 4),
                nn.PixelShuffle(2),
            ),
            nn.Conv2d(FEATURES, 3, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        first = self.head(self.sub_mean(x))
        y = first
        for block in list(self.body)[:BLOCKS]:
            y = y + block["body"](y)
        return self.add_mean(self.tail(first + self.body[BLOCKS](y)))


class MsrResNet(nn.Module):
    """conv_first, body, upconv1, upconv2, conv_hr, conv_last, and a bilinear skip."""

    def __init__(self) -> None:
        super().__init__()

        def convolution(out: int = FEATURES) -> nn.Module:
            return nn.Conv2d(FEATURES, out, 3, padding=1)

        self.conv_first = nn.Conv2d(3, FEATURES, 3, padding=1)
        self.body = nn.Sequential(
            *(
                nn.ModuleDict({"conv1": convolution(), "conv2": convolution()})
                for _ in range(BLOCKS)
            )
        )
        self.upconv1, self.upconv2 = convolution(FEATURES * 4), convolution(FEATURES * 4)
        self.conv_hr, self.conv_last = convolution(), convolution(3)

    def forward(self, x: Tensor) -> Tensor:
        def relu(y: Tensor) -> Tensor:
            return F.leaky_relu(y, 0.1)

        y = relu(self.conv_first(x))
        for block in self.body:
            y = y + block["conv2"](F.relu(block["conv1"](y)))
        y = relu(F.pixel_shuffle(self.upconv1(y), 2))
        y = relu(F.pixel_shuffle(self.upconv2(y), 2))
        base = F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)
        return self.conv_last(relu(self.conv_hr(y))) + base
