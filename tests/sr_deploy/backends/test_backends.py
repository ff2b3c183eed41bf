from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import backends
from sr_deploy.backends.base import LoadRequest, translate_error
from sr_deploy.backends.host import HostLane
from sr_deploy.backends.onnxruntime.version import TRUNCATES_HALF
from sr_deploy.bundle.manifest import Precision
from sr_deploy.errors import (
    BackendError,
    BackendMissingError,
    InvalidInputError,
    OutOfMemoryError,
)
from sr_deploy.tiling.planner import TilePlanner
from tests.sr_deploy import networks
from tests.sr_deploy.manifests import MODEL
from tests.sr_deploy.oracles import Convolutions, Frame, Inference, frame

NAMES = ("openvino", "onnxruntime")


@pytest.fixture
def job(tmp_path: Path) -> LoadRequest:
    model = dataclasses.replace(MODEL, halo=networks.LAYERS)
    networks.convolutions(tmp_path / "net.onnx", "rgb24", model)
    return LoadRequest(tmp_path / "net.onnx", model, "rgb24", "fp32", None, 1)


def opened(name: str, job: LoadRequest) -> Any:
    return backends.create(name).load(job).open_lane()


def run(lane: HostLane, image: Frame, tile: tuple[int, int] | None = None) -> Frame:
    height, width = image.shape[:2]
    model = dataclasses.replace(MODEL, halo=networks.LAYERS)
    out = np.zeros((2 * height, 2 * width, image.shape[2]), np.uint8)
    lane.run(image, TilePlanner(model).plan(height, width, None, tile), out)
    return out


def names(device: str | None = None) -> list[str]:
    return [each.name for each in backends.candidates("auto", device)]


def test_auto_yields_installed_backends_best_first(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names() == ["openvino", "onnxruntime"]
    monkeypatch.setattr(backends, "available", lambda: ("onnxruntime",))
    assert names() == ["onnxruntime"]


def test_a_named_backend_is_the_only_one() -> None:
    assert [each.name for each in backends.candidates("onnxruntime")] == ["onnxruntime"]


def test_auto_skips_backends_that_are_broken_or_lack_the_device(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "sr_deploy.backends.openvino.backend", raising=False)
    monkeypatch.delattr(backends, "openvino", raising=False)
    monkeypatch.setitem(sys.modules, "openvino", types.ModuleType("openvino"))
    monkeypatch.setattr(backends, "available", lambda: NAMES)
    monkeypatch.setattr(backends, "_installed", lambda _: True)
    assert names() == ["onnxruntime"]
    with pytest.raises(BackendError, match="'tpu'"):
        names("tpu")


def test_without_any_backend_auto_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(backends, "_installed", lambda _: False)
    with pytest.raises(BackendMissingError, match=r"pip install sr-deploy\[cpu\]"):
        names()


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_backend_names_the_package_to_install(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backends, "_installed", lambda _: False)
    with pytest.raises(BackendMissingError, match=rf"{name}.*pip install sr-deploy\[cpu\]"):
        backends.create(name)
    with pytest.raises(BackendMissingError, match=r"tensorrt.*pip install sr-deploy\[gpu\]"):
        backends.create("tensorrt")


def test_a_module_without_a_spec_does_not_count_as_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd = types.ModuleType("openvino")
    odd.__spec__ = None
    monkeypatch.setitem(sys.modules, "openvino", odd)
    assert "openvino" not in backends.available()
    assert "onnxruntime" in backends.available()


def test_a_broken_backend_is_not_reported_as_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = backends.BackendEntry("tests.sr_deploy.there_is_no_such_module", ("numpy",), "")
    monkeypatch.setitem(backends.REGISTRY, "broken", entry)
    with pytest.raises(BackendError, match="sr-doctor"):
        backends.create("broken")


def test_an_unknown_backend_is_rejected_with_the_known_names() -> None:
    with pytest.raises(InvalidInputError, match=r"'torch'.*auto.*tensorrt, tensorrt_rtx, openvino"):
        backends.create("torch")


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_device_is_rejected_with_the_known_devices(name: str) -> None:
    backend = backends.create(name)
    with pytest.raises(BackendError, match=r"(?i)cpu"):
        backend.precisions("tpu")


def test_cuda_without_its_provider_names_the_package_to_install() -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this build of ONNX Runtime has CUDA")
    with pytest.raises(BackendError, match="onnxruntime-gpu"):
        backends.create("onnxruntime").precisions("cuda")


@pytest.mark.parametrize("name", NAMES)
def test_an_invalid_network_file_is_a_backend_error(
    name: str, job: LoadRequest, tmp_path: Path
) -> None:
    (tmp_path / "text.onnx").write_text("this is no network")
    with pytest.raises(BackendError, match=r"text\.onnx"):
        backends.create(name).load(dataclasses.replace(job, file=tmp_path / "text.onnx"))


def test_backends_agree(job: LoadRequest) -> None:
    image = frame(37, 53)
    lanes = [opened(name, job) for name in NAMES]
    first, second = (run(lane, image).astype(int) for lane in lanes)
    # Sums of other order may round to the other side.
    assert np.abs(first - second).max() <= 1
    assert first.std() > 10


@pytest.mark.parametrize("name", NAMES)
def test_a_lane_is_usable_after_other_shapes_and_after_release(name: str, job: LoadRequest) -> None:
    lane = opened(name, job)
    image = frame(40, 30)
    first = run(lane, image)
    for size in ((1, 1), (64, 20), (40, 31)):
        run(lane, frame(*size))
    assert np.array_equal(run(lane, image), first)
    lane._inference.release()
    assert np.array_equal(run(lane, image), first)


@pytest.mark.parametrize("name", NAMES)
def test_tiled_frames_equal_whole_frames_within_one_level(name: str, job: LoadRequest) -> None:
    lane = opened(name, job)
    for seed, (size, tile) in enumerate(
        [((70, 90), (30, 40)), ((33, 200), (33, 50)), ((101, 11), (16, 11))]
    ):
        image = frame(*size, seed=seed)
        whole, tiled = run(lane, image).astype(int), run(lane, image, tile)
        # A backend may take other kernels for other shapes, which sum in another order.
        assert np.abs(whole - tiled).max() <= 1


def test_openvino_compiles_for_a_repeated_shape_with_the_same_result(
    job: LoadRequest,
) -> None:
    lane = opened("openvino", job)
    requests = lane._inference
    requests._price = 1e-9  # any frame takes longer
    image = frame(40, 30)
    results, compiled = [], []
    for each in (image, image, image, frame(30, 40)):
        results.append(run(lane, each))
        compiled.append(requests._special)
    assert [each is None for each in compiled] == [True, False, False, True]
    assert compiled[1] is compiled[2]
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_openvino_does_not_recompile_networks_with_a_fixed_shape(tmp_path: Path) -> None:
    model = dataclasses.replace(MODEL, fixed_size=(32, 32), fixed_batch=1)
    networks.convolutions(tmp_path / "net.onnx", "rgb24", model)
    job = LoadRequest(tmp_path / "net.onnx", model, "rgb24", "fp32", None, 1)
    lane = opened("openvino", job)
    lane._inference._price = 0.0
    for _ in range(3):
        run(lane, frame(32, 32))
    assert lane._inference._special is None


def has_bf16() -> bool:
    import openvino

    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_precisions_are_sorted_fastest_first() -> None:
    half = ("bf16",) if has_bf16() else ()
    assert backends.create("openvino").precisions(None) == ("int8", *half, "fp32", "fp16")
    assert backends.create("onnxruntime").precisions(None) == ("fp32", "int8", "fp16")


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16", "int8"])
def test_openvino_computes_in_the_requested_precision(
    job: LoadRequest, precision: Precision
) -> None:
    if precision == "bf16" and not has_bf16():
        pytest.skip("this CPU has no BF16")
    lane = opened("openvino", dataclasses.replace(job, precision=precision))
    compiled = lane._inference._general
    hint = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    # What is float in an INT8 network is computed in BF16 where that is faster.
    halves = precision == "bf16" or (precision == "int8" and has_bf16())
    assert hint == ("bf16" if halves else "f32")
    assert compiled.get_property("INFERENCE_NUM_THREADS") == 1


@pytest.mark.parametrize("special", [False, True])
def test_openvino_computes_the_convolutions_of_an_int8_network_in_int8(
    tmp_path: Path, special: bool
) -> None:
    import openvino

    if "INT8" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        pytest.skip("OpenVINO has no INT8 on this CPU")
    networks.quantized(tmp_path / "int8.onnx", "rgb24", MODEL)
    lane = opened("openvino", LoadRequest(tmp_path / "int8.onnx", MODEL, "rgb24", "int8", None, 1))
    requests = lane._inference
    requests._price = 0.0 if special else 1e9
    for _ in range(2):
        run(lane, frame(40, 30))
    assert (requests._special is not None) is special
    compiled = requests._special or requests._general
    kinds = []
    for operation in compiled.get_runtime_model().get_ordered_ops():
        told = {key: value.astype(str) for key, value in operation.get_rt_info().items()}
        if told["layerType"] == "Convolution":
            kinds.append(told["runtimePrecision"])
    # The first and the last are float in the file.
    assert len(kinds) == networks.LAYERS + 2
    assert sum(kind in ("i8", "u8") for kind in kinds) == networks.LAYERS


@pytest.mark.parametrize("name", NAMES)
def test_an_int8_network_is_close_to_its_float_network(name: str, tmp_path: Path) -> None:
    if name == "onnxruntime" and TRUNCATES_HALF:
        pytest.skip("this ONNX Runtime computes INT8 inaccurately, and rejects it")
    image = frame(40, 30) // 8 + 100
    results = []
    for precision, write in (("fp32", networks.unquantized), ("int8", networks.quantized)):
        path = tmp_path / f"{precision}.onnx"
        write(path, "rgb24", MODEL)
        lane = opened(name, LoadRequest(path, MODEL, "rgb24", precision, None, 1))
        results.append(run(lane, image).astype(int))
    # Five layers of random weights, scales guessed: some levels. Nonsense would differ by tens.
    assert 0 < np.abs(results[0] - results[1]).mean() < 4
    assert results[0].std() > 10


@pytest.mark.parametrize(
    "text",
    [
        "std::bad_alloc",
        "Failed to allocate memory for requested buffer of size 123",
        "CUDA out of memory",
        "[ CPU ] Could not allocate memory",
    ],
)
def test_out_of_memory_errors_are_recognized(text: str) -> None:
    assert isinstance(translate_error(RuntimeError(text), "x"), OutOfMemoryError)


def test_other_errors_have_one_line() -> None:
    found = translate_error(RuntimeError("bad\n  shape " + "x" * 1000), "x")
    assert isinstance(found, BackendError)
    assert "\n" not in str(found)
    assert len(str(found)) < 600
    assert "KeyError" in str(translate_error(KeyError(), "x"))


def test_openvinos_long_errors_are_shortened() -> None:
    text = (
        "Exception from src/inference/src/cpp/core.cpp:84:\n"
        "Check 'false' failed at src/frontends/unconverted_ops_report.cpp:151:\n"
        "FrontEnd API failed with OpConversionFailure:\n"
        "Model wasn't fully converted.\n"
        "Summary:\n"
        "-- No conversion rule found for operations: Det-20\n"
        "To facilitate the conversion of unsupported operations, refer to ...\n\n"
    )
    found = translate_error(RuntimeError(text), "OpenVINO cannot read net.onnx")
    expected = "OpenVINO cannot read net.onnx: No conversion rule found for operations: Det-20"
    assert str(found) == expected
    bare = "Exception from src/inference/src/cpp/core.cpp:84:"
    assert str(translate_error(RuntimeError(bare), "x")) == f"x: {bare}"


def test_a_whole_frame_is_not_copied() -> None:
    network = Convolutions(depth=1)
    seen = []

    class Watched(Inference):
        def infer(self, pixels: Frame, into: Frame, color: object = None) -> None:
            seen.append((pixels, into))
            super().infer(pixels, into)

    image, out = frame(20, 30), np.zeros((40, 60, 3), np.uint8)
    plan = TilePlanner(network.model).plan(20, 30)
    HostLane(Watched(network), network.model, "rgb24").run(image, plan, out)
    ((pixels, into),) = seen
    assert np.shares_memory(pixels, image)
    assert np.shares_memory(into, out)


@pytest.mark.parametrize("batch", [2, 3, 64])
def test_tiles_run_in_batches(batch: int) -> None:
    network = Convolutions(depth=1)
    inference = Inference(network)
    image = frame(100, 100)
    plan = TilePlanner(network.model).plan(100, 100, None, (30, 30))
    out = np.zeros((200, 200, 3), np.uint8)
    lane = HostLane(inference, network.model, "rgb24")
    lane.run(image, dataclasses.replace(plan, batch=batch), out)
    assert np.array_equal(out, network(image))
    assert sum(shape[0] for shape in inference.shapes) == len(plan)
    assert max(shape[0] for shape in inference.shapes) == min(batch, len(plan))


def test_a_fixed_batch_is_always_filled() -> None:
    network = Convolutions(depth=1)
    model = dataclasses.replace(network.model, fixed_batch=4)
    inference = Inference(network)
    lane = HostLane(inference, model, "rgb24")
    for size, tile in (((30, 30), None), ((100, 70), (40, 40))):
        image, out = frame(*size), np.zeros((2 * size[0], 2 * size[1], 3), np.uint8)
        lane.run(image, TilePlanner(model).plan(*size, None, tile), out)
        assert np.array_equal(out, network(image))
    assert {shape[0] for shape in inference.shapes} == {4}


def test_16_bit_samples_are_blended_as_integers() -> None:
    class Level:
        """Gives each tile one 16-bit level, by its position in the frame."""

        scale = 1

        def __call__(self, pixels: Frame) -> Frame:
            level = np.uint16(0x00FF if pixels[0, 0, 0] == 0 else 0x0101)
            return np.full((*pixels.shape[:2], 1), level).view(np.uint8)

    model = dataclasses.replace(MODEL, scale=1, halo=None, channels=1)
    image = np.zeros((40, 100, 2), np.uint8)
    image[:, 1:] = 1
    plan = TilePlanner(model).plan(40, 100, None, (40, 70))
    assert plan.blended
    out = np.zeros_like(image)
    HostLane(Inference(Level()), model, "gray16").run(image, plan, out)
    # Between 0x00FF and 0x0101; mixing bytes on their own would give 0x0000 to 0x01FF.
    assert set(np.unique(out.view("<u2"))) == {0xFF, 0x100, 0x101}


def test_after_out_of_memory_a_lane_keeps_no_buffers_and_is_usable() -> None:
    network = Convolutions(depth=1)
    inference = Inference(network, most_pixels=1000)
    lane = HostLane(inference, network.model, "rgb24")
    image, out = frame(100, 100), np.zeros((200, 200, 3), np.uint8)
    with pytest.raises(OutOfMemoryError):
        lane.run(image, TilePlanner(network.model).plan(100, 100, None, (60, 60)), out)
    assert inference.released == 1
    assert lane._tiles.size == lane._results.size == 0
    lane.run(image, TilePlanner(network.model).plan(100, 100, None, (30, 30)), out)
    assert np.array_equal(out, network(image))


def test_buffers_are_reused_for_frames_of_the_same_size() -> None:
    network = Convolutions(depth=1)
    lane = HostLane(Inference(network), network.model, "rgb24")
    out = np.zeros((200, 200, 3), np.uint8)
    plan = TilePlanner(network.model).plan(100, 100, None, (60, 60))
    lane.run(frame(100, 100), plan, out)
    first = lane._tiles
    lane.run(frame(100, 100, seed=1), plan, out)
    assert lane._tiles is first


def test_numpys_memory_error_becomes_an_out_of_memory_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Convolutions(depth=1)
    lane = HostLane(Inference(network), network.model, "rgb24")
    monkeypatch.setattr(lane, "_reserve", lambda *_: np.empty(1 << 60, np.uint8))
    plan = TilePlanner(network.model).plan(100, 100, None, (60, 60))
    with pytest.raises(OutOfMemoryError, match="60x60"):
        lane.run(frame(100, 100), plan, np.zeros((200, 200, 3), np.uint8))
