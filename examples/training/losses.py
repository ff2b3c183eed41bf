"""Pixel losses, and the perceptual loss on VGG19's features.

VGG19's weights are the user's file (torchvision publishes it as vgg19-dcbb9e9d.pth). Nothing is
downloaded, and torchvision is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, mse_loss

from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.checkpoint import file_kind, unpickle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

CHARBONNIER_EPSILON = 1e-3
# Width and number of convolutions between two poolings of VGG19.
STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
# ESRGAN compares the deepest features, before the activation zeroes most of them.
ESRGAN_LAYERS = {"conv5_4": 1.0}
# Mean and standard deviation of ImageNet, for R, G and B in [0, 1].
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """Return the Charbonnier loss: L1 that is smooth at zero, so that training settles there."""
    return (output - target).square().add(CHARBONNIER_EPSILON**2).sqrt().mean()


PIXEL_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": charbonnier,
    "l1": l1_loss,
    "l2": mse_loss,
}


class PerceptualLoss(nn.Module):
    """The mean absolute difference between VGG19's features of two images; its weights are fixed.

    Args:
        weights: torchvision's file of VGG19, or any file with its `features.*` entries.
        layers: Weight of each layer by name: "conv3_4" is the fourth convolution after the second
            pooling. Features are compared before the activation. Deeper layers are not built.

    Raises:
        NotFoundError: The file does not exist.
        CheckpointError: The file cannot be read, or does not contain VGG19's weights.
        InvalidInputError: `layers` is empty or names an unknown layer.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path, layers: Mapping[str, float] = ESRGAN_LAYERS) -> None:
        super().__init__()
        names = [name for name, _ in vgg19_convolutions()]
        unknown = ", ".join(sorted(set(layers) - set(names)))
        if unknown or not layers:
            allowed = ", ".join(names)
            raise InvalidInputError(f"VGG19 has no layer {unknown or '(none)'}; allowed: {allowed}")
        self.layers = dict(layers)
        self.features = vgg19(max(layers, key=names.index))
        load_vgg19(self.features, weights)
        self.requires_grad_(requires_grad=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the loss of N x C x H x W in [0, 1], with C = 1 or 3 and H, W of at least 16.

        Gradients reach `output` only.
        """
        with torch.no_grad():
            expected = self._features(target)
        features = self._features(output)
        losses = [
            weight * l1_loss(features[name].float(), expected[name].float())
            for name, weight in self.layers.items()
        ]
        return torch.stack(losses).sum()

    def _features(self, images: Tensor) -> dict[str, Tensor]:
        """Return the features of the compared layers; gray is repeated to three channels."""
        x = (images.expand(-1, 3, -1, -1) - self.mean) / self.std
        features = {}
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in self.layers:
                features[name] = x
        return features


def vgg19_convolutions() -> Iterator[tuple[str, int]]:
    """Yield the name and width of each convolution of VGG19, in order."""
    for stage, (width, count) in enumerate(STAGES, 1):
        for number in range(1, count + 1):
            yield f"conv{stage}_{number}", width


def vgg19(last: str) -> nn.Sequential:
    """Build VGG19's layers up to and including the convolution `last`."""
    layers = nn.Sequential()
    before, stage = 3, "1"
    for name, width in vgg19_convolutions():
        if name[4] != stage:
            layers.add_module(f"pool{stage}", nn.MaxPool2d(2))
            stage = name[4]
        layers.add_module(name, nn.Conv2d(before, width, 3, padding=1))
        if name == last:
            break
        layers.add_module(name.replace("conv", "relu"), nn.ReLU())
        before = width
    return layers


def load_vgg19(features: nn.Sequential, path: Path) -> None:
    """Load torchvision's weights, whose layers are numbered, into the layers of `vgg19`.

    The file is read as tensors (torch's `weights_only`); no code in it is executed.

    Raises:
        NotFoundError: The file does not exist.
        CheckpointError: The file cannot be read, or does not contain VGG19's weights.
    """
    kind = file_kind.identify(path)
    if kind not in ("torch", "torch-legacy"):
        raise CheckpointError(f"{path}: {kind}; expected torchvision's vgg19-dcbb9e9d.pth")
    content = unpickle.load(path, legacy=kind == "torch-legacy")
    tensors = content if isinstance(content, dict) else {}
    for number, layer in enumerate(features):
        for name, parameter in layer.named_parameters():
            key = f"features.{number}.{name}"
            tensor = tensors.get(key)
            if not isinstance(tensor, Tensor) or tensor.shape != parameter.shape:
                found = list(tensor.shape) if isinstance(tensor, Tensor) else "missing"
                raise CheckpointError(
                    f"{path}: not VGG19's weights: {key} is {found}, expected "
                    f"{list(parameter.shape)}; use torchvision's vgg19-dcbb9e9d.pth (not VGG16, "
                    "not vgg19_bn)"
                )
            parameter.data.copy_(tensor)
