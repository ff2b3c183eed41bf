"""The module that all plain families share."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.arch_settings import ArchSettings
    from sr_export.models.layer_chain import Stage
    from sr_export.models.topology import Topology

# Mean of the DIV2K images, which EDSR subtracts.
_DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
_LEAKY = re.compile(r"leaky(0?\.\d+)")


def slope(activation: str) -> float | None:
    """Return the slope of a leaky ReLU, or None for any other activation."""
    match = _LEAKY.fullmatch(activation)
    return float(match[1]) if match else None


class PlainNetwork(nn.Module):
    """The module of every plain family: the stages of a chain, some of them residual."""

    mean: Tensor

    def __init__(self, topology: Topology, settings: ArchSettings) -> None:
        super().__init__()
        builder = _StageBuilder(topology, settings)
        before, behind = (
            settings.activation if active or not topology.blocks else "none"
            for active in (settings.head_activation, settings.tail_activation)
        )
        skip, last = topology.before_skip(settings), len(topology.tail) - 1
        head = [builder.unit(each, before) for each in topology.head]
        body: list[nn.Module] = [_Block(block, builder) for block in topology.blocks]
        body += [
            builder.unit(topology.tail[i], behind if i < skip - 1 else "none") for i in range(skip)
        ]
        tail = [
            builder.unit(
                topology.tail[i],
                behind if i < last else "none",
                upsampling=topology.upsampling_before(i, settings),
            )
            for i in range(skip, last + 1)
        ]
        self.settings = settings
        self.head, self.body, self.tail = (nn.Sequential(*each) for each in (head, body, tail))
        self.shifts = nn.ModuleList(builder.kernel(stage) for stage in topology.chain.shifts)
        black, white = settings.ranges.input
        mean = torch.tensor(_DIV2K_MEAN if settings.mean == "div2k" else (0.0,))
        mean = mean.view(1, -1, 1, 1) * (white - black) + black
        self.register_buffer("mean", mean, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return finish(self.inner(image), image, self.settings)

    def inner(self, image: Tensor) -> Tensor:
        """Run the stages, without the last activation and the global residual."""
        shifted = self.settings.mean != "none"
        x = image - self.mean if shifted else image
        first = self.head(self.shifts[0](x) if self.shifts else x)
        y = self.body(first)
        y = self.tail(y + first if self.settings.long_skip else y)
        y = self.shifts[1](y) if self.shifts else y
        return y + self.mean if shifted else y


def finish(y: Tensor, image: Tensor, settings: ArchSettings) -> Tensor:
    """Apply the last activation and the global residual to the output of the stages."""
    if settings.final != "none":
        y = torch.tanh(y) if settings.final == "tanh" else torch.sigmoid(y)
    if settings.residual == "none":
        return y
    return base(image, settings) + (-y if settings.residual == "subtract" else y)


def base(image: Tensor, settings: ArchSettings) -> Tensor:
    """Return the image to which a global residual is added."""
    mode = settings.residual
    if mode in ("add", "subtract"):
        return image
    aligned = None if mode == "nearest" else False
    return F.interpolate(image, scale_factor=settings.scale, mode=mode, align_corners=aligned)


class _Block(nn.Module):
    """A residual block: stages with activations between them, added to the input."""

    def __init__(self, stages: tuple[Stage, ...], builder: _StageBuilder) -> None:
        super().__init__()
        *inner, last = stages
        self.inner = nn.Sequential(
            *(builder.unit(stage, builder.inside) for stage in inner),
            builder.unit(last, "none"),
        )
        self._scale = builder.settings.residual_scale
        self._skip = builder.settings.block_skip

    def forward(self, x: Tensor) -> Tensor:
        inner = self.inner(x)
        if not self._skip:
            return inner
        return x + (inner if self._scale == 1 else inner * self._scale)


class _StageBuilder:
    """Builds torch modules from stages."""

    def __init__(self, topology: Topology, settings: ArchSettings) -> None:
        self.settings = settings
        self._last = topology.tail[-1]
        inside = settings.block_activation
        self.inside = settings.activation if inside == "same" else inside
        self._halvings = topology.halvings(settings)
        self._stride = topology.stride(settings) or 1

    def unit(self, stage: Stage, activation: str, upsampling: int = 1) -> nn.Module:
        """Return a stage with its upsampling, shuffle, normalization and activation."""
        before: list[nn.Module] = [nn.Upsample(scale_factor=upsampling)] if upsampling > 1 else []
        before.append(self.kernel(stage))
        after: list[nn.Module] = [nn.PixelShuffle(stage.shuffle)] if stage.shuffle > 1 else []
        if stage.norm is not None:
            norm = _norm(stage.norm, self.settings.eps)
            (before if norm.num_features == stage.outputs else after).append(norm)
        elif self.settings.norm == "instance" and stage is not self._last:
            before.append(nn.InstanceNorm2d(stage.outputs))
        if stage.slopes is not None:
            act = _loaded(nn.PReLU(stage.slopes.numel()), {"weight": stage.slopes})
            (before if stage.slopes.numel() == stage.outputs else after).append(act)
        else:
            after += _activation(activation)
        return nn.Sequential(*before, *after)

    def kernel(self, stage: Stage) -> nn.Module:
        """Return the convolution of a stage."""
        tensors = {"weight": stage.weight}
        if stage.bias is not None:
            tensors["bias"] = stage.bias
        shape = (stage.inputs, stage.outputs, stage.size)
        bias = stage.bias is not None
        if stage.transposed:
            padding, rest = self._padding(stage.size)
            return _loaded(
                nn.ConvTranspose2d(*shape, self._stride, padding, rest, bias=bias, device="meta"),
                tensors,
            )
        halves = any(stage is each for each in self._halvings)
        return _loaded(
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
        """Return padding and output padding with which the scale equals the stride.

        Two pairs do; they differ by a shift of one pixel.
        """
        missing = size - self._stride
        padding = (size - 1) // 2 if self.settings.output_padding else (missing + 1) // 2
        return padding, 2 * padding - missing


def _norm(tensors: dict[str, Tensor], eps: float) -> nn.BatchNorm2d:
    mean = tensors["running_mean"]
    norm = nn.BatchNorm2d(mean.numel(), eps, affine="weight" in tensors, device="meta")
    _loaded(norm, tensors | {"num_batches_tracked": torch.tensor(0)})
    return norm


def _loaded(module: nn.Module, tensors: dict[str, Tensor]) -> nn.Module:
    module.load_state_dict(tensors, assign=True)
    return module


def _activation(name: str) -> list[nn.Module]:
    leak = slope(name)
    if leak is not None:
        return [nn.LeakyReLU(leak)]
    known: dict[str, list[nn.Module]] = {"relu": [nn.ReLU()], "tanh": [nn.Tanh()], "none": []}
    return known[name]
