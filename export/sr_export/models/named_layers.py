"""Build layers from the tensors of a state dict by name, for architectures with fixed names."""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from torch import nn

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    L = TypeVar("L", bound=nn.Module)
    Kernel = nn.Conv2d | nn.ConvTranspose2d

# Unused statistics of instance norms in files of old versions of PyTorch.
_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")
_NO_SETTINGS: Mapping[str, str] = MappingProxyType({})


class NamedLayers:
    """Builds layers from a state dict, and keeps track of unused tensors.

    Args:
        tensors: the state dict.
        settings: what the user gave for settings that the weights do not determine.
    """

    def __init__(
        self, tensors: Mapping[str, Tensor], settings: Mapping[str, str] = _NO_SETTINGS
    ) -> None:
        self._tensors = tensors
        self._settings = settings
        self._assumed: dict[str, str] = {}
        self.known_settings: set[str] = set()
        self.testable: tuple[str, list[str]] | None = None
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

    def count(self, pattern: str, first: int = 0) -> int:
        """Return how many modules "pattern.format(i)" there are, from the first number on."""
        index = first
        while self.has_below(pattern.format(index)):
            index += 1
        return index - first

    def choice(self, name: str, values: Sequence[int], *, testable: bool = False) -> int:
        """Return the user's value of a setting, or the first allowed one, which is then assumed.

        Args:
            name: the setting.
            values: the allowed values, the likeliest first.
            testable: whether photos can show which value is right.

        Raises:
            InvalidInputError: the value is not allowed.
        """
        texts = [str(each) for each in values]
        allowed = f"allowed: {', '.join(texts)}"
        found = int(self._setting(name, texts[0], lambda text: text in texts, allowed))
        if len(texts) == 1:
            self._assumed.pop(name, None)
        if testable and name in self._assumed:
            self.testable = (name, texts)
        return found

    def number(self, name: str, usual: float, most: float) -> float:
        """Return the user's value of a setting from 0 to `most`, or the usual one.

        Raises:
            InvalidInputError: the value is not such a number.
        """

        def allowed(text: str) -> bool:
            return bool(re.fullmatch(r"\d+(\.\d+)?", text)) and float(text) <= most

        return float(self._setting(name, f"{usual:g}", allowed, f"allowed: 0 to {most:g}"))

    def _setting(
        self, name: str, usual: str, allowed: Callable[[str], bool], described: str
    ) -> str:
        self.known_settings.add(name)
        if name not in self._settings:
            self._assumed[name] = usual
        value = self._settings.get(name, usual)
        if not allowed(value):
            raise InvalidInputError(f"{name}={value} does not fit these weights; {described}")
        return value

    @property
    def assumed(self) -> str:
        """The settings that were assumed, as "name=value ..."."""
        return " ".join(f"{name}={value}" for name, value in self._assumed.items())

    @property
    def unknown_settings(self) -> set[str]:
        """Names of the user's settings that no layer asked for."""
        return self._settings.keys() - self.known_settings

    def same(self, name: str, stride: int = 1, *, inputs: int = 0, dilation: int = 1) -> nn.Conv2d:
        """Return a convolution with the padding that preserves the size, if stride is 1.

        Args:
            name: the module.
            stride: the stride.
            inputs: number of input channels of a grouped convolution; 0: not grouped.
            dilation: distance of the kernel's pixels.
        """
        outputs, part, height, width = self.shape(f"{name}.weight")
        layer = nn.Conv2d(
            inputs or part,
            outputs,
            (height, width),
            stride,
            (height // 2 * dilation, width // 2 * dilation),
            dilation,
            groups=inputs // part if inputs else 1,
            bias=f"{name}.bias" in self._tensors,
        )
        return self.loaded(layer, name)

    def parameter(self, name: str) -> nn.Parameter:
        """Return a tensor that belongs to no layer."""
        self.shape(name)
        self._unused.discard(name)
        return nn.Parameter(self._tensors[name].detach().float().clone(), requires_grad=False)

    def skip(self, *names: str) -> None:
        """Ignore tensors inside these modules, which have no effect on the output."""
        for name in names:
            self._unused -= {each for each in self._unused if f"{each}.".startswith(f"{name}.")}

    def convolution(self, name: str, stride: int = 1, padding: int = 0) -> nn.Conv2d:
        """Return a convolution."""
        outputs, inputs, size, _ = self.shape(f"{name}.weight")
        bias = f"{name}.bias" in self._tensors
        return self.loaded(nn.Conv2d(inputs, outputs, size, stride, padding, bias=bias), name)

    def transposed(
        self, name: str, stride: int = 2, padding: int | None = None
    ) -> nn.ConvTranspose2d:
        """Return a transposed convolution: stride 2 doubles the size, stride 1 adds a border.

        With a padding, that of the layer without output padding.
        """
        inputs, outputs, size, _ = self.shape(f"{name}.weight")
        bias = f"{name}.bias" in self._tensors
        if padding is not None:
            more = 0
        else:
            padding, more = ((size - 1) // 2, size % 2) if stride == 2 else (0, 0)
        layer = nn.ConvTranspose2d(inputs, outputs, size, stride, padding, more, bias=bias)
        return self.loaded(layer, name)

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

    def batch_norm(self, name: str, channels: int, eps: float = 1e-5) -> nn.Module:
        """Return a batch norm."""
        return self.loaded(nn.BatchNorm2d(channels, eps), name)

    def instance_norm(self, name: str, channels: int) -> nn.Module:
        """Return an instance norm with weights."""
        return self.loaded(nn.InstanceNorm2d(channels, affine=True), name)

    def require_all_used(self) -> None:
        """Check that every tensor belongs to a layer.

        Raises:
            ValueError: some do not; the message names them.
        """
        if self._unused:
            raise ValueError(f"no layer uses {', '.join(sorted(self._unused)[:4])}")

    def loaded(self, layer: L, name: str) -> L:
        """Return a layer with its weights loaded, as far as they are named like its own.

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
