"""Ranges around a torch module, where a graph or arrays will not do: for PyTorch's own speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from sr_export.models.ranges import Ranges


def ranged(module: nn.Module, ranges: Ranges | None) -> nn.Module:
    """Return a module that takes and gives [0, 1], for one in other ranges."""
    return module if ranges is None or ranges.plain else _Ranged(module, ranges)


class _Ranged(nn.Module):
    def __init__(self, module: nn.Module, ranges: Ranges) -> None:
        super().__init__()
        self.module = module
        self._bgr = ranges.bgr
        self._maps = nn.ParameterList(
            torch.from_numpy(each) for each in (*ranges.input_map(), *ranges.output_map())
        )

    def forward(self, image: Tensor) -> Tensor:
        before, shift, after, rest = self._maps
        image = image.flip(1) if self._bgr else image
        output = self.module(image * before + shift) * after + rest
        return output.flip(1) if self._bgr else output
