from __future__ import annotations

import gc
from types import ModuleType

import numpy as np
import pytest

from sr_deploy.backends.cuda import driver as cuda
from sr_deploy.backends.cuda.driver import CudaStream, Event, Graph, Kernels, Memory
from sr_deploy.errors import BackendError, BackendMissingError, OutOfMemoryError
from sr_deploy.tiling.native import Mix
from tests.fakes.cuda import DriverStatus, FakeCuda, Status


def test_without_cuda_python_the_error_names_the_package_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> ModuleType:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    for function in (cuda.runtime_api, cuda.driver_api):
        with pytest.raises(BackendMissingError, match=r"pip install sr-deploy\[gpu\]"):
            function.__wrapped__()


def test_without_a_driver_the_error_names_the_container_option(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeCuda, "cudaDriverGetVersion", lambda _: (Status.cudaSuccess, 0))
    gpu.failing["cudaGetDeviceCount"] = Status.cudaErrorInsufficientDriver
    with pytest.raises(BackendError, match="--gpus all"):
        cuda.count()


def test_an_old_driver_is_reported_with_both_versions(gpu: FakeCuda) -> None:
    gpu.failing["cudaGetDeviceCount"] = Status.cudaErrorInsufficientDriver
    with pytest.raises(BackendError, match=r"12\.8.*12\.9"):
        cuda.count()


def test_without_a_device_the_error_names_the_environment_variable(
    gpu: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    gpu.failing["cudaGetDeviceCount"] = Status.cudaErrorNoDevice
    with pytest.raises(BackendError, match=r"cudaErrorNoDevice.*VISIBLE_DEVICES=7"):
        cuda.count()
    with pytest.raises(BackendError, match=r"cudaSetDevice \(device 3\): cudaErrorInvalidDevice"):
        cuda.use(3)


def test_the_description_of_a_device(gpu: FakeCuda) -> None:
    found = cuda.describe(0)
    assert (found.name, found.capability) == ("Fake GPU", (9, 0))
    assert found.driver == "for CUDA 12.8"
    assert cuda.memory(0) == (gpu.total, gpu.total)


def test_out_of_memory_errors_name_the_size(gpu: FakeCuda) -> None:
    with pytest.raises(OutOfMemoryError, match=r"cudaMalloc.*2\.0 GiB"):
        Memory(2 << 30)
    gpu.failing["cudaHostAlloc"] = Status.cudaErrorMemoryAllocation
    with pytest.raises(MemoryError, match="12 B"):
        cuda.page_locked((2, 2, 3))


def test_errors_of_the_driver_have_a_remedy(gpu: FakeCuda) -> None:
    with pytest.raises(BackendError, match="CUDA_ERROR_NO_BINARY_FOR_GPU"):
        Kernels(b"for another GPU")
    gpu.failing["cuLaunchKernel"] = DriverStatus.CUDA_ERROR_NO_BINARY_FOR_GPU
    with pytest.raises(BackendError, match=r"cuLaunchKernel \(sr_mix\)"):
        Kernels(b"kernels").launch("sr_mix", Mix(), (1, 1), CudaStream(0))


def test_page_locked_arrays_are_freed_with_their_last_view(gpu: FakeCuda) -> None:
    array = cuda.page_locked((4, 5, 3))
    assert array.shape == (4, 5, 3)
    assert array.dtype == np.uint8
    assert array.flags.writeable
    view = array.view(np.uint8)[1:, ::2]
    assert cuda.is_page_locked(array)
    assert not cuda.is_page_locked(np.zeros(10, np.uint8))
    view[...] = 7
    del array
    gc.collect()
    assert gpu.leaks == {"host": 1}
    assert (view == 7).all()
    del view
    gc.collect()
    assert gpu.leaks == {}


def test_resources_are_freed_once_even_without_close(gpu: FakeCuda) -> None:
    held = [Memory(10), CudaStream(), Event()]
    graph = Graph(held[1], lambda: None)
    assert gpu.leaks == {"device": 1, "streams": 1, "events": 1, "graphs": 1}
    graph.close()
    graph.close()
    held[0].close()
    assert gpu.leaks == {"streams": 1, "events": 1}
    del held
    gc.collect()
    assert gpu.leaks == {}


def test_freeing_never_fails(gpu: FakeCuda) -> None:
    memory = Memory(10)
    gpu.failing["cudaFree"] = Status.cudaErrorIllegalAddress
    memory.close()
    gpu.device.clear()


def test_a_borrowed_stream_is_not_destroyed(gpu: FakeCuda) -> None:
    CudaStream(4321)
    gc.collect()
    assert "cudaStreamDestroy" not in gpu.calls
    assert CudaStream(0).handle == cuda.LEGACY_STREAM


def test_copies_between_pitches(gpu: FakeCuda) -> None:
    source, target = cuda.page_locked((4, 10)), cuda.page_locked((4, 8))
    source[...], target[...] = np.arange(40).reshape(4, 10), 0
    stream = CudaStream()
    cuda.copy(target.ctypes.data, source.ctypes.data, (4, 6), (8, 10), stream)
    assert not target.any()
    stream.synchronize()
    assert np.array_equal(target[:, :6], source[:, :6])
    assert not target[:, 6:].any()


def test_a_stream_waits_for_an_event_of_another(gpu: FakeCuda) -> None:
    done: list[str] = []
    first, second, event = CudaStream(), CudaStream(), Event()
    gpu.put(first.handle, lambda: done.append("first"))
    event.record(first)
    second.wait(event)
    gpu.put(second.handle, lambda: done.append("second"))
    second.synchronize()
    assert done == ["first", "second"]


def test_captured_work_runs_at_each_launch(gpu: FakeCuda) -> None:
    done: list[int] = []
    stream = CudaStream()
    graph = Graph(stream, lambda: gpu.put(stream.handle, lambda: done.append(1)))
    stream.synchronize()
    assert done == []
    graph.launch(stream)
    graph.launch(stream)
    stream.synchronize()
    assert done == [1, 1]
    graph.close()


def test_a_failed_capture_leaves_the_stream_usable(gpu: FakeCuda) -> None:
    stream = CudaStream()

    def wait() -> None:
        stream.synchronize()

    with pytest.raises(BackendError, match="cudaErrorStreamCaptureUnsupported"):
        Graph(stream, wait)
    with pytest.raises(KeyboardInterrupt):
        Graph(stream, _interrupted)
    stream.synchronize()
    assert gpu.leaks == {"streams": 1}


def _interrupted() -> None:
    raise KeyboardInterrupt


def test_cuda_python_has_every_name_of_the_fake() -> None:
    pytest.importorskip("cuda.bindings", reason="needs cuda-python; it needs no GPU")
    from cuda.bindings import driver, runtime

    for name in vars(FakeCuda):
        if name.startswith("cu"):
            assert hasattr(runtime if name.startswith("cuda") else driver, name)
    for name in cuda.REMEDIES:
        errors = runtime.cudaError_t if name.startswith("cuda") else driver.CUresult
        assert hasattr(errors, name)
