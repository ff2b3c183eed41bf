from __future__ import annotations

import dataclasses
import functools
import importlib.metadata
import inspect
import logging
import re
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from sr_deploy import Engine, backends
from sr_deploy.backends.cuda import driver
from sr_deploy.bundle import plan_store
from sr_deploy.bundle.manifest import Latent, Precision
from sr_deploy.bundle.plan_store import SCHEMA, GpuInfo, PlanRecord, Shape, Shapes
from sr_deploy.errors import (
    BackendError,
    BackendMissingError,
    InvalidInputError,
    OutOfMemoryError,
)
from sr_deploy.files import sha256_of
from sr_deploy.tiling import native
from tests.fakes import tensorrt as fake_tensorrt
from tests.fakes.cuda import FakeCuda, Status
from tests.sr_deploy import networks
from tests.sr_deploy.manifests import MODEL
from tests.sr_deploy.oracles import Convolutions, frame

NETWORK = Convolutions(depth=2)
LATENT = Latent(size=5, height=6, width=8)
Store = Callable[..., PlanRecord]


@pytest.fixture(params=["8.6.0", "10.3.0", "11.4.0.106"])
def tensorrt(
    request: pytest.FixtureRequest, gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A fake TensorRT of each kind, imported afresh by the library."""
    monkeypatch.setattr(native, "kernels", lambda: b"kernels")

    def network(batch: np.ndarray) -> np.ndarray:
        return np.stack([_computed(each) for each in batch])

    yield fake_tensorrt.install(monkeypatch, request.param, gpu, network)
    fake_tensorrt.uninstall()


def _computed(each: np.ndarray) -> np.ndarray:
    """Return the result of an image, or of the noise of a generator."""
    if each.dtype == np.uint8:
        return NETWORK(each)
    model = dataclasses.replace(MODEL, latent=LATENT)
    levels = (each @ networks.mixing(model) + 128).clip(0, 255)
    return levels.round().astype(np.uint8).reshape(LATENT.height, LATENT.width, 3)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    halo = NETWORK.halo
    return networks.bundle(tmp_path / "net.srd", formats=("rgb24",), halo=halo)


def kept(
    bundle: Path,
    tensorrt: Any,
    precision: Precision,
    least: Shape = (1, 40, 50),
    most: Shape | None = None,
    rows: bool = False,
    floats: bool = False,
    **changes: Any,
) -> PlanRecord:
    """Put a plan into a bundle, as the builder does; if it was refused, only its record."""
    most = most or least
    record = PlanRecord(
        schema=SCHEMA,
        onnx=sha256_of(bundle / f"{precision}-rgb24.onnx"),
        precision=precision,
        tensorrt=tensorrt.__version__,
        device=GpuInfo("Fake GPU", (9, 0), "for CUDA 12.8"),
        shapes=Shapes(least, most, most),
        reach="gpu",
        version_compatible=False,
        settings={},
        plan=None,
        refused=(),
        device_memory=1000,
    )
    record = dataclasses.replace(record, **changes)
    content = fake_tensorrt.plan(least, most, memory=record.device_memory, rows=rows, floats=floats)
    plan = plan_store.write(bundle, record, None if record.refused else content)
    return record if plan is None else plan.record


@pytest.fixture
def store(bundle: Path, tensorrt: Any) -> Store:
    """Put plans of FP32 into the bundle."""
    return functools.partial(kept, bundle, tensorrt, "fp32")


@pytest.mark.parametrize("most", [1, 4, 16])
def test_a_generator_uses_the_batches_of_its_plan(tmp_path: Path, tensorrt: Any, most: int) -> None:
    folder = networks.bundle(
        tmp_path / "g.srd", networks.generator, ("rgb24",), scale=1, latent=LATENT
    )
    kept(folder, tensorrt, "fp32", (1, 1, 5), (most, 1, 5), rows=True)
    noise = np.random.default_rng(0).standard_normal((19, 5), np.float32)
    with opened(folder) as engine:
        assert engine.spec.backend == "tensorrt"
        for _ in range(4):
            images = engine.generate(noise)
            assert np.array_equal(images, np.stack([_computed(each) for each in noise]))


@pytest.mark.parametrize("scale", [1, 3])
@pytest.mark.parametrize("size", [(40, 50), (90, 70)])
@pytest.mark.parametrize("kernels", [True, False])
def test_a_plan_of_another_scale_never_runs(
    bundle: Path,
    tensorrt: Any,
    store: Store,
    gpu: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
    scale: int,
    size: tuple[int, int],
    kernels: bool,
) -> None:
    """Whole frames and tiles: the GPU would write beyond the memory of the result, or less."""
    if not kernels:
        monkeypatch.setattr(native, "kernels", lambda: None)
    tensorrt.network = lambda batch: batch.repeat(scale, 1).repeat(scale, 2)
    store((4, 40, 50))
    store((1, 40, 50))
    with opened(bundle) as engine:
        for results in (map(engine.upscale, [frame(*size)]), engine.stream([frame(*size)])):
            with pytest.raises(BackendError) as caught:
                next(iter(results))
            assert not isinstance(caught.value, OutOfMemoryError)
            expected, found = (f"{each * 40}x{each * 50}x3" for each in (2, scale))
            assert expected in str(caught.value)
            assert found in str(caught.value)


def test_a_generators_plan_of_another_size_never_runs(tmp_path: Path, tensorrt: Any) -> None:
    folder = networks.bundle(
        tmp_path / "g.srd", networks.generator, ("rgb24",), scale=1, latent=LATENT
    )
    tensorrt.network = lambda batch: np.zeros((len(batch), 8, 6, 3), np.uint8)
    kept(folder, tensorrt, "fp32", (1, 1, 5), (4, 1, 5), rows=True)
    with opened(folder) as engine, pytest.raises(BackendError, match=r"4x8x6x3.*4x6x8x3"):
        engine.generate(count=4, seed=0)


def test_a_plan_with_floats_as_result_is_rejected(bundle: Path, store: Store) -> None:
    store((1, 40, 50), floats=True)
    with pytest.raises(BackendError, match=r"upscaled.*FLOAT.*UINT8"):
        opened(bundle)


def test_a_generator_that_exceeds_gpu_memory_suggests_a_smaller_batch(
    tmp_path: Path, tensorrt: Any
) -> None:
    folder = networks.bundle(
        tmp_path / "g.srd", networks.generator, ("rgb24",), scale=1, latent=LATENT
    )
    kept(folder, tensorrt, "fp32", (1, 1, 5), (16, 1, 5), rows=True)
    with pytest.raises(OutOfMemoryError, match=r"2 KiB.* --engine --batch 1$"):
        opened(folder, memory=2048)


def install_builder(monkeypatch: pytest.MonkeyPatch, build: Callable[..., object]) -> None:
    """Install a function as the entry point that builds plans."""
    entry = types.SimpleNamespace(load=lambda: build)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [entry])


def opened(bundle: Path, **more: Any) -> Engine:
    return Engine(bundle, backend="tensorrt", build="never", **more)


def test_a_frame_of_the_plans_size_is_not_tiled(bundle: Path, store: Store) -> None:
    store((1, 40, 50))
    image = frame(40, 50)
    with opened(bundle) as engine:
        for _ in range(4):
            assert np.array_equal(engine.upscale(image), NETWORK(image))
        assert engine.spec.backend == "tensorrt"
        assert engine.spec.device == "cuda:0"
        assert engine.spec.lanes == 3


@pytest.mark.parametrize("size", [(40, 50), (41, 50), (130, 90), (7, 9), (1, 1)])
def test_a_plan_for_one_size_upscales_frames_of_any_size(
    bundle: Path, store: Store, size: tuple[int, int]
) -> None:
    store((1, 40, 50))
    image = frame(*size)
    with opened(bundle) as engine:
        for _ in range(4):
            assert engine.upscale(image).shape == (2 * size[0], 2 * size[1], 3)
        if min(size) >= 40:  # reflected frames see other neighbors than the network's zeros
            assert np.array_equal(engine.upscale(image), NETWORK(image))


@pytest.mark.parametrize("size", [(30, 30), (64, 96), (96, 64), (200, 150)])
def test_a_plan_for_a_range_upscales_frames_of_any_size(
    bundle: Path, store: Store, size: tuple[int, int]
) -> None:
    """Whole where the range takes them, else in tiles within it."""
    store((1, 16, 16), (1, 64, 96))
    image = frame(*size)
    with opened(bundle) as engine:
        assert np.array_equal(engine.upscale(image), NETWORK(image))


def test_each_frame_uses_the_closest_of_several_plans(
    bundle: Path, store: Store, gpu: FakeCuda
) -> None:
    store((1, 40, 50))
    store((1, 16, 16), (1, 64, 96))
    store((1, 64, 64))
    with opened(bundle) as engine:
        network: Any = engine._session.pool("rgb24").network
        for size, most in {(40, 50): 40, (64, 64): 64, (50, 90): 64}.items():
            image = frame(*size)
            assert np.array_equal(engine.upscale(image), NETWORK(image))
            planner = network.tile_planner(*size)
            height = (planner.largest_tile or planner.model.fixed_size)[0]
            assert height == most


def test_the_users_tile_is_limited_by_the_plan(bundle: Path, store: Store) -> None:
    store((1, 16, 16), (1, 64, 96))
    image = frame(100, 120)
    for tile in (20, (30, 500), 64):
        with opened(bundle, tile=tile) as engine:
            assert np.array_equal(engine.upscale(image), NETWORK(image))


def test_without_a_plan_the_error_names_the_difference_and_the_command(
    bundle: Path, store: Store
) -> None:
    store((1, 40, 50), device=GpuInfo("Other GPU", (8, 6), ""))
    with pytest.raises(BackendError, match=r"Other GPU.*--engine fp32"):
        opened(bundle)


def test_without_a_plan_auto_uses_the_next_backend(
    bundle: Path, tensorrt: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), Engine(bundle, build="never") as engine:
        assert engine.spec.backend == "openvino"
    assert "fp32" in caplog.text


def test_a_missing_plan_is_built(
    bundle: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []

    def build(*arguments: Any) -> None:
        asked.append(arguments)
        store((1, 40, 50))

    install_builder(monkeypatch, build)
    with Engine(bundle, backend="tensorrt") as engine:
        image = frame(40, 50)
        assert np.array_equal(engine.upscale(image), NETWORK(image))
    assert asked == [(bundle, "fp32", "rgb24", 0)]
    assert "fp32" in caplog.text


def test_without_an_exporter_the_error_names_it(
    bundle: Path, tensorrt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    with pytest.raises(BackendError, match="exporter"):
        Engine(bundle, backend="tensorrt")


def test_the_project_declares_its_exporter_as_plan_builder(tensorrt: Any) -> None:
    from sr_deploy.backends.tensorrt.plans import PLAN_BUILDERS

    project = Path(__file__).parents[4].joinpath("pyproject.toml").read_text()
    declared = rf'\[project\.entry-points\."{PLAN_BUILDERS}"\]\ntensorrt = "(.+)"'
    found = re.search(declared, project)
    assert found is not None
    entry = importlib.metadata.EntryPoint("tensorrt", found[1], PLAN_BUILDERS)
    assert list(inspect.signature(entry.load()).parameters) == [
        *("folder", "precision", "pixel_format", "device"),
    ]


@pytest.fixture
def several(tmp_path: Path) -> Path:
    precisions: tuple[Precision, ...] = ("fp32", "fp16", "int8")
    return networks.bundle(
        tmp_path / "several.srd", formats=("rgb24",), precisions=precisions, halo=NETWORK.halo
    )


def test_auto_builds_fp16_if_the_gpu_has_no_fast_int8(
    several: Path,
    tensorrt: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked = []

    def build(folder: Path, precision: Precision, *_: Any) -> None:
        asked.append(precision)
        if precision == "int8":
            raise BackendError("no fast INT8 on this GPU")
        kept(folder, tensorrt, precision)

    install_builder(monkeypatch, build)
    image = frame(40, 50)
    with Engine(several) as engine:
        assert (engine.spec.backend, engine.spec.precision) == ("tensorrt", "fp16")
        assert np.array_equal(engine.upscale(image), NETWORK(image))
    assert asked == ["int8", "fp16"]
    assert re.search("no fast INT8 on this GPU.*fp16", caplog.messages[-1])
    with pytest.raises(BackendError, match="no fast INT8"):
        Engine(several, backend="tensorrt", precision="int8")
    assert asked == ["int8", "fp16", "int8"]


def test_a_refused_precision_is_not_built_again_and_auto_uses_the_next(
    several: Path, tensorrt: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kept(several, tensorrt, "int8", refused=("as exported: the images have one color",))
    kept(several, tensorrt, "fp16")
    with Engine(several, backend="tensorrt") as engine:
        assert engine.spec.precision == "fp16"
    (message,) = caplog.messages
    assert "one color" in message
    assert message.endswith("fp16")


def test_without_building_auto_uses_the_fastest_existing_plan(several: Path, tensorrt: Any) -> None:
    kept(several, tensorrt, "fp32")
    with opened(several) as engine:
        assert engine.spec.precision == "fp32"


def test_a_damaged_plan_never_reaches_tensorrt_and_is_built_again(
    bundle: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = store((1, 40, 50))
    assert record.plan is not None
    path = bundle / "engines" / record.plan.file
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(Exception, match="fp32"):
        opened(bundle)
    install_builder(monkeypatch, lambda *_: store((1, 40, 50)))
    with Engine(bundle, backend="tensorrt") as engine:
        assert engine.upscale(frame(40, 50)).shape == (80, 100, 3)


def test_errors_contain_tensorrts_message(bundle: Path, store: Store) -> None:
    record = store((1, 40, 50))
    content = b"from another world"
    plan_store.write(bundle, record, content)
    with pytest.raises(BackendError, match=r"fp32.*magic tag"):
        opened(bundle)


def test_gpu_memory_limits_the_number_of_lanes(bundle: Path, store: Store) -> None:
    record = store((1, 40, 50))
    frames = 40 * 50 * 3 * 5
    base = record.size + 1000
    for lanes in (1, 2):
        # The host's memory is another matter.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sr_deploy.engine.Budget.given", lambda _: _plenty())
            with opened(bundle, memory=base + lanes * frames) as engine:
                assert engine.spec.lanes == lanes
    with pytest.raises(OutOfMemoryError, match=r"GPU memory.*--memory"):
        opened(bundle, memory=base + frames - 1)


def _plenty() -> Any:
    from sr_deploy.runtime.memory import Budget

    return Budget(1 << 40, 0)


def test_out_of_gpu_memory_halves_the_tile(
    bundle: Path, store: Store, tensorrt: Any, gpu: FakeCuda, caplog: pytest.LogCaptureFixture
) -> None:
    store((1, 16, 16), (1, 200, 200), device_memory=1_000_000)
    image = frame(150, 150)
    with opened(bundle, lanes=1) as engine:
        # The frame, and half of it as a tile with its share of the intermediates; not all of them.
        gpu.total = 150 * 150 * 15 + 80 * 150 * 15 + 330_000
        if tensorrt.__version__.startswith("8."):  # which takes the most that any shape needs
            with pytest.raises(OutOfMemoryError):
                engine.upscale(image)
        else:
            assert np.array_equal(engine.upscale(image), NETWORK(image))
        gpu.total = 1 << 30
        assert np.array_equal(engine.upscale(image), NETWORK(image))
    assert "out of memory" in caplog.text


def test_devices_are_named_by_index(bundle: Path, store: Store) -> None:
    store((1, 40, 50))
    backend = backends.create("tensorrt")
    assert backend.precisions("cuda:0") == ("int8", "fp16", "bf16", "fp32")
    for name in ("cuda:1", "CPU", "cuda:x"):
        with pytest.raises(BackendError, match=r"cuda:0 \(Fake GPU\)"):
            backend.precisions(name)


def test_pinned_frames_are_page_locked(bundle: Path, store: Store, gpu: FakeCuda) -> None:
    store((1, 40, 50))
    with opened(bundle) as engine:
        image, out = engine.pinned_frame(40, 50), engine.pinned_frame(40, 50, scaled=True)
        assert driver.is_page_locked(image)
        image[...] = frame(40, 50)
        before = len(gpu.host)
        assert engine.upscale(image, out) is out
        assert np.array_equal(out, NETWORK(image))
        assert len(gpu.host) == before
        deep = engine.pinned_frame(4, 5, deep=True)
        assert deep.shape == (4, 5, 3)
        assert deep.dtype == np.uint16
        with pytest.raises(InvalidInputError, match="height"):
            engine.pinned_frame(0, 5)


def test_without_kernels_the_cpu_tiles(
    bundle: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "kernels", lambda: None)
    store((1, 40, 50))
    image = frame(90, 100)
    with opened(bundle) as engine:
        assert np.array_equal(engine.upscale(image), NETWORK(image))


def test_kernels_for_other_gpus_are_not_used(
    bundle: Path, store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(native, "kernels", lambda: b"for others")
    store((1, 40, 50))
    image = frame(90, 100)
    with opened(bundle) as engine:
        assert np.array_equal(engine.upscale(image), NETWORK(image))
    assert sum("NO_BINARY_FOR_GPU" in each for each in caplog.messages) == 1


def test_a_stream_keeps_the_order(bundle: Path, store: Store) -> None:
    store((1, 40, 50))
    images = [frame(40, 50, seed=i) for i in range(10)]
    with opened(bundle) as engine:
        for image, found in zip(images, engine.stream(images), strict=True):
            assert np.array_equal(found, NETWORK(image))


class OnDevice:
    """A frame of another library on the GPU."""

    def __init__(self, gpu: FakeCuda, values: Any) -> None:
        self.memory = driver.Memory(values.nbytes)
        self.gpu = gpu
        self.values[...] = values.ravel()
        self.__cuda_array_interface__ = {
            "version": 2,
            "shape": values.shape,
            "typestr": "|u1",
            "data": (self.memory.address, False),
        }

    @property
    def values(self) -> Any:
        return self.gpu.array(self.memory.address, self.memory.size)


@pytest.mark.parametrize("size", [(40, 50), (90, 100)])
def test_device_frames_never_use_host_memory_or_wait(
    bundle: Path, store: Store, gpu: FakeCuda, size: tuple[int, int]
) -> None:
    store((1, 40, 50))
    images = [frame(*size, seed=i) for i in range(5)]
    sources = [OnDevice(gpu, np.zeros_like(each)) for each in images]
    caller = driver.CudaStream()
    with opened(bundle) as engine:
        engine.upscale(sources[0], stream=caller.handle)  # makes what stays
        caller.synchronize()
        before, locked = len(gpu.calls), len(gpu.host)
        results = []
        for image, source in zip(images, sources, strict=True):
            made = gpu.put  # the caller's own work comes first in its stream

            def fill(image: Any = image, source: OnDevice = source) -> None:
                source.values[...] = image.ravel()

            made(caller.handle, fill)
            results.append(engine.upscale(source, stream=caller.handle))
        calls = gpu.calls[before:]
        assert not [each for each in calls if "Synchronize" in each or "Host" in each]
        assert len(gpu.host) == locked == 0
        caller.synchronize()
        for image, found in zip(images, results, strict=True):
            values = gpu.array(found.address, 4 * image.size)
            assert np.array_equal(values, NETWORK(image).ravel())


def test_device_results_are_written_to_the_callers_out(
    bundle: Path, store: Store, gpu: FakeCuda
) -> None:
    store((1, 40, 50))
    image = frame(40, 50)
    out = OnDevice(gpu, np.zeros((80, 100, 3), np.uint8))
    with opened(bundle) as engine:
        assert engine.upscale(OnDevice(gpu, image), out) is out
        driver.CudaStream(0).synchronize()
        assert np.array_equal(out.values, NETWORK(image).ravel())
        # And frames of the host in between, on the same lanes.
        assert np.array_equal(engine.upscale(image), NETWORK(image))


def test_a_device_frame_needs_an_engine_on_a_gpu(
    bundle: Path, tensorrt: Any, gpu: FakeCuda
) -> None:
    image = OnDevice(gpu, frame(40, 50))
    with (
        Engine(bundle, backend="onnxruntime") as engine,
        pytest.raises(InvalidInputError, match="backend='tensorrt'"),
    ):
        engine.upscale(image)


def test_tiling_a_device_frame_needs_kernels(
    bundle: Path, store: Store, gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "kernels", lambda: None)
    store((1, 40, 50))
    with opened(bundle) as engine:
        engine.upscale(OnDevice(gpu, frame(40, 50)))
        with pytest.raises(BackendError, match="nvcc"):
            engine.upscale(OnDevice(gpu, frame(90, 100)))
        driver.CudaStream(0).synchronize()


def test_unknown_values_of_build_are_rejected(bundle: Path) -> None:
    with pytest.raises(InvalidInputError, match="'sometimes'"):
        Engine(bundle, build=cast(Any, "sometimes"))


def test_auto_skips_tensorrt_silently_if_cuda_does_not_work(
    bundle: Path,
    tensorrt: Any,
    gpu: FakeCuda,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpu.failing["cudaGetDeviceCount"] = Status.cudaErrorNoDevice
    assert [each.name for each in backends.candidates("auto")] == ["openvino", "onnxruntime"]

    def missing() -> Any:
        raise BackendMissingError("needs cuda-python")

    monkeypatch.setattr(driver, "runtime_api", missing)
    with Engine(bundle) as engine:
        assert engine.spec.backend == "openvino"
    assert caplog.messages == []
    with pytest.raises(BackendMissingError, match="cuda-python"):
        Engine(bundle, backend="tensorrt")
