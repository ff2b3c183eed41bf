"""Sums of the branches that a convolution has in training only."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from sr_export.models.named_layers import NamedLayers


def fused(named: NamedLayers, name: str) -> nn.Conv2d:
    """Return SPAN's 3x3 convolution: one kernel, or three in a row with a 1x1 beside them."""
    if not named.has(f"{name}.sk.weight"):
        return named.same(f"{name}.eval_conv")
    kernel, bias = _in_a_row(named, [f"{name}.conv.{i}" for i in range(3)])
    beside = named.same(f"{name}.sk")
    named.skip(f"{name}.eval_conv")
    return _convolution(_sum_of_kernels([kernel, beside.weight]), bias + _bias(beside))


def summed(named: NamedLayers, name: str) -> nn.Conv2d:
    """Return RTMoSR's 3x3 convolution: one kernel, or three branches with weights."""
    if not named.has(f"{name}.alpha"):
        return named.same(f"{name}.conv_3x3_rep")
    names = [f"{name}.conv1.{each}" for each in ("k0", "b0", "k1", "b1")]
    row = _chained(*map(named.parameter, names))
    plain, span = named.same(f"{name}.conv2"), fused(named, f"{name}.conv3")
    branches = [row, (plain.weight, _bias(plain)), (span.weight, _bias(span))]
    shares = named.parameter(f"{name}.alpha")
    named.skip(f"{name}.conv_3x3_rep")
    kernel = sum(share * each[0] for share, each in zip(shares, branches, strict=True))
    bias = sum(share * each[1] for share, each in zip(shares, branches, strict=True))
    return _convolution(torch.as_tensor(kernel), torch.as_tensor(bias))


def summed_depthwise(named: NamedLayers, name: str) -> nn.Conv2d:
    """Return RTMoSR's depthwise 5x5 convolution: one kernel, or the input and three of them."""
    if not named.has(f"{name}.alpha1"):
        kernel = named.shape(f"{name}.conv5x5_reparam.weight")
        return named.same(f"{name}.conv5x5_reparam", inputs=kernel[0])
    shares = [named.parameter(f"{name}.alpha{i}").view(-1, 1, 1, 1) for i in (1, 2, 3, 4)]
    width = len(shares[0])
    layers = [named.same(f"{name}.conv{i}x{i}", inputs=width) for i in (1, 3, 5)]
    named.skip(f"{name}.conv5x5_reparam")
    kernels = [torch.ones(width, 1, 1, 1), *(each.weight for each in layers)]
    biases = [torch.zeros(width), *map(_bias, layers)]
    weighted = [share * each for share, each in zip(shares, kernels, strict=True)]
    bias = sum(share.flatten() * each for share, each in zip(shares, biases, strict=True))
    return _convolution(_sum_of_kernels(weighted), torch.as_tensor(bias), width)


def _in_a_row(named: NamedLayers, names: list[str]) -> tuple[Tensor, Tensor]:
    """Return kernel and bias of consecutive convolutions without activations."""
    layers = [named.same(each) for each in names]
    kernel, bias = layers[0].weight, _bias(layers[0])
    for each in layers[1:]:
        kernel, bias = _chained(kernel, bias, each.weight, _bias(each))
    return kernel, bias


def _bias(layer: nn.Conv2d) -> Tensor:
    return torch.zeros(layer.out_channels) if layer.bias is None else layer.bias


def _chained(first: Tensor, bias: Tensor, second: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
    """Return kernel and bias of two convolutions, one of which is 1x1, in double precision."""
    one, other = first.double(), second.double()
    pattern = "mixy,omhw->oixy" if second.shape[2] == 1 else "mixy,omhw->oihw"
    kernel = torch.einsum(pattern, one, other)
    return kernel, other.sum((2, 3)) @ bias.double() + last.double()


def _sum_of_kernels(kernels: Sequence[Tensor]) -> Tensor:
    """Return the sum of kernels of different sizes around the same center."""
    side = max(each.shape[2] for each in kernels)
    borders = [(side - each.shape[2]) // 2 for each in kernels]
    padded = [
        nn.functional.pad(each.double(), [border] * 4)
        for each, border in zip(kernels, borders, strict=True)
    ]
    return torch.stack(padded).sum(0)


def _convolution(kernel: Tensor, bias: Tensor, groups: int = 1) -> nn.Conv2d:
    outputs, part, size, _ = kernel.shape
    layer = nn.Conv2d(part * groups, outputs, size, padding=size // 2, groups=groups)
    with torch.no_grad():
        layer.weight.copy_(kernel)
        assert layer.bias is not None
        layer.bias.copy_(bias)
    return layer
