"""MSRResNet: SRResNet without batch normalisation, as BasicSR and Real-ESRGAN's papers train it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch.nn.functional as F  # noqa: N812
from spandrel import Architecture, ImageModelDescriptor
from spandrel.util import KeyCondition, get_seq_len
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a ReLU, added to the input."""

    def __init__(self, features: int, residual_scale: float = 1.0) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        self.conv2 = nn.Conv2d(features, features, 3, padding=1)
        self._residual_scale = residual_scale

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x))) * self._residual_scale


class MsrResNet(nn.Module):
    """Convolution, residual blocks, pixel shuffles; the bilinear upscale is added at the end."""

    def __init__(self, channels: int, features: int, blocks: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        steps = [2, 2] if scale == 4 else [scale]
        self.conv_first = nn.Conv2d(channels, features, 3, padding=1)
        self.body = nn.Sequential(*(ResidualBlock(features) for _ in range(blocks)))
        self.upconv1 = nn.Conv2d(features, features * steps[0] ** 2, 3, padding=1)
        if scale == 4:
            self.upconv2 = nn.Conv2d(features, features * 4, 3, padding=1)
        self.shuffle = nn.PixelShuffle(steps[0])
        self.conv_hr = nn.Conv2d(features, features, 3, padding=1)
        self.conv_last = nn.Conv2d(features, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(F.leaky_relu(self.conv_first(x), 0.1))
        y = F.leaky_relu(self.shuffle(self.upconv1(y)), 0.1)
        if self.scale == 4:
            y = F.leaky_relu(self.shuffle(self.upconv2(y)), 0.1)
        y = self.conv_last(F.leaky_relu(self.conv_hr(y), 0.1))
        return y + F.interpolate(x, scale_factor=self.scale, mode="bilinear", align_corners=False)


class MsrResNetArch(Architecture[MsrResNet]):
    """Recognises and builds MSRResNet."""

    def __init__(self) -> None:
        super().__init__(
            id="MSRResNet",
            detect=KeyCondition.has_all(
                "conv_first.weight",
                "body.0.conv1.weight",
                "body.0.conv2.weight",
                "upconv1.weight",
                "conv_hr.weight",
                "conv_last.weight",
            ),
        )

    def load(self, state_dict: dict[str, Tensor]) -> ImageModelDescriptor[MsrResNet]:
        """Build the network that fits the weights."""
        features, channels = state_dict["conv_first.weight"].shape[:2]
        ratio = state_dict["upconv1.weight"].shape[0] // features
        scale = 4 if "upconv2.weight" in state_dict else round(ratio**0.5)
        blocks = get_seq_len(state_dict, "body")
        return ImageModelDescriptor(
            MsrResNet(channels, features, blocks, scale),
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
