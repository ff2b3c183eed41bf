"""Layers made of weights by their names, for layouts that are fixed."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    L = TypeVar("L", bound=nn.Module)
    Kernel = nn.Conv2d | nn.ConvTranspose2d

# What instance norm keeps in files of old versions of PyTorch, and does not use.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Named:
    """A state dict that layers are made of; it knows which of its tensors none has taken."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._left = {name for name in tensors if name.rpartition(".")[2] not in _STATISTICS}

    def has(self, name: str, *, kernel: bool = False) -> bool:
        """Return whether there is a tensor of this name, or a kernel of one."""
        return name in self._tensors and (self._tensors[name].ndim == 4 or not kernel)

    def has_below(self, name: str) -> bool:
        """Return whether there are tensors whose names begin with this one and a dot."""
        return any(each.startswith(f"{name}.") for each in self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor.

        Raises:
            ValueError: it is not there.
        """
        if name not in self._tensors:
            raise ValueError(f"it lacks {name}")
        return tuple(self._tensors[name].shape)

    def convolution(self, name: str, stride: int = 1, padding: int = 0) -> nn.Conv2d:
        """Return a convolution."""
        outputs, inputs, size, _ = self.shape(f"{name}.weight")
        bias = f"{name}.bias" in self._tensors
        return self._loaded(nn.Conv2d(inputs, outputs, size, stride, padding, bias=bias), name)

    def enlarging(self, name: str, stride: int = 2) -> nn.ConvTranspose2d:
        """Return a transposed convolution that doubles the image, or of stride 1 adds a border."""
        inputs, outputs, size, _ = self.shape(f"{name}.weight")
        bias = f"{name}.bias" in self._tensors
        padding, more = ((size - 1) // 2, size % 2) if stride == 2 else (0, 0)
        layer = nn.ConvTranspose2d(inputs, outputs, size, stride, padding, more, bias=bias)
        return self._loaded(layer, name)

    def norm(self, name: str, before: Kernel) -> nn.Module:
        """Return what normalises the result of a convolution.

        Instance norm often has no weights. Then a bias of the convolution tells that it is there:
        with batch norm, and without any, the programs in question leave that bias out.
        """
        if not self.has(f"{name}.weight"):
            biased = before.bias is not None
            return nn.InstanceNorm2d(before.out_channels) if biased else nn.Identity()
        if self.has(f"{name}.running_var"):
            return self.batch_norm(name, before.out_channels)
        return self.instance_norm(name, before.out_channels)

    def batch_norm(self, name: str, channels: int) -> nn.Module:
        """Return a batch norm."""
        return self._loaded(nn.BatchNorm2d(channels), name)

    def instance_norm(self, name: str, channels: int) -> nn.Module:
        """Return an instance norm that has weights."""
        return self._loaded(nn.InstanceNorm2d(channels, affine=True), name)

    def require_all_used(self) -> None:
        """Check that every tensor is one of a layer.

        Raises:
            ValueError: there are others.
        """
        if self._left:
            raise ValueError(f"nothing there takes {', '.join(sorted(self._left)[:4])}")

    def _loaded(self, layer: L, name: str) -> L:
        """Return a layer with its tensors in it.

        Raises:
            ValueError: one is missing.
            RuntimeError: one has another shape.
        """
        own = {key: f"{name}.{key}" for key in layer.state_dict()}
        there = {key: self._tensors[full] for key, full in own.items() if full in self._tensors}
        left = layer.load_state_dict(there, strict=False)
        lacking = [own[key] for key in left.missing_keys if key != "num_batches_tracked"]
        if lacking:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        self._left -= set(own.values())
        return layer
