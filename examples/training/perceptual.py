"""The perceptual loss: images are alike if VGG19, which was trained to name things, sees them so.

The weights are the user's own file (torchvision publishes it as vgg19-dcbb9e9d.pth); nothing is
fetched, and torchvision itself is not needed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss

from sr_deploy.errors import CheckpointError, InvalidInputError
from sr_export.checkpoint import file_kind, unpickle

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

# The width and the number of the convolutions between one pooling and the next.
STAGES = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
# What ESRGAN compares: the last features of all, before the activation empties most of them.
ESRGAN = {"conv5_4": 1.0}
# The mean and the deviation of ImageNet's photos, for R, G and B in [0, 1].
MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)


class Perceptual(nn.Module):
    """The mean absolute difference between what VGG19 sees in two images.

    Its weights are fixed: there is nothing to train in it, and nothing to save.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, weights: Path, layers: Mapping[str, float] = ESRGAN) -> None:
        """Builds the network up to the deepest layer that is asked for.

        Args:
            weights: torchvision's file of VGG19, or any with its `features.*` entries.
            layers: how much each layer counts, by name: "conv3_4" is the fourth convolution after
                the second pooling. They are compared before their activation.

        Raises:
            NotFoundError: there is no such file.
            CheckpointError: the file cannot be read, or is not of VGG19.
            InvalidInputError: a layer is not known, or there is none.
        """
        super().__init__()
        names = [name for name, _ in convolutions()]
        unknown = ", ".join(sorted(set(layers) - set(names)))
        if unknown or not layers:
            allowed = ", ".join(names)
            raise InvalidInputError(f"VGG19 has no layer {unknown or '(none given)'}: {allowed}")
        self.layers = dict(layers)
        self.features = vgg19(max(layers, key=names.index))
        load(self.features, weights)
        self.requires_grad_(requires_grad=False)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(DEVIATION).view(3, 1, 1), persistent=False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """Returns the loss of N x C x H x W in [0, 1], C being 1 or 3 and H, W at least 16.

        The gradient reaches `output` alone.
        """
        with torch.no_grad():
            wanted = self._seen(target)
        seen = self._seen(output)
        losses = [
            weight * l1_loss(seen[name].float(), wanted[name].float())
            for name, weight in self.layers.items()
        ]
        return torch.stack(losses).sum()

    def _seen(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the features of each layer that counts; one channel is grey: three equal ones."""
        x = (images.expand(-1, 3, -1, -1) - self.mean) / self.deviation
        seen = {}
        for name, layer in self.features.named_children():
            x = layer(x)
            if name in self.layers:
                seen[name] = x
        return seen


def convolutions() -> Iterator[tuple[str, int]]:
    """Yields the name of each convolution of VGG19 and its width, from the first to the last."""
    for stage, (width, count) in enumerate(STAGES, 1):
        for number in range(1, count + 1):
            yield f"conv{stage}_{number}", width


def vgg19(last: str) -> nn.Sequential:
    """Returns VGG19's layers by name, up to and with the convolution `last`."""
    layers = nn.Sequential()
    before, stage = 3, "1"
    for name, width in convolutions():
        if name[4] != stage:
            layers.add_module(f"pool{stage}", nn.MaxPool2d(2))
            stage = name[4]
        layers.add_module(name, nn.Conv2d(before, width, 3, padding=1))
        if name == last:
            break
        layers.add_module(name.replace("conv", "relu"), nn.ReLU())
        before = width
    return layers


def load(features: nn.Sequential, path: Path) -> None:
    """Gives the layers of `vgg19` the weights of torchvision's file, in which they are numbered.

    Nothing in the file is run: it is read as tensors (torch's `weights_only`).

    Raises:
        NotFoundError: there is no such file.
        CheckpointError: the file cannot be read, or is not of VGG19.
    """
    kind = file_kind.identify(path)
    if kind not in ("torch", "torch-legacy"):
        raise CheckpointError(f"{path}: {kind}; VGG19's weights are wanted as torchvision has them")
    content = unpickle.load(path, legacy=kind == "torch-legacy")
    found = content if isinstance(content, dict) else {}
    for number, layer in enumerate(features):
        for name, wanted in layer.named_parameters():
            key = f"features.{number}.{name}"
            tensor = found.get(key)
            if not isinstance(tensor, Tensor) or tensor.shape != wanted.shape:
                shape = list(tensor.shape) if isinstance(tensor, Tensor) else "not there"
                raise CheckpointError(
                    f"{path}: not VGG19's weights: {key} is {shape}, and {list(wanted.shape)} in "
                    "VGG19; give torchvision's vgg19-dcbb9e9d.pth (not VGG16, not vgg19_bn)"
                )
            wanted.data.copy_(tensor)
