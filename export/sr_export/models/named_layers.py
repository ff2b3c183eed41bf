"""Build layers from the tensors of a state dict by name, for architectures with fixed names."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    L = TypeVar("L", bound=nn.Module)
    Kernel = nn.Conv2d | nn.ConvTranspose2d

# Unused statistics of instance norms in files of old versions of PyTorch.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class NamedLayers:
    """Builds layers from a state dict, and keeps track of unused tensors."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._unused = {name for name in tensors if name.rpartition(".")[2] not in _STATISTICS}

    def has(self, name: str, *, kernel: bool = False) -> bool:
        """Return whether there is a tensor with this name, or a convolution kernel."""
        return name in self._tensors and (self._tensors[name].ndim == 4 or not kernel)

    def has_below(self, name: str) -> bool:
        """Return whether there are tensors inside this module."""
        return any(each.startswith(f"{name}.") for each in self._tensors)

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a tensor.

        Raises:
            ValueError: there is no such tensor.
        """
        if name not in self._tensors:
            raise ValueError(f"{name} is missing")
        return tuple(self._tensors[name].shape)

    def convolution(self, name: str, stride: int = 1, padding: int = 0) -> nn.Conv2d:
        """Return a convolution."""
        outputs, inputs, size, _ = self.shape(f"{name}.weight")
        bias = f"{name}.bias" in self._tensors
        return self._loaded(nn.Conv2d(inputs, outputs, size, stride, padding, bias=bias), name)

    def transposed(self, name: str, stride: int = 2) -> nn.ConvTranspose2d:
        """Return a transposed convolution: stride 2 doubles the size, stride 1 adds a border."""
        inputs, outputs, size, _ = self.shape(f"{name}.weight")
        bias = f"{name}.bias" in self._tensors
        padding, more = ((size - 1) // 2, size % 2) if stride == 2 else (0, 0)
        layer = nn.ConvTranspose2d(inputs, outputs, size, stride, padding, more, bias=bias)
        return self._loaded(layer, name)

    def norm(self, name: str, before: Kernel) -> nn.Module:
        """Return the normalization behind a convolution.

        Instance norm often has no weights. A bias of the convolution then reveals it: with batch
        norm or without normalization, these programs omit the bias.
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
        """Return an instance norm with weights."""
        return self._loaded(nn.InstanceNorm2d(channels, affine=True), name)

    def require_all_used(self) -> None:
        """Check that every tensor belongs to a layer.

        Raises:
            ValueError: some do not; the message names them.
        """
        if self._unused:
            raise ValueError(f"no layer uses {', '.join(sorted(self._unused)[:4])}")

    def _loaded(self, layer: L, name: str) -> L:
        """Return a layer with its weights loaded.

        Raises:
            ValueError: a tensor is missing.
            RuntimeError: a tensor has another shape.
        """
        own = {key: f"{name}.{key}" for key in layer.state_dict()}
        found = {key: self._tensors[full] for key, full in own.items() if full in self._tensors}
        result = layer.load_state_dict(found, strict=False)
        missing = [own[key] for key in result.missing_keys if key != "num_batches_tracked"]
        if missing:
            raise ValueError(f"{', '.join(missing)} missing")
        self._unused -= set(own.values())
        return layer
