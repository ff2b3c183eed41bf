from __future__ import annotations

import dataclasses
import gc
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sr_deploy.backends.base import LoadRequest
from sr_deploy.backends.cuda import driver
from sr_deploy.backends.cuda.buffers import Scratch
from sr_deploy.backends.cuda.driver import CudaStream, Memory
from sr_deploy.backends.cuda.lane import CudaLane
from sr_deploy.backends.host import HostLane
from sr_deploy.bundle.manifest import Model
from sr_deploy.errors import BackendError, OutOfMemoryError
from sr_deploy.tiling.planner import TilePlan, TilePlanner
from tests.fakes import cuda as fake_cuda
from tests.fakes.cuda import FakeCuda, Status
from tests.sr_deploy.oracles import Convolutions, Frame, Inference, Pooling, frame

NETWORK = Convolutions(depth=2)


class FakeExecution:
    """An `Execution` that computes an oracle in the memory and stream of the fake GPU."""

    def __init__(self, cuda: FakeCuda, network: Any, scratch: int = 100) -> None:
        self.cuda, self.network, self.scratch = cuda, network, scratch
        self.scale = network.scale
        self.bound: tuple[Any, ...] = ()
        self.shapes: list[tuple[int, ...]] = []
        self.lent: Memory | None = None
        self.most_pixels = 1 << 40
        self.error: BaseException | None = None
        self.can_be_captured = True
        self.closed = False
        self.threads: set[int] = set()

    def bind(
        self,
        shape: tuple[int, ...],
        result_shape: tuple[int, ...],
        pixels: int,
        result: int,
        color: int | None,
    ) -> int:
        sides = (self.scale * shape[1], self.scale * shape[2])
        assert result_shape == (shape[0], *sides, shape[3])
        if shape[0] * shape[1] * shape[2] > self.most_pixels:
            raise OutOfMemoryError("too large for this test")
        self.bound = shape, pixels, result
        return self.scratch

    def lend(self, memory: Memory) -> None:
        self.lent = memory

    def capturable(self, stream: CudaStream) -> bool:
        return True

    def enqueue(self, stream: CudaStream) -> None:
        self.threads.add(threading.get_ident())
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if stream.handle in self.cuda.capturing and not self.can_be_captured:
            raise BackendError("this network cannot be captured")
        shape, pixels, result = self.bound
        assert self.lent is not None
        scratch = self.lent
        self.shapes.append(shape)

        def compute() -> None:
            self.cuda.array(scratch.address, scratch.size)[...] = 7
            batch = self.cuda.array(pixels, int(np.prod(shape))).reshape(shape)
            values = np.stack([self.network(each) for each in batch])
            self.cuda.array(result, values.size)[...] = values.ravel()

        self.cuda.put(stream.handle, compute)

    def close(self) -> None:
        self.closed = True


Made = Callable[..., tuple[CudaLane, FakeExecution]]


@pytest.fixture
def make(gpu: FakeCuda) -> Iterator[Made]:
    """Open lanes that share their scratch memory; all are closed at the end."""
    scratch = Scratch()
    lanes: list[CudaLane] = []

    def made(network: Any = NETWORK, *, kernels: bool = True, deep: bool = False) -> Any:
        execution = FakeExecution(gpu, network)
        loaded = driver.Kernels(b"kernels") if kernels else None
        job = LoadRequest(Path("x"), network.model, "rgb48" if deep else "rgb24", "fp32", None, 1)
        lanes.append(CudaLane(execution, scratch, job, 0, loaded))
        return lanes[-1], execution

    yield made
    for lane in lanes:
        lane.close()
    scratch.close()
    lanes.clear()
    gc.collect()
    assert gpu.hasty == 0


def run(lane: Any, image: Frame, plan: TilePlan, scale: int = 2) -> Frame:
    """Run a lane; what it does not write stays visible as a value that varies."""
    out = frame(scale * image.shape[0], scale * image.shape[1], image.shape[2], seed=99)
    lane.run(image, plan, out)
    return out


def whole(image: Frame, model: Model = NETWORK.model) -> TilePlan:
    return TilePlanner(model).plan(*image.shape[:2])


def tiled(image: Frame, model: Model = NETWORK.model, side: int = 30) -> TilePlan:
    return TilePlanner(model).plan(image.shape[0], image.shape[1], None, (side, side + 7))


def since(gpu: FakeCuda, work: Callable[[], object]) -> list[str]:
    """Return the calls that some work makes."""
    before = len(gpu.calls)
    work()
    return gpu.calls[before:]


@pytest.mark.parametrize("kernels", [True, False])
@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(
    ("network", "side"), [(NETWORK, 30), (NETWORK, 200), (Pooling(), 64), (Pooling(), 200)]
)
def test_results_equal_those_of_the_host_lane(
    make: Made, network: Any, side: int, deep: bool, kernels: bool
) -> None:
    """Whole, in tiles, blended, and reflected up to a tile: the same bytes, again and again."""
    lane, _ = make(network, kernels=kernels, deep=deep)
    image = frame(97, 110, 6 if deep else 3)
    model = network.model
    if side == 200:  # a network of that size only
        model = dataclasses.replace(model, fixed_size=(side, side))
    job = "rgb48" if deep else "rgb24"
    for plan in (whole(image), tiled(image, model, side), whole(image)):
        expected = run(HostLane(Inference(network), model, job), image, plan)
        for _ in range(4):  # the first ones step by step, the last as a graph
            assert np.array_equal(run(lane, image, plan), expected)


@pytest.mark.parametrize("batch", [2, 3, 64])
def test_tiles_run_in_batches(make: Made, batch: int) -> None:
    lane, execution = make()
    image = frame(100, 100)
    plan = dataclasses.replace(tiled(image), batch=batch)
    for _ in range(4):
        assert np.array_equal(run(lane, image, plan), NETWORK(image))
    assert {shape[0] for shape in execution.shapes} == {batch}


def test_a_steady_frame_waits_only_at_its_end(make: Made, gpu: FakeCuda) -> None:
    lane, _ = make()
    image = frame(40, 30)
    for _ in range(3):
        run(lane, image, whole(image))
    calls = since(gpu, lambda: run(lane, image, whole(image)))
    order = [
        "cudaSetDevice",
        "cudaPointerGetAttributes",
        "cudaMemcpyAsync",
        "cudaStreamWaitEvent",
        "cudaGraphLaunch",
        "cudaEventRecord",
        "cudaPointerGetAttributes",
        "cudaMemcpyAsync",
        "cudaEventRecord",
        "cudaEventSynchronize",
    ]
    assert calls == order


def test_the_steps_of_tiles_are_enqueued_in_order(make: Made, gpu: FakeCuda) -> None:
    lane, _ = make()
    image = frame(40, 70)
    plan = TilePlanner(NETWORK.model).plan(40, 70, None, (40, 40))
    run(lane, image, plan)
    calls = since(gpu, lambda: run(lane, image, plan))
    inner = [each for each in calls if each in ("cudaMemcpyAsync", "cuLaunchKernel")]
    assert inner == ["cudaMemcpyAsync", *["cuLaunchKernel"] * 2 * len(plan), "cudaMemcpyAsync"]
    waits = [each for each in calls if "Synchronize" in each]
    assert waits == ["cudaEventSynchronize"]
    assert calls[-1] == waits[0]


def test_page_locked_frames_are_not_copied_on_the_host(make: Made, gpu: FakeCuda) -> None:
    lane, _ = make()
    image, out = driver.page_locked((40, 30, 3)), driver.page_locked((80, 60, 3))
    image[...] = frame(40, 30)
    lane.run(image, whole(image), out)
    assert np.array_equal(out, NETWORK(image))
    assert len(gpu.host) == 2
    run(lane, frame(40, 30), whole(image))
    assert len(gpu.host) == 4


def test_a_graph_is_captured_at_the_third_frame_of_a_shape(make: Made, gpu: FakeCuda) -> None:
    lane, execution = make()
    image, other = frame(40, 30), frame(30, 40)
    for _ in range(5):
        run(lane, image, whole(image))
    assert gpu.calls.count("cudaGraphLaunch") == 3
    assert len(execution.shapes) == 3  # twice by itself, once captured
    assert np.array_equal(run(lane, other, whole(other)), NETWORK(other))
    assert gpu.leaks.get("graphs") is None
    for seed in range(4):
        image = frame(40, 30, seed=seed)
        assert np.array_equal(run(lane, image, whole(image)), NETWORK(image))
    assert gpu.calls.count("cudaStreamBeginCapture") == 2


@pytest.mark.parametrize("call", ["cudaStreamBeginCapture", "cudaGraphInstantiate", "enqueue"])
def test_after_a_failed_capture_steps_are_launched_one_by_one(
    make: Made,
    gpu: FakeCuda,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    lane, execution = make()
    image = frame(40, 30)
    if call == "enqueue":
        execution.can_be_captured = False
    else:
        gpu.failing[call] = Status.cudaErrorStreamCaptureUnsupported
    with caplog.at_level(logging.DEBUG):
        for seed in range(6):
            image = frame(40, 30, seed=seed)
            assert np.array_equal(run(lane, image, whole(image)), NETWORK(image))
    assert gpu.calls.count("cudaStreamBeginCapture") == 1
    assert "cudaGraphLaunch" not in gpu.calls
    (record,) = (each for each in caplog.records if "no CUDA graph" in each.getMessage())
    assert record.levelno == logging.DEBUG
    assert gpu.capturing == {}


@pytest.mark.parametrize("error", [BackendError("broken"), KeyboardInterrupt()])
def test_an_error_is_raised_after_the_work_in_flight_has_ended(
    make: Made,
    gpu: FakeCuda,
    error: BaseException,
) -> None:
    lane, execution = make()
    image = frame(40, 30)
    for _ in range(3):
        run(lane, image, whole(image))
    other = frame(50, 30)
    execution.error = error
    with pytest.raises(type(error)):
        run(lane, other, whole(other))
    assert gpu.pending == 0
    assert np.array_equal(run(lane, image, whole(image)), NETWORK(image))


def test_a_device_error_names_the_call(
    make: Made,
    gpu: FakeCuda,
) -> None:
    lane, _ = make()
    image = frame(40, 30)
    run(lane, image, whole(image))
    gpu.failing["cudaEventSynchronize"] = Status.cudaErrorIllegalAddress
    with pytest.raises(BackendError, match=r"cudaEventSynchronize.*cudaErrorIllegalAddress"):
        run(lane, image, whole(image))


def test_out_of_memory_frees_all_buffers_and_smaller_tiles_work(
    make: Made,
    gpu: FakeCuda,
) -> None:
    lane, execution = make()
    execution.most_pixels = 5000
    image = frame(97, 110)
    with pytest.raises(OutOfMemoryError):
        run(lane, image, whole(image))
    assert gpu.device == {}
    assert gpu.host == {}
    assert np.array_equal(run(lane, image, tiled(image)), NETWORK(image))
    gpu.total = 20_000
    lane.release()
    with pytest.raises(OutOfMemoryError, match=r"cudaMalloc"):
        run(lane, image, whole(image))
    assert gpu.device == {}


def test_lanes_share_the_memory_for_intermediates(
    make: Made,
    gpu: FakeCuda,
) -> None:
    """It grows while the other lane has a graph that uses the old one."""
    (first, _), (second, wide) = make(), make()
    wide.scratch = 5000
    image = frame(40, 30)
    for lane in (first, first, first, first, second, first, first, first, first):
        assert np.array_equal(run(lane, image, whole(image)), NETWORK(image))
    sizes = sorted(map(len, gpu.device.values()))
    assert sizes == [40 * 30 * 3] * 2 + [5000] + [80 * 60 * 3] * 2
    assert gpu.hasty == 1  # while the second lane's frame was on its way
    gpu.hasty = 0
    assert gpu.calls.count("cudaStreamBeginCapture") == 2


def test_lanes_run_in_parallel_threads(make: Made, gpu: FakeCuda) -> None:
    lanes = [make()[0] for _ in range(3)]
    wrong: list[int] = []

    def work(lane: CudaLane, seed: int) -> None:
        for number in range(12):
            image = frame(30 + number % 2, 40, seed=100 * seed + number)
            plan = tiled(image) if number % 3 else whole(image)
            if not np.array_equal(run(lane, image, plan), NETWORK(image)):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(lane, i)) for i, lane in enumerate(lanes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    gpu.hasty = 0  # a lane that grows while others work makes them wait; that cannot be helped


def test_release_frees_memory_and_the_lane_is_usable(make: Made, gpu: FakeCuda) -> None:
    lane, _ = make()
    image = frame(40, 30)
    for _ in range(4):
        run(lane, image, tiled(image))
    lane.release()
    assert gpu.device == {}
    assert gpu.host == {}
    assert gpu.graphs == {}
    assert np.array_equal(run(lane, image, tiled(image)), NETWORK(image))


def test_yuv_coefficients_are_uploaded_with_the_frame(make: Made, gpu: FakeCuda) -> None:
    lane, execution = make()
    seen = []
    bind = execution.bind

    def bound(shape: Any, result_shape: Any, pixels: int, result: int, color: Any) -> int:
        assert color is not None
        network = execution.network

        def looking(each: Frame) -> Frame:
            seen.append(gpu.array(color, 84).view(np.float32).copy())
            return network(each)

        execution.network = looking
        return bind(shape, result_shape, pixels, result, color)

    execution.bind = bound  # type: ignore[method-assign]
    image = frame(60, 30)
    for factor in range(4):
        color = factor * np.arange(21, dtype=np.float32).reshape(7, 3)
        out = np.zeros((120, 60, 3), np.uint8)
        lane.run(image, whole(image), out, color)
        assert np.array_equal(out, NETWORK(image))
        assert np.array_equal(seen[-1], color.ravel())


def test_a_lane_closes_even_if_cuda_is_unusable(gpu: FakeCuda) -> None:
    execution, scratch = FakeExecution(gpu, NETWORK), Scratch()
    job = LoadRequest(Path("x"), NETWORK.model, "rgb24", "fp32", None, 1)
    lane = CudaLane(execution, scratch, job, 0, None)
    image = frame(40, 30)
    run(lane, image, whole(image))
    gpu.broken = Status.cudaErrorIllegalAddress
    with pytest.raises(BackendError, match="cudaErrorIllegalAddress"):
        run(lane, image, whole(image))
    lane.close()
    scratch.close()
    assert gpu.leaks == {}


def test_close_frees_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = fake_cuda.install(monkeypatch)
    execution, scratch = FakeExecution(fake, NETWORK), Scratch()
    job = LoadRequest(Path("x"), NETWORK.model, "rgb24", "fp32", None, 1)
    lane = CudaLane(execution, scratch, job, 0, None)
    image = frame(40, 30)
    for _ in range(4):
        run(lane, image, whole(image))
    lane.close()
    scratch.close()
    assert execution.closed
    assert fake.leaks == {}
