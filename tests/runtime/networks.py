"""Tiny networks as bundles, as the exporter would write them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.files import sha256_of
from sr_deploy.manifest import Model, PixelFormat, Precision, Variant
from tests.runtime.manifests import MODEL, make

CHANNELS: dict[PixelFormat, int] = {"rgb24": 3, "rgb48": 3, "gray8": 1, "gray16": 1}
DEEP = ("rgb48", "gray16")
LAYERS = 3


class _Graph:
    """Nodes that follow one another, from the input `pixels` of a frame's bytes."""

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
            names.append(f"constant{len(self.constants)}")
            self.constants.append(numpy_helper.from_array(np.asarray(each), names[-1]))
        self.last = f"value{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, names, [self.last], **attributes))
        return self.last

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
        opset = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def nearest(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write a network that repeats pixels, byte for byte."""
    graph = _Graph(pixel_format)
    graph.add("Cast", to=TensorProto.FLOAT)
    graph.add("Transpose", perm=[0, 3, 1, 2])
    scales = np.array([1, 1, model.scale, model.scale], np.float32)
    graph.add(
        "Resize",
        "",
        scales,
        mode="nearest",
        coordinate_transformation_mode="asymmetric",
        nearest_mode="floor",
    )
    graph.add("Transpose", perm=[0, 2, 3, 1])
    graph.add("Cast", to=TensorProto.UINT8)
    graph.save(path, model)


def convolutions(path: Path, pixel_format: PixelFormat, model: Model) -> None:
    """Write random convolutions with zero padding; the halo is `LAYERS`."""
    noise = np.random.default_rng(0)
    graph = _Graph(pixel_format)
    channels, white = CHANNELS[pixel_format], 255.0
    graph.add("Cast", to=TensorProto.FLOAT)
    if pixel_format in DEEP:
        white = 65535.0
        whole = graph.last
        low = graph.add("Slice", *(np.array([i]) for i in (0, 1 << 60, 3, 2)), of=whole)
        graph.add("Slice", *(np.array([i]) for i in (1, 1 << 60, 3, 2)), of=whole)
        graph.add("Mul", np.float32(256))
        graph.add("Add", low)
    graph.add("Transpose", perm=[0, 3, 1, 2])
    graph.add("Mul", np.float32(1 / white))
    sizes = [channels, *[8] * (LAYERS - 1), channels * model.scale**2]
    for before, after in itertools.pairwise(sizes):
        spread = np.sqrt(2 / (9 * before))
        weights = noise.normal(0, spread, (after, before, 3, 3)).astype(np.float32)
        graph.add("Conv", weights, np.full(after, 0.1, np.float32), pads=[1] * 4)
        graph.add("LeakyRelu", alpha=0.2)
    graph.add("DepthToSpace", blocksize=model.scale, mode="CRD")
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
    graph.save(path, model)


def bundle(
    folder: Path,
    write: Callable[[Path, PixelFormat, Model], None] = convolutions,
    formats: tuple[PixelFormat, ...] = ("rgb24", "rgb48"),
    precisions: tuple[Precision, ...] = ("fp32",),
    **changes: Any,
) -> Path:
    """Write a bundle of a network; `changes` are to its manifest's model."""
    halo = LAYERS if write is convolutions else 0
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
