"""Networks whose results differ from the manifest: no backend hands out a result that is undefined.

The graphs are loaded without the comparison that opening a bundle makes, or their shape depends on
the pixels, which no comparison can foresee.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sr_deploy import Engine, backends
from sr_deploy.backends.base import LoadRequest, check_result, translate_error
from sr_deploy.bundle import network_fit
from sr_deploy.bundle.manifest import Latent
from sr_deploy.errors import BackendError, OutOfMemoryError
from sr_deploy.files import sha256_of
from sr_deploy.runtime.yuv import YuvFrame
from sr_deploy.tiling.planner import TilePlanner
from tests.sr_deploy import networks
from tests.sr_deploy.manifests import MODEL
from tests.sr_deploy.oracles import frame

NAMES = ("openvino", "onnxruntime")
SIDE = 16
"""Side of the images that `growing` upscales honestly."""


def _network(path: Path, scale: str, more: dict[str, Any], nodes: list[Any], bytes_: int) -> None:
    """Write nearest-neighbor upsampling by a scale (1, 1, s, s) that nodes compute."""
    back = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}
    body = [
        *nodes,
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["floats"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Resize", ["planes", "", scale], ["large"], nearest_mode="floor", **back),
        helper.make_node("Transpose", ["large"], ["image"], perm=[0, 2, 3, 1]),
        helper.make_node("Cast", ["image"], ["upscaled"], to=TensorProto.UINT8),
    ]
    inputs = [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", "h", "w", bytes_])]
    if bytes_ == 1:
        inputs.append(helper.make_tensor_value_info("colour", TensorProto.FLOAT, [7, 3]))
    result = helper.make_tensor_value_info("upscaled", TensorProto.UINT8, ["n", None, None, None])
    constants = [numpy_helper.from_array(np.asarray(each), name) for name, each in more.items()]
    graph = helper.make_graph(body, "network", inputs, [result], constants)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def steady(path: Path, scale: float, bytes_: int = 3) -> None:
    """Write upsampling by a constant."""
    _network(path, "scales", {"scales": np.array([1, 1, scale, scale], np.float32)}, [], bytes_)


def growing(path: Path, other: float, bytes_: int = 3) -> None:
    """Write upsampling by 2, or by `other` if the brightest byte of the image is 255."""
    nodes = [
        helper.make_node("Cast", ["pixels"], ["levels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["levels"], ["brightest"], keepdims=0),
        helper.make_node("Equal", ["brightest", "white"], ["chosen"]),
        helper.make_node("Where", ["chosen", "other", "usual"], ["scales"]),
    ]
    constants = {
        "white": np.float32(255),
        "other": np.array([1, 1, other, other], np.float32),
        "usual": np.array([1, 1, 2, 2], np.float32),
    }
    _network(path, "scales", constants, nodes, bytes_)


def replaced(folder: Path, write: Callable[[Path], None]) -> Path:
    """Put another network into a bundle."""
    path = folder / "fp32-rgb24.onnx"
    before = sha256_of(path)
    write(path)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace(before, sha256_of(path)))
    return folder


def dark(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    return frame(height, width) // 2


def bright(height: int = SIDE, width: int = SIDE) -> np.ndarray:
    """Return a dark image with one white pixel, far from the corner."""
    image = dark(height, width)
    image[-1, -1] = 255
    return image


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("scale", [0.5, 1, 1.5, 3, 4])
@pytest.mark.parametrize("tile", [None, (20, 24)])
def test_a_lane_refuses_results_of_another_size(
    tmp_path: Path, name: str, scale: float, tile: tuple[int, int] | None
) -> None:
    steady(tmp_path / "net.onnx", scale)
    model = dataclasses.replace(MODEL, halo=2)
    request = LoadRequest(tmp_path / "net.onnx", model, "rgb24", "fp32", None, 1)
    network = backends.create(name).load(request)
    lane = network.open_lane()
    image, out = dark(40, 50), np.zeros((80, 100, 3), np.uint8)
    with pytest.raises(BackendError):
        lane.run(image, TilePlanner(model).plan(40, 50, None, tile), out)
    lane.close()
    network.close()


@pytest.mark.parametrize("name", NAMES)
def test_a_lane_refuses_floats(tmp_path: Path, name: str) -> None:
    steady(tmp_path / "net.onnx", 2)
    model = onnx.load(tmp_path / "net.onnx")
    model.graph.node[-1].attribute[0].i = TensorProto.FLOAT
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, tmp_path / "net.onnx")
    request = LoadRequest(tmp_path / "net.onnx", MODEL, "rgb24", "fp32", None, 1)
    lane = backends.create(name).load(request).open_lane()
    image, out = dark(), np.zeros((2 * SIDE, 2 * SIDE, 3), np.uint8)
    with pytest.raises(BackendError):
        lane.run(image, TilePlanner(MODEL).plan(SIDE, SIDE), out)


@pytest.fixture(params=[(name, other) for name in NAMES for other in (1.0, 3.0)])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine whose network gives another size for images with a white pixel."""
    name, other = request.param
    folder = networks.bundle(tmp_path / "net.srd", networks.nearest, ("rgb24",))
    replaced(folder, lambda path: growing(path, other))
    with Engine(folder, backend=name, threads=1) as opened:
        yield opened


def test_a_shape_that_depends_on_the_pixels_is_refused_when_it_differs(engine: Engine) -> None:
    """Whole frames, again and again: later ones run on a network for one shape."""
    expected = dark().repeat(2, 0).repeat(2, 1)
    for _ in range(3):
        assert np.array_equal(engine.upscale(dark()), expected)
        with pytest.raises(BackendError) as caught:
            engine.upscale(bright())
        assert not isinstance(caught.value, OutOfMemoryError)


def test_a_wrong_tile_fails_the_frame_without_smaller_tiles(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = networks.bundle(tmp_path / "net.srd", networks.nearest, ("rgb24",))
    replaced(folder, lambda path: growing(path, 1))
    for name in NAMES:
        with Engine(folder, backend=name, tile=(24, 24)) as engine:
            assert engine.upscale(dark(50, 60)).shape == (100, 120, 3)
            with pytest.raises(BackendError):
                engine.upscale(bright(50, 60))
    assert "out of memory" not in caplog.text


def test_a_stream_ends_at_the_wrong_frame(engine: Engine) -> None:
    results = engine.stream([dark(), dark(), bright(), dark()])
    assert np.array_equal(next(results), next(results))
    with pytest.raises(BackendError):
        next(results)


@pytest.mark.parametrize("name", NAMES)
def test_yuv_frames_are_compared_too(tmp_path: Path, name: str) -> None:
    folder = networks.bundle(tmp_path / "net.srd", networks.nearest, ("rgb24",))
    growing(folder / "yuv.onnx", 1, bytes_=1)
    manifest = folder / "manifest.json"
    variant = manifest.read_text().partition('"variants": [')[2].partition("]")[0]
    video = variant.replace("rgb24", "nv12").replace("fp32-nv12.onnx", "yuv.onnx")
    video = video.replace(sha256_of(folder / "fp32-rgb24.onnx"), sha256_of(folder / "yuv.onnx"))
    manifest.write_text(manifest.read_text().replace(variant, f"{variant},{video}"))
    with Engine(folder, backend=name, threads=1) as engine:
        samples = np.full((24, 16), 100, np.uint8)
        assert engine.upscale(YuvFrame(samples, "nv12")).samples.shape == (48, 32)
        samples[-1, -1] = 255
        with pytest.raises(BackendError):
            engine.upscale(YuvFrame(samples, "nv12"))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("lie", [{"height": 8}, {"width": 4}, {"height": 8, "width": 6}])
def test_generators_are_compared_too(tmp_path: Path, name: str, lie: dict[str, int]) -> None:
    honest = dataclasses.replace(MODEL, latent=Latent(size=5, height=6, width=8))
    model = dataclasses.replace(
        MODEL, latent=Latent(**({"size": 5, "height": 6, "width": 8} | lie))
    )
    networks.generator(tmp_path / "net.onnx", "rgb24", honest)
    request = LoadRequest(tmp_path / "net.onnx", model, "rgb24", "fp32", None, 1)
    lane = backends.create(name).load(request).open_lane()
    assert model.latent is not None
    images = np.zeros((2, model.latent.height, model.latent.width, 3), np.uint8)
    with pytest.raises(BackendError):
        lane.generate(np.zeros((2, 5), np.float32), images)


def test_the_text_has_both_shapes() -> None:
    check_result([1, 16, 16, 3], (1, 16, 16, 3), "x")
    with pytest.raises(BackendError, match=r"1x8x8x3.*1x16x16x3"):
        check_result([1, 8, 8, 3], (1, 16, 16, 3), "x")
    assert network_fit.shape_text((1, 2)) == "1x2"


@pytest.mark.parametrize(
    "text",
    [
        "2 : INVALID_ARGUMENT : The output has shape {1,16,16,3}, pre-allocated OrtValues must fit",
        "the allocated tensor has not the expected shape",
    ],
)
def test_errors_of_shapes_are_not_taken_for_memory(text: str) -> None:
    assert not isinstance(translate_error(RuntimeError(text), "x"), OutOfMemoryError)
