"""Keras layers as PyTorch modules in NCHW.

Traced as they are, Keras's layers become graphs with a transposition around every convolution, and
with sizes that were frozen. So the layers of the field are written in PyTorch; the rest run as they
are, with their images transposed. Either way the result is compared with Keras's own.

Every value with four axes is an image: NHWC in Keras, NCHW here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from sr_deploy.errors import CheckpointError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

_ACTIVATIONS: dict[str, Callable[[Any], nn.Module]] = {
    "relu": lambda _: nn.ReLU(),
    "tanh": lambda _: nn.Tanh(),
    "sigmoid": lambda _: nn.Sigmoid(),
    "elu": lambda _: nn.ELU(),
    "selu": lambda _: nn.SELU(),
    "silu": lambda _: nn.SiLU(),
    "swish": lambda _: nn.SiLU(),
    "softplus": lambda _: nn.Softplus(),
    "leaky_relu": lambda _: nn.LeakyReLU(0.2),
    "linear": lambda _: nn.Identity(),
}
# Layers that only training uses.
_IDENTITIES = {
    "Dropout",
    "SpatialDropout2D",
    "GaussianNoise",
    "GaussianDropout",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
}
# Of two values; names of layers and of operators.
_MERGES: dict[str, Callable[[Any, Any], Any]] = {
    "Add": torch.add,
    "Subtract": torch.subtract,
    "Multiply": torch.multiply,
    "Maximum": torch.maximum,
    "Minimum": torch.minimum,
    "TrueDivide": torch.true_divide,
}


def translated(operation: Any) -> nn.Module:
    """Return the module of a Keras layer or operator, in eval mode.

    Raises:
        CheckpointError: It keeps images as NCHW.
    """
    if getattr(operation, "data_format", "channels_last") == "channels_first":
        raise CheckpointError(
            f"the Keras layer {operation.name} has data_format='channels_first'; only "
            "channels_last is supported"
        )
    kind = type(operation).__name__
    make = _MAKERS.get(kind)
    found = make(operation) if make is not None else None
    if kind in _IDENTITIES:
        found = nn.Identity()
    elif kind in _MERGES:
        found = _Merge(_MERGES[kind])
    return (found or _AsIs(operation)).eval()


def _weight(value: Any) -> Tensor:
    return torch.from_numpy(value.numpy()).float().clone()


def _same_padding(kernel: tuple[int, ...], strides: tuple[int, ...]) -> list[int]:
    """Return what `same` adds to an image whose sides are multiples of the strides, for F.pad."""
    pads = []
    for size, stride in reversed(list(zip(kernel, strides, strict=True))):
        total = max(size - stride, 0)
        pads += [total // 2, total - total // 2]
    return pads


def _convolution(layer: Any) -> nn.Module | None:
    kernel = _weight(layer.kernel).permute(3, 2, 0, 1)  # from H, W, in, out
    return _conv_module(layer, kernel, groups=layer.groups)


def _depthwise(layer: Any) -> nn.Module | None:
    kernel = _weight(layer.kernel).permute(2, 3, 0, 1)  # from H, W, channels, multiplier
    groups = kernel.shape[0]
    return _conv_module(layer, kernel.reshape(-1, 1, *kernel.shape[2:]), groups=groups)


def _conv_module(layer: Any, kernel: Tensor, *, groups: int) -> nn.Module | None:
    activation = _activation(layer.activation)
    if layer.padding not in ("same", "valid") or activation is None:
        return None
    strides, dilation = tuple(layer.strides), tuple(layer.dilation_rate)
    spans = tuple(
        (size - 1) * step + 1 for size, step in zip(kernel.shape[2:], dilation, strict=True)
    )
    pads = _same_padding(spans, strides) if layer.padding == "same" else [0] * 4
    even = pads[0] == pads[1] and pads[2] == pads[3]
    module = nn.Conv2d(
        kernel.shape[1] * groups,
        kernel.shape[0],
        tuple(kernel.shape[2:]),  # type: ignore[arg-type]
        stride=strides,
        dilation=dilation,
        groups=groups,
        padding=(pads[2], pads[0]) if even else 0,
        bias=layer.use_bias,
    )
    _fill(module, kernel, layer)
    before = [] if even else [nn.ConstantPad2d(tuple(pads), 0.0)]  # type: ignore[arg-type]
    return nn.Sequential(*before, module, activation)


def _fill(module: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, kernel: Tensor, layer: Any) -> None:
    with torch.no_grad():
        module.weight.copy_(kernel)
        if layer.use_bias:
            assert module.bias is not None
            module.bias.copy_(_weight(layer.bias))


def _transposed(layer: Any) -> nn.Module | None:
    activation = _activation(layer.activation)
    plain = tuple(layer.dilation_rate) == (1, 1) and layer.output_padding is None
    if layer.padding != "same" or not plain or activation is None:
        return None
    kernel = _weight(layer.kernel).permute(3, 2, 0, 1)  # from H, W, out, in
    strides = tuple(layer.strides)
    lacking = [size - stride for size, stride in zip(kernel.shape[2:], strides, strict=True)]
    module = nn.ConvTranspose2d(
        kernel.shape[0],
        kernel.shape[1],
        tuple(kernel.shape[2:]),  # type: ignore[arg-type]
        stride=strides,
        padding=tuple(max(each, 0) // 2 for each in lacking),
        output_padding=tuple(max(-each, 0) for each in lacking),
        bias=layer.use_bias,
    )
    _fill(module, kernel, layer)
    # An odd rest is cut off at the end alone.
    rest = [max(each, 0) % 2 for each in lacking]
    behind = [nn.ConstantPad2d((0, -rest[1], 0, -rest[0]), 0.0)] if any(rest) else []
    return nn.Sequential(module, *behind, activation)


def _dense(layer: Any) -> nn.Module | None:
    activation = _activation(layer.activation)
    if activation is None or layer.input_spec.axes is None:
        return None
    kernel = _weight(layer.kernel).T
    module = nn.Linear(kernel.shape[1], kernel.shape[0], bias=layer.use_bias)
    _fill(module, kernel, layer)
    return nn.Sequential(_OnLastAxis(module), activation)


class _OnLastAxis(nn.Module):
    """A linear layer on vectors, or on the channels of images."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear

    def forward(self, values: Tensor) -> Tensor:
        if values.ndim != 4:
            return self.linear(values)
        return F.conv2d(values, self.linear.weight[..., None, None], self.linear.bias)


def _batch_norm(layer: Any) -> nn.Module | None:
    axis = layer.axis[0] if isinstance(layer.axis, (list, tuple)) else layer.axis
    if axis not in (-1, 1, 3) or layer.moving_mean is None:
        return None
    mean, variance = _weight(layer.moving_mean), _weight(layer.moving_variance)
    factor = torch.rsqrt(variance + layer.epsilon)
    if layer.scale:
        factor = factor * _weight(layer.gamma)
    shift = (_weight(layer.beta) if layer.center else 0) - mean * factor
    return _Affine(factor, shift)


class _Affine(nn.Module):
    """Multiplies and adds a number per channel."""

    def __init__(self, factor: Tensor, shift: Tensor) -> None:
        super().__init__()
        self.factor, self.shift = nn.Parameter(factor), nn.Parameter(shift)

    def forward(self, values: Tensor) -> Tensor:
        shape = (-1, 1, 1) if values.ndim == 4 else (-1,)
        return values * self.factor.view(shape) + self.shift.view(shape)


def _activation(function: Any) -> nn.Module | None:
    name = getattr(function, "__name__", None)
    if function is None:
        return nn.Identity()
    make = _ACTIVATIONS.get(str(name))
    return make(function) if make is not None else None


def _prelu(layer: Any) -> nn.Module | None:
    slopes = _weight(layer.alpha)
    if slopes.numel() != slopes.shape[-1]:
        return None  # one for each pixel
    module = nn.PReLU(slopes.numel())
    with torch.no_grad():
        module.weight.copy_(slopes.reshape(-1))
    return module


def _relu(layer: Any) -> nn.Module | None:
    if layer.threshold != 0:
        return None
    slope, top = float(layer.negative_slope or 0), layer.max_value
    if top is None:
        return nn.LeakyReLU(slope) if slope else nn.ReLU()
    return None if slope else nn.Hardtanh(0.0, float(top))


def _upsampling(layer: Any) -> nn.Module | None:
    factors = tuple(float(each) for each in layer.size)
    if layer.interpolation == "nearest":
        return nn.Upsample(scale_factor=factors, mode="nearest")
    if layer.interpolation == "bilinear":
        return nn.Upsample(scale_factor=factors, mode="bilinear", align_corners=False)
    return None


def _zero_padding(layer: Any) -> nn.Module | None:
    (top, bottom), (left, right) = layer.padding
    return nn.ConstantPad2d((left, right, top, bottom), 0.0)


def _cropping(layer: Any) -> nn.Module | None:
    (top, bottom), (left, right) = layer.cropping
    return nn.ConstantPad2d((-left, -right, -top, -bottom), 0.0)


def _pooling(module: type[nn.MaxPool2d | nn.AvgPool2d]) -> Callable[[Any], nn.Module | None]:
    def make(layer: Any) -> nn.Module | None:
        size = tuple(layer.pool_size)
        return module(size) if size == tuple(layer.strides) else None

    return make


def _reshape(layer: Any) -> nn.Module | None:
    target = tuple(layer.target_shape)
    return _ToImage(target) if len(target) == 3 and min(target) > 0 else None


class _ToImage(nn.Module):
    """Vectors become images; images keep their size."""

    def __init__(self, target: tuple[int, ...]) -> None:
        super().__init__()
        self.target = target

    def forward(self, values: Tensor) -> Tensor:
        if values.ndim == 4:
            values = values.permute(0, 2, 3, 1)
        return values.reshape(-1, *self.target).permute(0, 3, 1, 2)


def _rescaling(layer: Any) -> nn.Module | None:
    return _Affine(
        torch.tensor(layer.scale, dtype=torch.float32), torch.tensor(layer.offset).float()
    )


class _Merge(nn.Module):
    """Combines two or more values, given as a list or one by one."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self._function = function

    def forward(self, *values: Any) -> Any:
        result, *others = values[0] if isinstance(values[0], (list, tuple)) else values
        for each in others:
            result = self._function(result, each)
        return result


class _Concatenate(nn.Module):
    def __init__(self, axis: int) -> None:
        super().__init__()
        self._axis = axis

    def forward(self, values: list[Tensor]) -> Tensor:
        images = values[0].ndim == 4
        return torch.cat(values, (0, 2, 3, 1)[self._axis] if images else self._axis)


class _AsIs(nn.Module):
    """A Keras layer or operator that runs as it is."""

    def __init__(self, operation: Any) -> None:
        super().__init__()
        self.operation = operation

    def forward(self, *values: Any, **options: Any) -> Any:
        return _each(self.operation(*_each(values, _TO_NHWC), **options), _TO_NCHW)


_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)


def _each(values: Any, order: tuple[int, ...]) -> Any:
    """Reorder the axes of every image in nested lists."""
    if isinstance(values, (list, tuple)):
        return type(values)(_each(each, order) for each in values)
    if isinstance(values, torch.Tensor) and values.ndim == 4:
        return values.permute(order)
    return values


_MAKERS: dict[str, Callable[[Any], nn.Module | None]] = {
    "Conv2D": _convolution,
    "DepthwiseConv2D": _depthwise,
    "Conv2DTranspose": _transposed,
    "Dense": _dense,
    "BatchNormalization": _batch_norm,
    "Activation": lambda layer: _activation(layer.activation),
    "LeakyReLU": lambda layer: nn.LeakyReLU(float(layer.negative_slope)),
    "PReLU": _prelu,
    "ReLU": _relu,
    "UpSampling2D": _upsampling,
    "ZeroPadding2D": _zero_padding,
    "Cropping2D": _cropping,
    "MaxPooling2D": _pooling(nn.MaxPool2d),
    "AveragePooling2D": _pooling(nn.AvgPool2d),
    "Reshape": _reshape,
    "Rescaling": _rescaling,
    "Concatenate": lambda layer: _Concatenate(layer.axis),
}
