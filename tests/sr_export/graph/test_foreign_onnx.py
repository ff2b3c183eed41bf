"""ONNX files made by others, in the kinds that are found in the wild."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from sr_deploy import Engine
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.errors import CheckpointError
from sr_export import cli, photos
from sr_export.graph import foreign_onnx
from sr_export.graph.onnx_runner import OnnxRunner
from sr_export.graph.to_onnx import Strategy, export
from tests.sr_export.networks import Convolutions, Windowed, network


@pytest.fixture(scope="module")
def convolutions() -> onnx.ModelProto:
    torch.manual_seed(0)
    return export(network(Convolutions()), Strategy(1, None))


def _saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "other.onnx"
    onnx.save_model(model, path)
    return path


def _half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same in half precision, as a converter would write it."""
    half = onnx.ModelProto()
    half.CopyFrom(model)
    for weight in half.graph.initializer:
        narrow = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(narrow, weight.name))
    for value in (*half.graph.input, *half.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return half


def _framed(height: int, width: int) -> onnx.ModelProto:
    """A network of one size only: it adds an image of its own."""
    model = export(network(Convolutions()), Strategy(1, 1, (height, width)))
    frame = np.random.default_rng(1).random((1, 3, 2 * height, 2 * width)).astype(np.float32) / 99
    model.graph.initializer.append(numpy_helper.from_array(frame, "frame"))
    last = model.graph.output[0].name
    next(node for node in model.graph.node if last in node.output).output[0] = "unframed"
    model.graph.node.append(helper.make_node("Add", ["unframed", "frame"], [last]))
    return model


def test_a_dynamic_file(convolutions: onnx.ModelProto, tmp_path: Path) -> None:
    found = foreign_onnx.read(_saved(convolutions, tmp_path))
    assert (found.scale, found.channels, found.grid) == (2, 3, 1)
    assert (found.fixed_size, found.fixed_batch) == (None, None)


def test_a_fixed_file(tmp_path: Path) -> None:
    fixed = export(network(Convolutions()), Strategy(1, 1, (24, 32)))
    found = foreign_onnx.read(_saved(fixed, tmp_path))
    assert (found.scale, found.fixed_size, found.fixed_batch) == (2, None, None)


def test_a_file_that_cannot_be_freed_keeps_its_size(tmp_path: Path) -> None:
    found = foreign_onnx.read(_saved(_framed(24, 32), tmp_path))
    assert (found.scale, found.fixed_size) == (2, (24, 32))


@pytest.mark.slow
def test_a_file_for_images_of_few_pixels_becomes_a_bundle(tmp_path: Path) -> None:
    fixed = _framed(16, 24)
    assert cli.main([str(_saved(fixed, tmp_path)), "--accept", "--min-psnr", "int8=10"]) == 0
    folder = tmp_path / "other.srd"
    offered = Bundle.open(folder).manifest.variants
    assert {each.precision for each in offered} >= {"fp32", "fp16", "int8"}
    image = photos.batch(1, 45, 53, 3)[0]
    for precision in ("fp32", "fp16", "int8"):
        with Engine(folder, precision=precision) as engine:
            assert engine.upscale(image).shape == (90, 106, 3)


def test_a_half_precision_file_is_widened(convolutions: onnx.ModelProto, tmp_path: Path) -> None:
    half = _half(convolutions)
    found = foreign_onnx.read(_saved(half, tmp_path))
    image = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    expected = OnnxRunner(half)(image.astype(np.float16)).astype(np.float32)
    # half has 11 bits, and the file itself rounds after every layer
    np.testing.assert_allclose(OnnxRunner(found.model)(image), expected, atol=4e-3)
    assert not any(each.data_type == TensorProto.FLOAT16 for each in found.model.graph.initializer)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of torch, about itself
def test_a_file_that_needs_multiples_is_padded_inside(tmp_path: Path) -> None:
    module = Windowed().eval()
    image = torch.rand(1, 3, 16, 24)
    program = torch.onnx.export(  # without our padding: the even branch is frozen
        module,
        (image,),
        dynamo=True,
        verbose=False,
        dynamic_shapes=({2: 4 * torch.export.Dim("h"), 3: 4 * torch.export.Dim("w")},),
    )
    assert program is not None
    found = foreign_onnx.read(_saved(program.model_proto, tmp_path))
    assert (found.scale, found.grid) == (1, 4)
    padded = OnnxRunner(found.model)
    odd = np.random.default_rng(0).random((1, 3, 7, 13), np.float32)
    with torch.inference_mode():
        expected = module(torch.from_numpy(odd)).numpy()
    np.testing.assert_allclose(padded(odd), expected, atol=1e-5)
    np.testing.assert_allclose(found.reference(odd), expected, atol=1e-5)


def _graph(shape: list[int | str], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "relu",
        [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_graph(["n", 4, "h", "w"]), r"\?x4x\?x\?.*1 or 3 channels"),
        (_graph(["n", 1000]), "rank 2"),
        (_graph(["n", 3, "h", "w"], TensorProto.DOUBLE), "DOUBLE"),
    ],
)
def test_what_is_no_image_network_is_refused(
    model: onnx.ModelProto, message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        foreign_onnx.read(_saved(model, tmp_path))


def test_damaged_files_are_refused(convolutions: onnx.ModelProto, tmp_path: Path) -> None:
    path = _saved(convolutions, tmp_path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="not a valid ONNX file"):
        foreign_onnx.read(path)


def test_weights_outside_of_the_folder_are_not_read(tmp_path: Path) -> None:
    """A name in the file must not make us read other files of the user's."""
    (tmp_path / "secret").write_bytes(b"\0" * 1024)
    folder = tmp_path / "inner"
    folder.mkdir()
    model = _graph(["n", 3, "h", "w"])
    weight = model.graph.initializer.add(name="w", dims=[4], data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../secret"), ("offset", "0"), ("length", "16")):
        weight.external_data.add(key=key, value=value)
    (folder / "other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match="not a valid ONNX file"):
        foreign_onnx.read(folder / "other.onnx")
