"""A manifest that does not fit its networks is refused when the bundle is opened."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto

from sr_deploy import Engine
from sr_deploy.bundle import network_fit
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Latent, Model, PixelFormat
from sr_deploy.errors import BundleError
from tests.sr_deploy import networks
from tests.sr_deploy.manifests import MODEL

LATENT = Latent(size=5, height=6, width=8)
Write = Callable[[Path, PixelFormat, Model], None]


def written(folder: Path, write: Write = networks.convolutions, **changes: Any) -> Path:
    path = folder / "net.onnx"
    write(path, "rgb24", dataclasses.replace(MODEL, **changes))
    return path


def changed(path: Path, change: Callable[[onnx.GraphProto], None]) -> Path:
    model = onnx.load(path)
    change(model.graph)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize("write", [networks.nearest, networks.convolutions, networks.quantized])
@pytest.mark.parametrize(
    "same", [{}, {"scale": 3}, {"fixed_size": (40, 48)}, {"fixed_batch": 2}, {"minimum": 71}]
)
def test_networks_that_fit_pass(tmp_path: Path, write: Write, same: dict[str, Any]) -> None:
    path = written(tmp_path, write, **same)
    network_fit.check(path, dataclasses.replace(MODEL, **same), "rgb24")


@pytest.mark.parametrize(
    ("graph", "manifest", "numbers"),
    [
        ({"scale": 1}, {}, ("1x64x64x3", "1x128x128x3")),
        ({"scale": 4}, {}, ("1x256x256x3", "1x128x128x3")),
        ({}, {"scale": 64}, ("1x128x128x3", "1x4096x4096x3")),
        ({}, {"channels": 1}, ("1x64x64x3", "1x64x64x1")),
        ({"fixed_size": (32, 48)}, {}, ("1x32x48x3", "1x64x64x3")),
        ({"fixed_size": (32, 48)}, {"fixed_size": (48, 32)}, ("1x32x48x3", "1x48x32x3")),
        ({"fixed_batch": 2}, {}, ("2x64x64x3", "1x64x64x3")),
        ({"fixed_batch": 2}, {"fixed_batch": 4}, ("2x64x64x3", "4x64x64x3")),
        ({}, {"latent": LATENT}, ("uint8", "float32")),
    ],
)
def test_a_manifest_that_lies_is_refused_with_both_numbers(
    tmp_path: Path, graph: dict[str, Any], manifest: dict[str, Any], numbers: tuple[str, str]
) -> None:
    path = written(tmp_path, **graph)
    with pytest.raises(BundleError) as caught:
        network_fit.check(path, dataclasses.replace(MODEL, **manifest), "rgb24")
    assert all(each in str(caught.value) for each in (path.name, *numbers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("pixel_format", "numbers"),
    [
        ("rgb48", ("1x64x64x3", "1x64x64x6")),
        ("nv12", ("1 inputs", "2 and 1")),
        ("p010", ("1 inputs", "2 and 1")),
    ],
)
def test_a_file_of_another_pixel_format_is_refused(
    tmp_path: Path, pixel_format: PixelFormat, numbers: tuple[str, str]
) -> None:
    path = written(tmp_path)
    with pytest.raises(BundleError) as caught:
        network_fit.check(path, MODEL, pixel_format)
    assert all(each in str(caught.value) for each in numbers)


@pytest.mark.parametrize(
    "wrong", [{"size": 4}, {"height": 7}, {"width": 7}, {"height": 8, "width": 6}]
)
def test_generators_are_compared_too(tmp_path: Path, wrong: dict[str, int]) -> None:
    model = dataclasses.replace(MODEL, latent=LATENT)
    path = tmp_path / "net.onnx"
    networks.generator(path, "rgb24", model)
    network_fit.check(path, model, "rgb24")
    lying = dataclasses.replace(model, latent=dataclasses.replace(LATENT, **wrong))
    with pytest.raises(BundleError, match=r"1x\d.* 1x\d"):
        network_fit.check(path, lying, "rgb24")


def _floats_out(graph: onnx.GraphProto) -> None:
    graph.node[-1].attribute[0].i = TensorProto.FLOAT
    graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _floats_in(graph: onnx.GraphProto) -> None:
    graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT


def _signed(graph: onnx.GraphProto) -> None:
    graph.output[0].type.tensor_type.elem_type = TensorProto.INT8


def _two_inputs(graph: onnx.GraphProto) -> None:
    graph.input.append(graph.input[0])
    graph.input[1].name = "more"


def _two_outputs(graph: onnx.GraphProto) -> None:
    graph.output.append(graph.output[0])
    graph.output[1].name = graph.node[0].output[0]


def _no_output(graph: onnx.GraphProto) -> None:
    del graph.output[:]


def _no_shape(graph: onnx.GraphProto) -> None:
    del graph.input[0].type.tensor_type.shape.dim[:]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (_floats_out, "float32.*output.*uint8"),
        (_floats_in, "float32.*input.*uint8"),
        (_signed, r"\b3\b.*output.*uint8"),
        (_two_inputs, "2 inputs.* 1 and 1"),
        (_two_outputs, "2 outputs.* 1 and 1"),
        (_no_output, "0 outputs.* 1 and 1"),
        (_no_shape, "1x64x64x3"),
    ],
)
def test_other_ends_are_refused(
    tmp_path: Path, change: Callable[[onnx.GraphProto], None], found: str
) -> None:
    path = changed(written(tmp_path), change)
    with pytest.raises(BundleError, match=found):
        network_fit.check(path, MODEL, "rgb24")


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("field", [("scale", 3), ("channels", 1)])
def test_an_engine_does_not_open_such_a_bundle(
    tmp_path: Path, backend: str, field: tuple[str, int]
) -> None:
    folder = networks.bundle(tmp_path / "net.srd", formats=("rgb24",))
    path = folder / "manifest.json"
    content = json.loads(path.read_text())
    content["model"][field[0]] = field[1]
    if field[0] == "channels":
        content["variants"][0]["pixel_format"] = "gray8"
    path.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"fp32-rgb24\.onnx"):
        Engine(folder, backend=backend)


def test_a_variant_that_names_a_file_of_another_one_is_refused(tmp_path: Path) -> None:
    folder = networks.bundle(tmp_path / "net.srd")
    opened = Bundle.open(folder)
    shallow, deep = opened.manifest.variants
    swapped = dataclasses.replace(shallow, file=deep.file, sha256=deep.sha256)
    with pytest.raises(BundleError, match=r"1x64x64x6.*1x64x64x3"):
        opened.network(swapped)
