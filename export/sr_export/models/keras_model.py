"""Keras models as PyTorch modules: the generator in them, with free sizes, equal to Keras's output.

Keras 3 with its PyTorch backend reads files of any Keras without TensorFlow. This module imports
Keras, so it is imported only for such files.
"""

from __future__ import annotations

import os
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from sr_deploy.errors import CheckpointError
from sr_export.checkpoint import keras_file
from sr_export.models.custom import find_builder
from sr_export.models.keras_layers import translated
from sr_export.models.network import FAILURES

os.environ["KERAS_BACKEND"] = "torch"
try:
    import keras
except ImportError as missing:
    raise CheckpointError(
        'a Keras model, which needs Keras: pip install "sr-deploy[keras]"'
    ) from missing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

_SIDES = (64, 32, 96, 128, 256)
_GRIDS = (1, 2, 4, 8, 16, 32, 64)
_IMAGE_CHANNELS = (1, 3)
# White is 1, or 255; rounding errors of a network grow with its depth.
_TOLERANCE = 1e-4


class KerasNetwork(nn.Module):
    """A Keras model in NCHW. Of generators, the input is random numbers (N, size).

    Args:
        model: A Keras model.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.steps = nn.ModuleList()
        self._plan: list[tuple[Any, dict[str, Any], list[int]]] = []
        graph = model._functional if isinstance(model, keras.Sequential) else model
        self._inputs = [id(each) for each in graph.inputs]
        self._results = [id(each) for each in graph.outputs]
        for depth in sorted(graph._nodes_by_depth, reverse=True):
            for node in graph._nodes_by_depth[depth]:
                if not node.is_input:
                    self._add(node)

    def _add(self, node: Any) -> None:
        operation = node.operation
        inner = isinstance(operation, keras.Model) and _is_graph(operation)
        self.steps.append(KerasNetwork(operation) if inner else translated(operation))
        arguments, options = keras.tree.map_structure(
            lambda each: _Value(id(each)) if isinstance(each, keras.KerasTensor) else each,
            (node.arguments.args, node.arguments.kwargs),
        )
        options = {key: each for key, each in options.items() if key not in ("training", "mask")}
        self._plan.append((arguments, options, [id(each) for each in node.output_tensors]))

    def forward(self, *images: Tensor) -> Any:
        values = dict(zip(self._inputs, images, strict=True))
        for step, (arguments, options, outputs) in zip(self.steps, self._plan, strict=True):
            result = step(*_filled(arguments, values), **options)
            results = result if isinstance(result, (list, tuple)) else [result]
            values.update(zip(outputs, results, strict=True))
        found = [values[each] for each in self._results]
        return found[0] if len(found) == 1 else found


class _Value:
    """The place of an intermediate result among the arguments of a layer."""

    def __init__(self, key: int) -> None:
        self.key = key


def _filled(arguments: Any, values: dict[int, Any]) -> Any:
    if isinstance(arguments, (list, tuple)):
        return [_filled(each, values) for each in arguments]
    return values[arguments.key] if isinstance(arguments, _Value) else arguments


class _Whole(nn.Module):
    """A model whose layers are in Python code: it runs as it is."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, values: Tensor) -> Any:
        if values.ndim == 4:
            values = values.permute(0, 2, 3, 1)
        result = self.model(values, training=False)
        return result.permute(0, 3, 1, 2) if result.ndim == 4 else result


def _is_graph(model: Any) -> bool:
    """Return whether the layers of a model and their order are known."""
    if isinstance(model, keras.Sequential):
        return model.built and getattr(model, "_functional", None) is not None
    return hasattr(model, "_nodes_by_depth")


@dataclass(frozen=True)
class KerasGenerator:
    """The network of a Keras file, in NCHW."""

    name: str
    module: nn.Module
    latent: int | None = None
    """How many random numbers are its input; None: an image is."""
    size: tuple[int, int] | None = None
    """The only (height, width) that it accepts; None: any."""


def load_model(
    file: keras_file.KerasFile, arch_file: Sequence[str], key: str | None
) -> KerasGenerator:
    """Return the generator of a Keras file.

    Args:
        file: The file.
        arch_file: The user's function that builds the model, and its arguments; empty: none.
        key: Name of the model inside another, of several.

    Raises:
        CheckpointError: There is no generator, or it cannot be computed as Keras does.
    """
    model = _built(file, arch_file) if arch_file else _loaded(file)
    model = _generator(model, key)
    name = f"Keras {model.name}"
    if not _is_graph(model):
        return KerasGenerator(name, _Whole(model).eval())
    shape = tuple(model.inputs[0].shape)
    if len(shape) == 2:
        module = KerasNetwork(model).eval()
        _compare(model, module, torch.randn(3, shape[1]))
        return KerasGenerator(name, module, latent=shape[1])
    fixed = (shape[1], shape[2]) if shape[1] and shape[2] else None
    sizes = [fixed] if fixed else _sizes(model, shape[3])
    if fixed:
        free = _freed(model)
        if free is not None and _equal(free, model, fixed) and (found := _sizes(free, shape[3])):
            model, sizes, fixed = free, found, None
    if not sizes:
        raise CheckpointError(f"the Keras model {model.name} is not from image to image")
    module = KerasNetwork(model).eval()
    for size in sizes:
        _compare(model, module, torch.rand(1, shape[3], *size))
    return KerasGenerator(name, module, size=fixed)


def _loaded(file: keras_file.KerasFile) -> Any:
    try:
        with keras_file.named(file) as path, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecations concern the file's author
            return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{file.path}: Keras cannot load it: {reason}") from error


def _built(file: keras_file.KerasFile, arch_file: Sequence[str]) -> Any:
    """Return the model that the user's function builds, with the weights of the file."""
    path, name, build, arguments = find_builder(arch_file)
    try:
        model = build(**arguments)
        if isinstance(model, keras.Model) and not model.built:
            model(np.zeros((1, _SIDES[0], _SIDES[0], 3), np.float32))
    except Exception as error:  # the user's code may raise anything
        raise CheckpointError(f"{path}: {name} failed: {type(error).__name__}: {error}") from error
    if not isinstance(model, keras.Model):
        raise CheckpointError(
            f"{path}: {name} returned a {type(model).__name__}, expected a keras.Model"
        )
    try:
        with keras_file.named(file) as weights:
            model.load_weights(weights)
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"the weights do not fit {name} of {path}: {reason}") from error
    return model


def _generator(model: Any, key: str | None) -> Any:
    """Return the model that generates images: this one, or the only one inside of it.

    Raises:
        CheckpointError: There is none, or there are several.
    """
    found = [each for each in _inside(model) if _generates(each)]
    if key is not None:
        found = [each for each in found if each.name == key]
    if found and (found[0] is model or len(found) == 1):
        return found[0]
    names = ", ".join(each.name for each in found)
    inside = ", ".join(each.name for each in _inside(model))
    if found:
        raise CheckpointError(f"several models inside generate images ({names}); choose with --key")
    raise CheckpointError(
        f"no model{'' if key is None else f' {key!r}'} that generates images from images or from "
        f"random numbers; it has {inside}"
    )


def _inside(model: Any) -> Iterator[Any]:
    yield model
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _inside(layer)


def _generates(model: Any) -> bool:
    """Return whether a model makes images of at least its input's size."""
    if not _is_graph(model):
        return True
    if len(model.inputs) != 1:
        return False
    given, taken = tuple(model.inputs[0].shape), tuple(model.outputs[0].shape)
    if len(taken) != 4 or taken[3] not in _IMAGE_CHANNELS:
        return False
    if len(given) == 2:
        return True
    # Half: networks without padding return less than they get.
    sides = zip(given[1:3], taken[1:3], strict=True)
    return (
        len(given) == 4
        and given[3] == taken[3]
        and all(new is None or old is None or 2 * new >= old for old, new in sides)
    )


def _freed(model: Any) -> Any | None:
    """Return a model for images of any size, with the same weights; None: it needs its size."""
    try:
        config = _without_sizes(keras.saving.serialize_keras_object(model))
        free = keras.saving.deserialize_keras_object(config, safe_mode=True)
        free.set_weights(model.get_weights())
    except Exception:  # noqa: BLE001 - layers raise anything for sizes that they need
        return None
    return free if _is_graph(free) else None


def _without_sizes(config: Any) -> Any:
    if isinstance(config, list):
        return [_without_sizes(each) for each in config]
    if not isinstance(config, dict):
        return config
    freed = {}
    for key, value in config.items():
        image = isinstance(value, (list, tuple)) and len(value) == 4 and "shape" in key
        if image and key != "target_shape":
            freed[key] = [value[0], None, None, value[3]]
        else:
            freed[key] = _without_sizes(value)
    return freed


def _equal(free: Any, model: Any, size: tuple[int, int]) -> bool:
    image = np.random.default_rng(0).random((1, *size, model.inputs[0].shape[3]), np.float32)
    try:
        return np.allclose(_run(free, image), _run(model, image), atol=_TOLERANCE)
    except FAILURES:
        return False


def _run(model: Any, values: Any) -> Any:
    with torch.inference_mode(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras has opinions on how its inputs are nested
        result = model(values, training=False)
    return keras.ops.convert_to_numpy(result)


def _sizes(model: Any, channels: int) -> list[tuple[int, int]]:
    """Return two sizes on the smallest grid on which a model enlarges all sides alike, if any."""
    for grid in _GRIDS:
        for first, second, third in ((7, 9, 4), (45, 31, 37)):
            sizes = [(first * grid, second * grid), (second * grid, third * grid)]
            try:
                shapes = [
                    _run(model, np.zeros((1, *size, channels), np.float32)).shape for size in sizes
                ]
            except FAILURES:
                continue
            (top, middle), (_, last) = (shape[1:3] for shape in shapes)
            scale = (middle - top) // (sizes[0][1] - sizes[0][0])
            sides = [*sizes[0], sizes[1][1]]
            missing = {
                scale * side - length
                for side, length in zip(sides, (top, middle, last), strict=True)
            }
            if scale >= 1 and len(missing) == 1 and min(missing) >= 0:
                return sizes
    return []


def _compare(model: Any, module: nn.Module, values: Tensor) -> None:
    """Compare a module with Keras's own output.

    Raises:
        CheckpointError: They differ.
    """
    image = values.ndim == 4
    given = values.permute(0, 2, 3, 1).numpy() if image else values.numpy()
    expected = torch.from_numpy(_run(model, given)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = module(values)
    off = float("inf")
    if found.shape == expected.shape:
        off = float((found - expected).abs().max() / max(1.0, float(expected.abs().max())))
    if not off <= _TOLERANCE:
        raise CheckpointError(
            f"the PyTorch form of the Keras model {model.name} differs from Keras by {off:.3g} at "
            f"{'x'.join(map(str, values.shape))}; export it to ONNX with model.export(path, "
            "format='onnx')"
        )
