"""Tiny networks in bundles like those of the exporter."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.bundle.manifest import Model, PixelFormat, Precision, Variant
from sr_deploy.files import sha256_of
from tests.sr_deploy.manifests import MODEL, make

CHANNELS: dict[PixelFormat, int] = {"rgb24": 3, "rgb48": 3, "gray8": 1, "gray16": 1}
DEEP = ("rgb48", "gray16")
LAYERS = 3
COMPACT_BYTES = 268


class _Graph:
    """A chain of nodes from the input `pixels`, the bytes of a frame."""

    def __init__(self, pixel_format: PixelFormat) -> None:
        self.depth = CHANNELS[pixel_format] * (2 if pixel_format in DEEP else 1)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.last = "pixels"

    def add(
        self, operator: str, *more: np.ndarray | str, of: str | None = None, **attributes: Any
    ) -> str:
        names = [self.last if of is None else of]
        for each in more:
            if isinstance(each, str):
                names.append(each)
                continue
            names.append(self.constant(each))
        self.last = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [self.last], **attributes))
        return self.last

    def constant(self, value: np.ndarray) -> str:
        name = f"constant{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def save(self, path: Path, model: Model) -> None:
        height, width = model.fixed_size or ("h", "w")
        shape = [model.fixed_batch or "n", height, width, self.depth]
        result = [model.fixed_batch or "n", None, None, self.depth]
        self.nodes[-1].output[0] = "upscaled"
        graph = helper.make_graph(
            self.nodes,
            "network",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, shape)],
            [helper.make_tensor_value_info("upscaled", TensorProto.UINT8, result)],
            self.constants,
        )
        opset = [helper.make_opsetid("", 20)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def nearest(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write nearest-neighbor upsampling of bytes."""
    graph = _Graph(pixel_format)
    graph.add("Cast", to=TensorProto.FLOAT)
    graph.add("Transpose", perm=[0, 3, 1, 2])
    _repeat(graph, model, graph.last)
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Cast", to=TensorProto.UINT8)
    graph.save(path, model)


def convolutions(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write random convolutions with zero padding; the halo is `LAYERS`."""
    noise = np.random.default_rng(0)
    graph = _Graph(pixel_format)
    _unpack(graph, pixel_format)
    channels = CHANNELS[pixel_format]
    sizes = [channels, *[8] * (LAYERS - 1), channels * model.scale**2]
    for before, after in itertools.pairwise(sizes):
        spread = np.sqrt(2 / (9 * before))
        weights = noise.normal(0, spread, (after, before, 3, 3)).astype(np.float32)
        graph.add("Conv", weights, np.full(after, 0.1, np.float32), pads=[1] * 4)
        graph.add("LeakyRelu", alpha=0.2)
    graph.add("DepthToSpace", blocksize=model.scale, mode="CRD")
    _pack(graph, pixel_format)
    graph.save(path, model)


def skipping(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write a short Compact network: PReLU, and the upsampled image added to the result.

    The exporter's `bytes_per_pixel` for it is COMPACT_BYTES; the halo is `LAYERS`.
    """
    noise = np.random.default_rng(0)
    graph = _Graph(pixel_format)
    image = _unpack(graph, pixel_format)
    channels = CHANNELS[pixel_format]
    sizes = [channels, *[32] * (LAYERS - 1), channels * model.scale**2]
    for before, after in itertools.pairwise(sizes):
        weights = noise.normal(0, 0.01, (after, before, 3, 3)).astype(np.float32)
        graph.add("Conv", weights, np.zeros(after, np.float32), pads=[1] * 4)
        if after == 32:
            graph.add("PRelu", np.full((32, 1, 1), 0.1, np.float32))
    result = graph.add("DepthToSpace", blocksize=model.scale, mode="CRD")
    _repeat(graph, model, image)
    graph.add("Add", result)
    _pack(graph, pixel_format)
    graph.save(path, model)


def unquantized(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write the float network of `quantized`."""
    _quantized(path, pixel_format, model, integers=False)


def quantized(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write an 8-bit INT8 network like those of the exporter.

    Inputs and weights of all but the first and the last of LAYERS + 2 convolutions are quantized;
    everything else is FP16. PReLU and a skip connection are in between.
    """
    _quantized(path, pixel_format, model, integers=True)


def _quantized(path: Path, pixel_format: PixelFormat, model: Model, *, integers: bool) -> None:
    noise = np.random.default_rng(0)
    half = np.float16 if integers else np.float32
    graph = _Graph(pixel_format)
    channels = CHANNELS[pixel_format]
    graph.add("Cast", to=TensorProto.FLOAT16 if integers else TensorProto.FLOAT)
    graph.add("Transpose", perm=[0, 3, 1, 2])
    graph.add("Mul", half(1 / 255))
    sizes = [channels, *[32] * (LAYERS + 1), channels * model.scale**2]
    skipped = ""
    for number, (before, after) in enumerate(itertools.pairwise(sizes)):
        weights = noise.normal(0, np.sqrt(1 / (9 * before)), (after, before, 3, 3))
        inner = 0 < number < len(sizes) - 2
        if inner and integers:
            constants = half(4 / 127), np.int8(0)
            graph.add("QuantizeLinear", *constants)
            source = graph.add("DequantizeLinear", *constants)
            scales = np.abs(weights).max((1, 2, 3)) / 127
            whole = np.rint(weights / scales[:, None, None, None]).astype(np.int8)
            stored = graph.constant(whole)
            zeros = np.zeros(after, np.int8)
            typed = graph.add("DequantizeLinear", scales.astype(half), zeros, of=stored, axis=0)
            graph.add("Conv", typed, np.full(after, 0.1, half), of=source, pads=[1] * 4)
        else:
            graph.add("Conv", weights.astype(half), np.full(after, 0.1, half), pads=[1] * 4)
        if after == 32:
            graph.add("PRelu", np.full((32, 1, 1), 0.2, half))
        if number == LAYERS:
            graph.add("Add", skipped)
        skipped = skipped or graph.last
    graph.add("DepthToSpace", blocksize=model.scale, mode="CRD")
    graph.add("Mul", half(255))
    graph.add("Clip", half(0), half(255))
    graph.add("Round")
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Cast", to=TensorProto.UINT8)
    graph.save(path, model)


def unusual(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write nearest-neighbor upsampling with an operator that OpenVINO does not support."""
    graph = _Graph(pixel_format)
    one = graph.add("Det", of=graph.constant(np.ones((1, 1), np.float32)))
    graph.add("Cast", of="pixels", to=TensorProto.FLOAT)
    graph.add("Mul", one)
    graph.add("Transpose", perm=[0, 3, 1, 2])
    _repeat(graph, model, graph.last)
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Cast", to=TensorProto.UINT8)
    graph.save(path, model)


def mixing(model: Model) -> np.ndarray:
    """Return the matrix of `generator`, (size, height * width * channels)."""
    assert model.latent is not None
    pixels = model.latent.height * model.latent.width * model.channels
    return np.random.default_rng(0).normal(0, 40, (model.latent.size, pixels)).astype(np.float32)


def generator(path: Path, _: PixelFormat, model: Model) -> None:
    """Write a generator: a matrix product plus gray."""
    assert model.latent is not None
    size, height, width = dataclasses.astuple(model.latent)
    nodes = [
        helper.make_node("MatMul", ["input", "matrix"], ["mixed"]),
        helper.make_node("Add", ["mixed", "gray"], ["lifted"]),
        helper.make_node("Clip", ["lifted", "black", "white"], ["clipped"]),
        helper.make_node("Round", ["clipped"], ["rounded"]),
        helper.make_node("Reshape", ["rounded", "shape"], ["image"]),
        helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.UINT8),
    ]
    constants = {
        "matrix": mixing(model),
        "gray": np.float32(128),
        "black": np.float32(0),
        "white": np.float32(255),
        "shape": np.array([-1, height, width, model.channels]),
    }
    result = ["n", height, width, model.channels]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["n", size])],
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, result)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def _unpack(graph: _Graph, pixel_format: PixelFormat) -> str:
    white = 65535.0 if pixel_format in DEEP else 255.0
    graph.add("Cast", to=TensorProto.FLOAT)
    if pixel_format in DEEP:
        whole = graph.last
        low = graph.add("Slice", *(np.array([i]) for i in (0, 1 << 60, 3, 2)), of=whole)
        graph.add("Slice", *(np.array([i]) for i in (1, 1 << 60, 3, 2)), of=whole)
        graph.add("Mul", np.float32(256))
        graph.add("Add", low)
    graph.add("Transpose", perm=[0, 3, 1, 2])
    graph.add("Mul", np.float32(1 / white))
    return graph.last


def _repeat(graph: _Graph, model: Model, image: str) -> None:
    scales = np.array([1, 1, model.scale, model.scale], np.float32)
    graph.add(
        "Resize",
        "",
        scales,
        of=image,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )


def _pack(graph: _Graph, pixel_format: PixelFormat) -> None:
    white = 65535.0 if pixel_format in DEEP else 255.0
    graph.add("Mul", np.float32(white))
    graph.add("Clip", np.float32(0), np.float32(white))
    graph.add("Round")
    graph.add("Transpose", perm=[0, 2, 3, 1])
    if pixel_format in DEEP:
        value = graph.last
        graph.add("Mul", np.float32(1 / 256))
        high = graph.add("Floor")
        graph.add("Mul", np.float32(-256))
        graph.add("Add", value)
        low = graph.add("Unsqueeze", np.array([4]))
        high = graph.add("Unsqueeze", np.array([4]), of=high)
        graph.add("Concat", high, of=low, axis=4)
        graph.add("Reshape", np.array([0, 0, 0, graph.depth]))
    graph.add("Cast", to=TensorProto.UINT8)


def bundle(
    folder: Path,
    write: Callable[[Path, PixelFormat, Model], None] = convolutions,
    formats: tuple[PixelFormat, ...] = ("rgb24", "rgb48"),
    precisions: tuple[Precision, ...] = ("fp32",),
    **changes: Any,
) -> Path:
    """Write a bundle of a network; `changes` apply to the model in its manifest."""
    halo = 0 if write in (nearest, unusual) else LAYERS
    model = dataclasses.replace(MODEL, **{"halo": halo, **changes})
    model = dataclasses.replace(model, channels=CHANNELS[formats[0]])
    folder.mkdir(parents=True)
    variants = []
    for pixel_format in formats:
        for precision in precisions:
            file = folder / f"{precision}-{pixel_format}.onnx"
            write(file, pixel_format, model)
            variants.append(Variant(file.name, sha256_of(file), precision, pixel_format))
    text = make(model, variants=tuple(variants)).to_json()
    (folder / "manifest.json").write_text(text)
    return folder
