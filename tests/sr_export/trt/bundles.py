"""A bundle of a small network, as the exporter would write it, in three precisions."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from sr_deploy.bundle.manifest import Model, Precision, Quality, Variant
from sr_deploy.files import sha256_of
from sr_export import photos
from sr_export.graph import pixels
from sr_export.quantize.half import to_half
from sr_export.quantize.quantizer import Quantizer
from tests.sr_deploy.manifests import MODEL, make

HALO = 2
_QUALITY = {"fp16": 60.0, "int8": 50.0}


def float_network() -> onnx.ModelProto:
    """Return an x2 network that adds a small residual to nearest-neighbor upsampling."""
    random = np.random.default_rng(0)
    constants = {
        "w1": 0.1 * random.standard_normal((8, 3, 3, 3)),
        "b1": 0.1 * random.standard_normal(8),
        "slope": np.full((8, 1, 1), 0.25),
        "w2": 0.02 * random.standard_normal((12, 8, 3, 3)),
        "b2": np.zeros(12),
        "scales": np.array([1, 1, 2, 2]),
    }
    padded = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], "conv1", **padded),
        helper.make_node("PRelu", ["c1", "slope"], ["r1"], "prelu"),
        helper.make_node("Conv", ["r1", "w2", "b2"], ["c2"], "conv2", **padded),
        helper.make_node("DepthToSpace", ["c2"], ["residual"], "shuffle", blocksize=2, mode="CRD"),
        # The attributes that the exporter of torch writes, of which opset 17 knows only some.
        helper.make_node(
            "Resize",
            ["input", "", "scales"],
            ["base"],
            "resize",
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
            antialias=0,
            keep_aspect_ratio_policy="stretch",
        ),
        helper.make_node("Add", ["residual", "base"], ["output"], "add"),
    ]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 3, "h", "w"])
    result = helper.make_tensor_value_info("output", TensorProto.FLOAT, ["batch", 3, "oh", "ow"])
    held = [numpy_helper.from_array(np.float32(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "small", [source], [result], held)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def graphs() -> dict[Precision, onnx.ModelProto]:
    """Return the network for bytes, in each precision."""
    network = float_network()
    tiles = list(photos.batch(4, 48, 48, 3))
    quantizer = Quantizer(network, tiles, "percentile", lambda _: None)
    quantised = quantizer.quantize(quantizer.layers, fitted=False)
    wrapped = pixels.wrap(network, "rgb24")
    return {
        "fp32": wrapped,
        "fp16": to_half(wrapped, "fp16"),
        "int8": to_half(pixels.wrap(quantised, "rgb24"), "fp16"),
    }


def write_bundle(folder: Path) -> Path:
    """Write the bundle, and return its folder."""
    folder.mkdir()
    variants = []
    for precision, graph in graphs().items():
        path = folder / f"{precision}.onnx"
        onnx.save(graph, path)
        psnr = _QUALITY.get(precision)
        quality = None if psnr is None else Quality(psnr, 0.99, 1, None, 4)
        variants.append(Variant(path.name, sha256_of(path), precision, "rgb24", quality))
    # BF16 is computed from the file of FP32.
    bf16 = Quality(50.0, 0.99, 2, None, 4)
    variants.append(Variant("fp32.onnx", variants[0].sha256, "bf16", "rgb24", bf16))
    deep = pixels.wrap(float_network(), "rgb48")
    onnx.save(deep, folder / "fp32-rgb48.onnx")
    variants.append(
        Variant("fp32-rgb48.onnx", sha256_of(folder / "fp32-rgb48.onnx"), "fp32", "rgb48")
    )
    model: Model = dataclasses.replace(MODEL, halo=HALO)
    manifest = make(model, variants=tuple(variants), refused={"bf16": "not tried"})
    (folder / "manifest.json").write_text(manifest.to_json())
    return folder
