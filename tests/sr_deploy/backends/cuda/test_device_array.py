from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest

from sr_deploy.backends.cuda import device_array, dlpack, driver
from sr_deploy.backends.cuda.device_array import DeviceArray
from sr_deploy.backends.cuda.device_frames import CudaFrames
from sr_deploy.backends.cuda.driver import CudaStream, Memory
from sr_deploy.errors import InvalidInputError
from tests.fakes.cuda import FakeCuda
from tests.sr_deploy.manifests import MODEL


class Foreign:
    """An image on the GPU, as other libraries have it."""

    def __init__(self, values: np.ndarray, gpu: FakeCuda, stream: int | None = None) -> None:
        self.memory = Memory(values.nbytes)
        gpu.array(self.memory.address, values.nbytes)[...] = values.view(np.uint8).ravel()
        self.__cuda_array_interface__: dict[str, Any] = {
            "version": 3,
            "shape": values.shape,
            "typestr": values.dtype.str.replace("<u1", "|u1"),
            "data": (self.memory.address, False),
            "strides": None,
            "stream": stream,
        }


class Lender:
    """The same through DLPack alone."""

    def __init__(self, found: Foreign) -> None:
        self.array = device_array.view(found, None)
        self.asked: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return dlpack.CUDA, 0

    def __dlpack__(self, *, stream: int) -> object:
        self.asked.append(stream)
        return self.array.__dlpack__(stream=stream)


def image(*shape: int, dtype: str = "u1") -> np.ndarray:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "<u2"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 3), (1, 5, 3), (4, 1, 1), (1, 1)])
def test_views_of_other_libraries_share_memory(
    gpu: FakeCuda, shape: tuple[int, ...], dtype: str
) -> None:
    foreign = Foreign(image(*shape, dtype=dtype), gpu)
    lender = Lender(foreign)
    for each in (foreign, lender):
        assert device_array.on_device(each)
        found = device_array.view(each, 77 if each is foreign else driver.LEGACY_STREAM)
        assert found.address == foreign.memory.address
        assert (found.shape, found.itemsize) == (shape, np.dtype(dtype).itemsize)
        assert found.pitch == found.row_bytes
        assert found.stream == (77 if each is foreign else driver.LEGACY_STREAM)
    assert lender.asked == [driver.LEGACY_STREAM]


def test_the_callers_stream_overrides_the_images_stream(gpu: FakeCuda) -> None:
    foreign = Foreign(image(4, 5), gpu, stream=1234)
    assert device_array.view(foreign, None).stream == 1234
    assert device_array.view(foreign, 5).stream == 5


def test_dlpack_is_used_if_the_interface_names_no_stream(gpu: FakeCuda) -> None:
    """As torch's: its own stream is only waited for when it lends through DLPack."""
    foreign = Foreign(image(4, 5), gpu)
    both: Any = Lender(foreign)
    both.__cuda_array_interface__ = foreign.__cuda_array_interface__
    made = CudaStream()
    device_array.view(both, made.handle)
    assert both.asked == [made.handle]
    foreign.__cuda_array_interface__["stream"] = made.handle
    assert device_array.view(both, None).stream == made.handle
    assert len(both.asked) == 1


def test_rows_may_have_gaps_but_pixels_may_not(gpu: FakeCuda) -> None:
    foreign = Foreign(image(4, 8, 3), gpu)
    interface = foreign.__cuda_array_interface__
    interface |= {"shape": (4, 5, 3), "strides": (24, 3, 1)}
    found = device_array.view(foreign, None)
    assert (found.pitch, found.row_bytes) == (24, 15)
    for shape, strides in (((4, 4, 3), (24, 6, 1)), ((3, 4, 8), (1, 3, 12)), ((4, 5), (-8, 1))):
        interface |= {"shape": shape, "strides": strides}
        with pytest.raises(InvalidInputError, match="contiguous"):
            device_array.view(foreign, None)


def test_unsupported_arrays_are_rejected(gpu: FakeCuda) -> None:
    for values in (image(4), image(4, 5, 3, 1), image(0, 5), image(4, 5, dtype="<f4")):
        with pytest.raises(InvalidInputError, match="uint8 and uint16"):
            device_array.view(Foreign(values, gpu), None)
    foreign = Foreign(image(4, 5), gpu)
    foreign.__cuda_array_interface__["data"] = (foreign.memory.address, True)
    device_array.view(foreign, None)
    with pytest.raises(InvalidInputError, match="read-only"):
        device_array.view(foreign, None, writable=True)
    with pytest.raises(InvalidInputError, match="ndarray"):
        device_array.view(np.zeros((4, 5)), None)


def test_host_arrays_are_not_device_arrays() -> None:
    torch = pytest.importorskip("torch")
    assert not device_array.on_device(np.zeros(3))
    assert not device_array.on_device(torch.zeros(3))
    assert not device_array.on_device([[1, 2]])


def test_stream_handles_of_other_libraries() -> None:
    spaces = {"cuda_stream": 5, "ptr": 6, "handle": 7}
    for name, value in spaces.items():
        assert device_array.stream_handle(types.SimpleNamespace(**{name: value})) == value
    wrapped = types.SimpleNamespace(__cuda_stream__=lambda: (0, 8))
    assert device_array.stream_handle(wrapped) == 8
    assert device_array.stream_handle(None) is None
    assert device_array.stream_handle(9) == 9
    assert device_array.stream_handle(0) == driver.LEGACY_STREAM
    with pytest.raises(InvalidInputError, match="found str"):
        device_array.stream_handle("stream")


def test_results_have_both_interfaces(gpu: FakeCuda) -> None:
    frame = device_array.view(Foreign(image(4, 5, 3, dtype="<u2"), gpu), 77)
    result = CudaFrames(MODEL, "cuda:0").open(frame, None, None).target
    interface = result.__cuda_array_interface__
    assert interface["shape"] == (8, 10, 3)
    assert interface["typestr"] == "<u2"
    assert interface["strides"] == (60, 6, 2)
    assert interface["stream"] == 77
    again = device_array.view(types.SimpleNamespace(__cuda_array_interface__=interface), None)
    assert (again.address, again.shape, again.pitch) == (result.address, (8, 10, 3), 60)
    assert result.__dlpack_device__() == (dlpack.CUDA, 0)
    found = dlpack.layout(result.__dlpack__(stream=-1))
    assert (found.address, found.strides, found.itemsize) == (result.address, (30, 3, 1), 2)


def test_a_dlpack_consumer_waits_for_the_result(gpu: FakeCuda) -> None:
    made, reader, done = CudaStream(), CudaStream(), list[str]()
    memory = Memory(20)
    array = DeviceArray(memory.address, (4, 5), 1, 5, 0, made.handle, memory)
    gpu.put(made.handle, lambda: done.append("made"))
    array.__dlpack__(stream=reader.handle, max_version=(1, 0))
    gpu.put(reader.handle, lambda: done.append("read"))
    reader.synchronize()
    assert done == ["made", "read"]


def test_frames_that_the_network_does_not_support_are_rejected(gpu: FakeCuda) -> None:
    frame = device_array.view(Foreign(image(4, 5, 3), gpu), None)
    with pytest.raises(InvalidInputError, match=r"cuda:0.*cuda:1"):
        CudaFrames(MODEL, "cuda:1").open(frame, None, None)
    gray = device_array.view(Foreign(image(4, 5), gpu), None)
    with pytest.raises(InvalidInputError, match="3 channels, found 1"):
        CudaFrames(MODEL, "cuda:0").open(gray, None, None)
    with pytest.raises(InvalidInputError, match=r"out must have shape \(8, 10, 3\)"):
        CudaFrames(MODEL, "cuda:0").open(frame, Foreign(image(8, 9, 3), gpu), None)
    with pytest.raises(InvalidInputError, match="ndarray"):
        CudaFrames(MODEL, "cuda:0").open(frame, np.zeros((8, 10, 3), np.uint8), None)
