"""What is ONNX Runtime's own: its devices, and inputs that are brought to them."""

from __future__ import annotations

import dataclasses
import gc
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from sr_deploy import Engine, backends
from sr_deploy.backends.base import LoadRequest
from sr_deploy.backends.onnxruntime import backend
from sr_deploy.backends.onnxruntime.backend import DeviceInputs, HostInputs, OrtDevice
from sr_deploy.bundle.manifest import Latent, Precision
from sr_deploy.errors import BackendError, OutOfMemoryError
from tests.sr_deploy import networks
from tests.sr_deploy.manifests import MODEL
from tests.sr_deploy.oracles import frame

PROVIDERS = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]


def on_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have inputs copied to a device's memory first, where that device is the CPU."""
    monkeypatch.setattr(OrtDevice, "inputs", lambda _: DeviceInputs("cpu", 0))


@pytest.fixture
def by_device(monkeypatch: pytest.MonkeyPatch) -> None:
    on_device(monkeypatch)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return networks.bundle(tmp_path_factory.mktemp("bundles") / "net.srd")


def opened(bundle: Path, **more: Any) -> Engine:
    return Engine(bundle, backend="onnxruntime", threads=1, **more)


def inference(engine: Engine) -> Any:
    return engine._session.pool("rgb24")._idle.queue[0]._inference


def test_inputs_on_a_device_give_the_same_bits(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images: list[Any] = [frame(*size) for size in ((40, 30), (40, 30), (30, 40), (1, 1), (40, 30))]
    images += [each.astype(np.uint16) * 257 for each in images]
    with opened(bundle) as engine, opened(bundle, tile=20) as in_tiles:
        assert isinstance(inference(engine)._inputs, HostInputs)
        expected = [engine.upscale(image) for image in images]
        tiled = [in_tiles.upscale(image) for image in images]
    on_device(monkeypatch)
    with opened(bundle) as engine, opened(bundle, tile=20) as in_tiles:
        assert isinstance(inference(engine)._inputs, DeviceInputs)
        for image, whole, parts in zip(images, expected, tiled, strict=True):
            assert np.array_equal(engine.upscale(image), whole)
            assert np.array_equal(in_tiles.upscale(image), parts)


@pytest.mark.usefixtures("by_device")
def test_device_buffers_are_allocated_once_per_shape(bundle: Path) -> None:
    with opened(bundle) as engine:
        inputs = inference(engine)._inputs

        def taken(height: int, width: int) -> Any:
            engine.upscale(frame(height, width))
            return inputs._values["pixels"]

        first = taken(40, 30)
        assert taken(40, 30) is first
        other = taken(30, 40)
        assert other is not first
        assert tuple(other.shape()) == (1, 30, 40, 3)
        inference(engine).release()
        assert inputs._values == {}
        assert inputs._binding is None


@pytest.mark.parametrize("inputs", [HostInputs(), DeviceInputs("cpu", 0)], ids=["host", "device"])
def test_inference_keeps_no_reference_to_frames(
    bundle: Path, monkeypatch: pytest.MonkeyPatch, inputs: Any
) -> None:
    monkeypatch.setattr(OrtDevice, "inputs", lambda _: inputs)
    with opened(bundle) as engine:
        image, out = frame(40, 30)[None], np.empty((1, 80, 60, 3), np.uint8)
        held = [weakref.ref(image), weakref.ref(out)]
        inference(engine).infer(image, out)
        del image, out
        gc.collect()
        assert [each() for each in held] == [None, None]


@pytest.mark.usefixtures("by_device")
def test_each_lane_has_its_own_inputs(bundle: Path) -> None:
    images = [frame(50, 60, seed=number) for number in range(12)]
    with opened(bundle, lanes=2) as engine, ThreadPoolExecutor(4) as threads:
        expected = [engine.upscale(image) for image in images]
        for found, wanted in zip(threads.map(engine.upscale, images), expected, strict=True):
            assert np.array_equal(found, wanted)
        first, second = engine._session.pool("rgb24")._idle.queue
        assert first._inference._inputs is not second._inference._inputs


@pytest.mark.usefixtures("by_device")
def test_generators(tmp_path: Path) -> None:
    latent = Latent(size=5, height=6, width=9)
    folder = networks.bundle(
        tmp_path / "g.srd", networks.generator, ("rgb24",), scale=1, latent=latent
    )
    mixing = networks.mixing(dataclasses.replace(MODEL, latent=latent))
    with opened(folder) as engine:
        for count in (3, 3, 7):
            noise = np.random.default_rng(count).normal(size=(count, 5)).astype(np.float32)
            levels = (noise @ mixing + 128).clip(0, 255).reshape(count, 6, 9, 3)
            # Half a level of rounding, and what sums in another order differ by.
            assert np.abs(engine.generate(noise) - levels).max() <= 0.51


def test_out_of_memory_on_a_device_leaves_the_lane_usable(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_device(monkeypatch)
    image = frame(40, 30)
    with opened(bundle) as engine:
        expected = engine.upscale(image)
        inference(engine).release()
        with monkeypatch.context() as patch:

            def fail(*_: Any) -> None:
                raise RuntimeError("Failed to allocate memory for requested buffer of size 3600")

            patch.setattr(onnxruntime.OrtValue, "ortvalue_from_shape_and_type", fail)
            with pytest.raises(OutOfMemoryError):
                engine.upscale(image)
        assert np.array_equal(engine.upscale(image), expected)


@pytest.mark.usefixtures("by_device")
def test_an_invalid_shape_is_a_backend_error(bundle: Path) -> None:
    with opened(bundle) as engine:
        gray = np.zeros((1, 40, 30, 1), np.uint8)
        with pytest.raises(BackendError, match="ONNX Runtime: "):
            inference(engine).infer(gray, np.empty((1, 80, 60, 3), np.uint8))
        assert engine.upscale(frame(40, 30)).shape == (80, 60, 3)


class Session(onnxruntime.InferenceSession):  # type: ignore[misc]
    """Says that it runs where it was asked to run, and runs on the CPU."""

    asked: Any = None
    lacking = ""

    def __init__(self, path: str, options: Any, *, providers: Any, enable_fallback: bool) -> None:
        assert not enable_fallback
        Session.asked = providers
        super().__init__(path, options, providers=PROVIDERS[-1:])

    def get_providers(self) -> list[str]:
        return [name for name, _ in self.asked if name != self.lacking]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: PROVIDERS)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)


def cuda(index: int, *, tf32: str) -> tuple[str, dict[str, str]]:
    return "CUDAExecutionProvider", {"device_id": str(index), "use_tf32": tf32}


def tensorrt(index: int, half: str, integers: str) -> tuple[str, dict[str, str]]:
    flags = {"trt_fp16_enable": half, "trt_int8_enable": integers}
    return "TensorrtExecutionProvider", {"device_id": str(index)} | flags


@pytest.mark.usefixtures("gpus")
@pytest.mark.parametrize(
    ("device", "precision", "name", "providers"),
    [
        (None, "fp32", "cpu", [("CPUExecutionProvider", {})]),
        ("CUDA", "fp16", "cuda:0", [cuda(0, tf32="1")]),
        ("cuda:2", "fp32", "cuda:2", [cuda(2, tf32="0")]),
        ("tensorrt", "fp32", "tensorrt:0", [tensorrt(0, "False", "False"), cuda(0, tf32="0")]),
        ("tensorrt:1", "fp16", "tensorrt:1", [tensorrt(1, "True", "False"), cuda(1, tf32="1")]),
        ("tensorrt:1", "int8", "tensorrt:1", [tensorrt(1, "True", "True"), cuda(1, tf32="1")]),
    ],
)
def test_providers_get_the_index_and_the_precision(
    tmp_path: Path, device: str | None, precision: Precision, name: str, providers: Any
) -> None:
    networks.convolutions(tmp_path / "net.onnx", "rgb24", MODEL)
    job = LoadRequest(tmp_path / "net.onnx", MODEL, "rgb24", precision, device, 1)
    network = backends.create("onnxruntime").load(job)
    assert Session.asked == providers
    assert network.device == name
    lane: Any = network.open_lane()
    inputs = lane._inference._inputs
    if device is None:
        assert isinstance(inputs, HostInputs)
    else:
        assert inputs._device == ("cuda", int(name[-1]))


@pytest.mark.usefixtures("gpus")
def test_a_provider_that_does_not_start_is_an_error(
    bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Session, "lacking", "TensorrtExecutionProvider")
    with pytest.raises(BackendError, match=r"tensorrt:0.*sr-doctor"):
        opened(bundle, device="tensorrt")


@pytest.mark.usefixtures("gpus")
def test_precisions_come_fastest_first_on_every_device() -> None:
    backend = backends.create("onnxruntime")
    assert backend.precisions("cpu") == ("fp32", "int8", "fp16")
    assert backend.precisions("cuda:1") == ("fp16", "fp32", "int8")
    assert backend.precisions("tensorrt") == ("int8", "fp16", "fp32")


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cpu:1", "cuda:-1", "gpu"])
@pytest.mark.usefixtures("gpus")
def test_invalid_device_names_are_rejected(name: str) -> None:
    with pytest.raises(BackendError, match=rf"'{name}'.*cpu, cuda or tensorrt"):
        backends.create("onnxruntime").precisions(name)


def test_an_old_release_rejects_int8_on_cpus(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(backend, "TRUNCATES_HALF", True)
    networks.quantized(tmp_path / "int8.onnx", "rgb24", MODEL)
    request = LoadRequest(tmp_path / "int8.onnx", MODEL, "rgb24", "int8", None, 1)
    with pytest.raises(BackendError, match=rf"{onnxruntime.__version__}.*1\.30"):
        backends.create("onnxruntime").load(request)
