"""EDSR, in the layouts of its authors' repository and of BasicSR."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from spandrel import Architecture, ImageModelDescriptor
from spandrel.util import KeyCondition, get_seq_len
from torch import nn

from sr_export.architectures.msrresnet import ResidualBlock

if TYPE_CHECKING:
    from torch import Tensor

# What DIV2K's images are on average; both layouts subtract it, in the range [0, 255].
_DIV2K_MEAN = (0.4488, 0.4371, 0.4040)
_RANGE = 255.0
# The paper scales the residuals of its large network, of 256 features, and only of that one.
_WIDE = 256
_WIDE_RESIDUAL_SCALE = 0.1

# The names of the authors' layout, as those of BasicSR's.
_RENAMED = (
    (r"^head\.0\.", "conv_first."),
    (r"^body\.(\d+)\.body\.0\.", r"body.\1.conv1."),
    (r"^body\.(\d+)\.body\.2\.", r"body.\1.conv2."),
    (r"^body\.\d+\.(weight|bias)$", r"conv_after_body.\1"),
    (r"^tail\.0\.", "upsample."),
    (r"^tail\.1\.", "conv_last."),
)


class Edsr(nn.Module):
    """Residual blocks without normalisation, a long skip, pixel shuffles."""

    mean: Tensor

    def __init__(self, channels: int, features: int, blocks: int, scale: int) -> None:
        super().__init__()
        residual_scale = _WIDE_RESIDUAL_SCALE if features >= _WIDE else 1.0
        steps = [3] if scale == 3 else [2] * (scale.bit_length() - 1)
        self.conv_first = nn.Conv2d(channels, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(features, residual_scale) for _ in range(blocks)))
        self.conv_after_body = nn.Conv2d(features, features, 3, padding=1)
        upsample: list[nn.Module] = []
        for step in steps:
            upsample += [
                nn.Conv2d(features, features * step**2, 3, padding=1),
                nn.PixelShuffle(step),
            ]
        self.upsample = nn.Sequential(*upsample)
        self.conv_last = nn.Conv2d(features, channels, 3, padding=1)
        mean = torch.tensor(_DIV2K_MEAN if channels == 3 else [0.0])
        self.register_buffer("mean", mean.view(1, -1, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        first = self.conv_first((x - self.mean) * _RANGE)
        y = self.conv_after_body(self.body(first)) + first
        return self.conv_last(self.upsample(y)) / _RANGE + self.mean


class EdsrArch(Architecture[Edsr]):
    """Recognises and builds EDSR."""

    def __init__(self) -> None:
        super().__init__(
            id="EDSR",
            detect=KeyCondition.has_any(
                KeyCondition.has_all(
                    "conv_first.weight",
                    "body.0.conv1.weight",
                    "conv_after_body.weight",
                    "upsample.0.weight",
                    "conv_last.weight",
                ),
                KeyCondition.has_all(
                    "head.0.weight", "body.0.body.0.weight", "body.0.body.2.weight", "tail.1.weight"
                ),
            ),
        )

    def load(self, state_dict: dict[str, Tensor]) -> ImageModelDescriptor[Edsr]:
        """Build the network that fits the weights."""
        state_dict = {
            _rename(name): tensor
            for name, tensor in state_dict.items()
            if not name.startswith(("sub_mean.", "add_mean."))  # constants, see _DIV2K_MEAN
        }
        features, channels = state_dict["conv_first.weight"].shape[:2]
        ratio = state_dict["upsample.0.weight"].shape[0] // features
        steps = (get_seq_len(state_dict, "upsample") + 1) // 2
        scale = round(ratio**0.5) ** steps
        blocks = get_seq_len(state_dict, "body")
        return ImageModelDescriptor(
            Edsr(channels, features, blocks, scale),
            state_dict,
            architecture=self,
            purpose="SR",
            tags=[f"{features}nf", f"{blocks}nb"],
            supports_half=True,
            supports_bfloat16=True,
            scale=scale,
            input_channels=channels,
            output_channels=channels,
        )


def _rename(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name
