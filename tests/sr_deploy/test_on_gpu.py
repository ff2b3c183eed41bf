"""The GPU's lane and TensorRT on a real GPU."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy import Engine
from sr_deploy.backends.base import LoadRequest
from sr_deploy.backends.cuda import driver
from sr_deploy.backends.cuda.buffers import Scratch
from sr_deploy.backends.cuda.driver import CudaStream, Memory
from sr_deploy.backends.cuda.lane import CudaLane
from sr_deploy.backends.host import HostLane
from sr_deploy.bundle.manifest import Latent
from sr_deploy.tiling import native
from sr_deploy.tiling.planner import TilePlanner
from tests.sr_deploy import networks
from tests.sr_deploy.manifests import MODEL
from tests.sr_deploy.oracles import Frame, Inference, frame

pytestmark = pytest.mark.gpu

SAME = dataclasses.replace(MODEL, scale=1, halo=None)


class Copying:
    """A network that gives each pixel back."""

    def __init__(self) -> None:
        self._bound: tuple[Any, ...] = ()

    def bind(
        self,
        shape: tuple[int, ...],
        result_shape: tuple[int, ...],
        pixels: int,
        result: int,
        color: int | None,
    ) -> int:
        self._bound = shape, pixels, result
        return 1 << 20

    def lend(self, memory: Memory) -> None:
        pass

    def enqueue(self, stream: CudaStream) -> None:
        shape, pixels, result = self._bound
        size = int(np.prod(shape))
        driver.copy(result, pixels, (1, size), (size, size), stream)

    def close(self) -> None:
        pass


@pytest.fixture
def lane() -> Iterator[CudaLane]:
    driver.use(0)
    image = native.kernels()
    assert image is not None, "there is a GPU, but the kernels were not built"
    scratch = Scratch()
    job = LoadRequest(Path("x"), SAME, "rgb24", "fp32", None, 1)
    lane = CudaLane(Copying(), scratch, job, 0, driver.Kernels(image))
    yield lane
    lane.close()
    scratch.close()


@pytest.mark.parametrize("tile", [None, (64, 64), (100, 500)])
def test_results_equal_those_of_the_host_lane(lane: CudaLane, tile: tuple[int, int] | None) -> None:
    host = HostLane(Inference(lambda each: each), SAME, "rgb24")
    for seed in range(5):  # from the third on as a graph
        image = frame(333, 277, seed=seed)
        plan = TilePlanner(SAME).plan(333, 277, None, tile)
        expected, found = (frame(333, 277, seed=99) for _ in range(2))
        host.run(image, plan, expected)
        lane.run(image, plan, found)
        assert np.array_equal(found, expected)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("tensorrt")
    return networks.bundle(tmp_path_factory.mktemp("gpu") / "net.srd")


def exact(bundle: Path, image: Frame) -> np.ndarray:
    with Engine(bundle, backend="onnxruntime") as engine:
        return engine.upscale(image).astype(int)


@pytest.mark.parametrize("size", [(1080, 1920), (64, 64), (30, 40), (1200, 2000)])
def test_tensorrt_and_onnx_runtime_agree(bundle: Path, size: tuple[int, int]) -> None:
    image = frame(*size) // 4 + 90
    with Engine(bundle, backend="tensorrt", precision="fp32") as engine:
        expected = exact(bundle, image)
        for _ in range(4):
            # Sums of other order may round to the other side.
            assert np.abs(engine.upscale(image) - expected).max() <= 1


@pytest.mark.parametrize("device", ["cuda", "tensorrt"])
def test_onnx_runtime_agrees_between_gpu_and_cpu(tmp_path: Path, device: str) -> None:
    provider = {"cuda": "CUDAExecutionProvider", "tensorrt": "TensorrtExecutionProvider"}[device]
    onnxruntime = pytest.importorskip("onnxruntime")
    if provider not in onnxruntime.get_available_providers():
        pytest.skip(f"this build of ONNX Runtime has no {provider}")
    folder = networks.bundle(tmp_path / "net.srd")
    with Engine(folder, backend="onnxruntime", device=device, precision="fp32") as engine:
        assert engine.spec.device == f"{device}:0"
        for size in ((64, 96), (64, 96), (33, 200), (64, 96)):
            image = frame(*size) // 4 + 90
            # Sums of other order may round to the other side; the TensorRT provider rounds to TF32.
            assert np.abs(engine.upscale(image) - exact(folder, image)).max() <= 1


def test_tensorrt_and_onnx_runtime_generate_equal_images(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt")
    latent = Latent(size=100, height=64, width=64)
    folder = networks.bundle(
        tmp_path / "g.srd", networks.generator, ("rgb24",), scale=1, latent=latent
    )
    with (
        Engine(folder, backend="tensorrt", precision="fp32") as engine,
        Engine(folder, backend="onnxruntime") as other,
    ):
        for count in (1, 16, 37):
            expected = other.generate(count=count, seed=count).astype(int)
            found = engine.generate(count=count, seed=count)
            # Sums of other order may round to the other side.
            assert np.abs(found - expected).max() <= 1


def test_a_stream_equals_single_frames(bundle: Path) -> None:
    images = [frame(270, 480, seed=i) for i in range(12)]
    with Engine(bundle, backend="tensorrt", precision="fp32") as engine:
        single = [engine.upscale(each) for each in images]
        for expected, found in zip(single, engine.stream(images), strict=True):
            assert np.array_equal(found, expected)


def test_frames_of_torch_stay_on_the_gpu(bundle: Path) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("needs torch with CUDA")
    image = frame(270, 480)
    with Engine(bundle, backend="tensorrt", precision="fp32") as engine:
        expected = engine.upscale(image)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            source = torch.as_tensor(image).cuda(non_blocking=True)
            for result in (
                torch.from_dlpack(engine.upscale(source)),
                torch.from_dlpack(engine.upscale(source, stream=side)),
                torch.as_tensor(engine.upscale(source, stream=side), device="cuda"),
            ):
                assert np.array_equal(result.cpu().numpy(), expected)
