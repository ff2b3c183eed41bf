"""The one module that all families of plain networks are: stages, some of them residual."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from sr_export.models.arch_settings import slope

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.arch_settings import ArchSettings
    from sr_export.models.layers import Stage
    from sr_export.models.topology import Parts

# What DIV2K's images are on average, which EDSR takes off.
_DIV2K_MEAN = (0.4488, 0.4371, 0.4040)


class Plain(nn.Module):
    """A plain network with the weights of its chain."""

    mean: Tensor

    def __init__(self, parts: Parts, settings: ArchSettings) -> None:
        super().__init__()
        maker = _Maker(parts, settings)
        before, behind = (
            settings.activation if told or not parts.blocks else "none"
            for told in (settings.head_activation, settings.tail_activation)
        )
        skip, last = parts.before_skip(settings), len(parts.tail) - 1
        head = [maker.unit(each, before) for each in parts.head]
        body: list[nn.Module] = [_Block(block, maker) for block in parts.blocks]
        body += [maker.unit(parts.tail[i], behind if i < skip - 1 else "none") for i in range(skip)]
        tail = [
            maker.unit(
                parts.tail[i],
                behind if i < last else "none",
                enlarged=parts.enlargement(i, settings),
            )
            for i in range(skip, last + 1)
        ]
        self.settings = settings
        self.head, self.body, self.tail = (nn.Sequential(*each) for each in (head, body, tail))
        self.shifts = nn.ModuleList(maker.kernel(stage) for stage in parts.chain.shifts)
        black, white = settings.ranges.input
        mean = torch.tensor(_DIV2K_MEAN if settings.mean == "div2k" else (0.0,))
        mean = mean.view(1, -1, 1, 1) * (white - black) + black
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return ended(self.inner(image), image, self.settings)

    def inner(self, image: Tensor) -> Tensor:
        """Return what the stages give, before the last activation and the global residual."""
        shifted = self.settings.mean != "none"
        x = image - self.mean if shifted else image
        first = self.head(self.shifts[0](x) if self.shifts else x)
        y = self.body(first)
        y = self.tail(y + first if self.settings.long_skip else y)
        y = self.shifts[1](y) if self.shifts else y
        return y + self.mean if shifted else y


def ended(y: Tensor, image: Tensor, settings: ArchSettings) -> Tensor:
    """Return what a network gives, of what its stages give and of the image that went in."""
    if settings.final != "none":
        y = torch.tanh(y) if settings.final == "tanh" else torch.sigmoid(y)
    if settings.residual == "none":
        return y
    return base(image, settings) + (-y if settings.residual == "subtract" else y)


def base(image: Tensor, settings: ArchSettings) -> Tensor:
    """Return what a network with a global residual adds its own output to."""
    mode = settings.residual
    if mode in ("add", "subtract"):
        return image
    aligned = None if mode == "nearest" else False
    return F.interpolate(image, scale_factor=settings.scale, mode=mode, align_corners=aligned)


class _Block(nn.Module):
    """Stages with activations in between, added to what goes in."""

    def __init__(self, stages: tuple[Stage, ...], maker: _Maker) -> None:
        super().__init__()
        *inner, last = stages
        self.inner = nn.Sequential(
            *(maker.unit(stage, maker.inside) for stage in inner),
            maker.unit(last, "none"),
        )
        self._scale = maker.settings.residual_scale

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(x)
        return x + (inner if self._scale == 1 else inner * self._scale)


class _Maker:
    """Makes torch's modules of stages."""

    def __init__(self, parts: Parts, settings: ArchSettings) -> None:
        self.settings = settings
        told = settings.block_activation
        self.inside = settings.activation if told == "same" else told
        self._halvings = parts.halvings(settings)
        self._stride = parts.stride(settings) or 1

    def unit(self, stage: Stage, activation: str, enlarged: int = 1) -> nn.Module:
        """Return a stage with all that belongs to it."""
        before: list[nn.Module] = [nn.Upsample(scale_factor=enlarged)] if enlarged > 1 else []
        before.append(self.kernel(stage))
        after: list[nn.Module] = [nn.PixelShuffle(stage.shuffle)] if stage.shuffle > 1 else []
        if stage.norm is not None:
            norm = _norm(stage.norm, self.settings.eps)
            (before if norm.num_features == stage.outputs else after).append(norm)
        if stage.slopes is not None:
            act = _filled(nn.PReLU(stage.slopes.numel()), {"weight": stage.slopes})
            (before if stage.slopes.numel() == stage.outputs else after).append(act)
        else:
            after += _activation(activation)
        return nn.Sequential(*before, *after)

    def kernel(self, stage: Stage) -> nn.Module:
        """Return a stage's convolution."""
        tensors = {"weight": stage.weight}
        if stage.bias is not None:
            tensors["bias"] = stage.bias
        shape = (stage.inputs, stage.outputs, stage.size)
        bias = stage.bias is not None
        if stage.transposed:
            padding, rest = self._padding(stage.size)
            return _filled(
                nn.ConvTranspose2d(*shape, self._stride, padding, rest, bias=bias, device="meta"),
                tensors,
            )
        halves = any(stage is each for each in self._halvings)
        return _filled(
            nn.Conv2d(
                *shape,
                stride=2 if halves else 1,
                padding=(stage.size - 1) // 2,
                bias=bias,
                padding_mode=self.settings.padding,
                device="meta",
            ),
            tensors,
        )

    def _padding(self, size: int) -> tuple[int, int]:
        """Return what makes a transposed convolution enlarge by its stride, no more and no less.

        That leaves a choice, which moves the image by a pixel.
        """
        missing = size - self._stride
        padding = (size - 1) // 2 if self.settings.output_padding else (missing + 1) // 2
        return padding, 2 * padding - missing


def _norm(tensors: dict[str, Tensor], eps: float) -> nn.BatchNorm2d:
    mean = tensors["running_mean"]
    norm = nn.BatchNorm2d(mean.numel(), eps, affine="weight" in tensors, device="meta")
    _filled(norm, tensors | {"num_batches_tracked": torch.tensor(0)})
    return norm


def _filled(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(tensors, assign=True)
    return module


def _activation(name: str) -> list[nn.Module]:
    leak = slope(name)
    if leak is not None:
        return [nn.LeakyReLU(leak)]
    known: dict[str, list[nn.Module]] = {"relu": [nn.ReLU()], "tanh": [nn.Tanh()], "none": []}
    return known[name]
