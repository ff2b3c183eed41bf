"""A fake of cuda-python with working memory, streams, events, graphs and kernels.

Work in a stream runs only when something waits for it, as late as CUDA may run it. So memory that
is freed or overwritten too early shows as wrong pixels, or as the error that a GPU would report.
"""

from __future__ import annotations

import ctypes
import enum
import itertools
import struct
import threading
import types
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from sr_deploy.backends.cuda import driver


class Status(enum.IntEnum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorInvalidDevice = 101
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureUnsupported = 900
    cudaErrorStreamCaptureInvalidated = 901


class DriverStatus(enum.IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_NO_BINARY_FOR_GPU = 209


class _Copies(enum.IntEnum):
    cudaMemcpyDefault = 4


class _Kinds(enum.IntEnum):
    cudaMemoryTypeUnregistered = 0
    cudaMemoryTypeHost = 1
    cudaMemoryTypeDevice = 2


class _Modes(enum.IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


Work = Callable[[], None]
SYNCHRONOUS = ("cudaStreamSynchronize", "cudaEventSynchronize", "cudaMalloc", "cudaFree")


class FakeCuda:
    """Stands for `cuda.bindings.runtime` and `cuda.bindings.driver`.

    Args:
        memory: Bytes of the device.
        count: GPUs.

    Attributes:
        driver_version: The CUDA version of the driver.
        driver_fault: What TensorRT says of the driver, if it does not work.
        calls: The names of all calls, in order.
        hasty: How often memory was freed while there was work, which makes all wait.
        failing: What the next call of a name returns instead of doing anything.
    """

    cudaMemcpyKind = _Copies
    cudaMemoryType = _Kinds
    cudaStreamCaptureMode = _Modes
    cudaHostAllocPortable = 1
    cudaStreamNonBlocking = 1
    cudaEventBlockingSync = 1
    cudaEventDisableTiming = 2

    def __init__(self, memory: int = 1 << 30, count: int = 1) -> None:
        self.total, self.count = memory, count
        self.driver_version = 12080
        self.driver_fault = ""
        self.calls: list[str] = []
        self.hasty = 0
        self.failing: dict[str, enum.IntEnum] = {}
        self.host: dict[int, Any] = {}
        self.device: dict[int, Any] = {}
        self.streams: dict[int, list[Work]] = {1: []}
        self.finished: dict[int, int] = {1: 0}
        self.events: dict[int, tuple[int, int] | None] = {}
        self.graphs: dict[int, list[Work]] = {}
        self.capturing: dict[int, list[Work] | None] = {}
        self._capturers: dict[int, int] = {}
        self.broken: Status = Status.cudaSuccess
        self._handles = itertools.count(1000)
        self._lock = threading.RLock()

    def __getattribute__(self, name: str) -> Any:
        value = object.__getattribute__(self, name)
        if not name.startswith(("cuda", "cu")) or not isinstance(value, types.MethodType):
            return value

        def call(*arguments: Any) -> Any:
            with self._lock:
                self.calls.append(name)
                if name in self.failing:
                    return self.failing.pop(name), None
                if name in SYNCHRONOUS and threading.get_ident() in self._capturers.values():
                    self.capturing = dict.fromkeys(self.capturing)
                    return Status.cudaErrorStreamCaptureUnsupported, None
                return value(*arguments)

        return call

    @property
    def leaks(self) -> dict[str, int]:
        """What was not given back."""
        held = {
            "host": len(self.host),
            "device": len(self.device),
            "streams": len(self.streams) - 1,
            "events": len(self.events),
            "graphs": len(self.graphs),
        }
        return {name: count for name, count in held.items() if count}

    @property
    def pending(self) -> int:
        """Work that nobody has waited for."""
        return sum(len(work) - self.finished[each] for each, work in self.streams.items())

    def put(self, stream: int, work: Work) -> None:
        """Put work into a stream, or into the graph that is captured there."""
        captured = self.capturing.get(stream, self.streams[stream])
        if captured is not None:
            captured.append(work)

    def array(self, address: int, size: int) -> np.ndarray:
        """Return memory as bytes; all of it must be alive."""
        for start, block in [*self.host.items(), *self.device.items()]:
            if start <= address and address + size <= start + len(block):
                return np.frombuffer(block, np.uint8)[address - start :][:size]
        raise _IllegalError(f"{size} bytes at {address:#x}")

    def _run(self, stream: int, until: int) -> None:
        work = self.streams.get(stream, [])
        while work and self.finished[stream] < until:
            self.finished[stream] += 1
            try:
                work[self.finished[stream] - 1]()
            except _IllegalError:
                self.broken = Status.cudaErrorIllegalAddress

    # --- the runtime ---------------------------------------------------------------------------

    def cudaGetErrorString(self, status: Status) -> Any:
        return Status.cudaSuccess, f"in words: {status.name}".encode()

    def cudaDriverGetVersion(self) -> Any:
        return Status.cudaSuccess, self.driver_version

    def cudaRuntimeGetVersion(self) -> Any:
        return Status.cudaSuccess, 12090

    def cudaGetDeviceCount(self) -> Any:
        return Status.cudaSuccess, self.count

    def cudaSetDevice(self, index: int) -> Any:
        return (Status.cudaSuccess if index < self.count else Status.cudaErrorInvalidDevice,)

    def cudaGetLastError(self) -> Any:
        return (Status.cudaSuccess,)

    def cudaGetDeviceProperties(self, index: int) -> Any:
        name = b"Fake GPU\0\0"
        return Status.cudaSuccess, types.SimpleNamespace(name=name, major=9, minor=0)

    def cudaMemGetInfo(self) -> Any:
        return Status.cudaSuccess, self.total - self._held(), self.total

    def _held(self) -> int:
        return sum(map(len, self.device.values()))

    def cudaMalloc(self, size: int) -> Any:
        if self._held() + size > self.total:
            return Status.cudaErrorMemoryAllocation, None
        return Status.cudaSuccess, _allocated(self.device, size)

    def cudaFree(self, address: int) -> Any:
        if address:
            self.hasty += self.pending > 0
            for stream, work in self.streams.items():  # as CUDA does
                self._run(stream, len(work))
            del self.device[address]
        return (Status.cudaSuccess,)

    def cudaHostAlloc(self, size: int, flags: int) -> Any:
        return Status.cudaSuccess, _allocated(self.host, size)

    def cudaFreeHost(self, address: int) -> Any:
        del self.host[address]
        return (Status.cudaSuccess,)

    def cudaPointerGetAttributes(self, address: int) -> Any:
        kind = _Kinds.cudaMemoryTypeUnregistered
        for each, blocks in ((1, self.host), (2, self.device)):
            if any(start <= address < start + len(block) for start, block in blocks.items()):
                kind = _Kinds(each)
        return Status.cudaSuccess, types.SimpleNamespace(type=kind, device=0)

    def cudaStreamCreateWithFlags(self, flags: int) -> Any:
        handle = next(self._handles)
        self.streams[handle], self.finished[handle] = [], 0
        return Status.cudaSuccess, handle

    def cudaStreamDestroy(self, handle: int) -> Any:
        self._run(handle, len(self.streams[handle]))  # its work is still done
        del self.streams[handle], self.finished[handle]
        return (Status.cudaSuccess,)

    def cudaStreamSynchronize(self, handle: int) -> Any:
        self._run(handle, len(self.streams[handle]))
        return (self.broken,)

    def cudaStreamWaitEvent(self, handle: int, event: int, flags: int) -> Any:
        recorded = self.events[event]
        if recorded is not None:
            self.put(handle, lambda: self._run(*recorded))
        return (Status.cudaSuccess,)

    def cudaEventCreateWithFlags(self, flags: int) -> Any:
        handle = next(self._handles)
        self.events[handle] = None
        return Status.cudaSuccess, handle

    def cudaEventDestroy(self, handle: int) -> Any:
        del self.events[handle]
        return (Status.cudaSuccess,)

    def cudaEventRecord(self, event: int, stream: int) -> Any:
        self.events[event] = stream, len(self.streams[stream])
        return (Status.cudaSuccess,)

    def cudaEventSynchronize(self, event: int) -> Any:
        recorded = self.events[event]
        if recorded is not None:
            self._run(*recorded)
        return (self.broken,)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> Any:
        return self._copy(to, size, source, size, size, 1, stream)

    def cudaMemcpy2DAsync(self, *arguments: int) -> Any:
        *where, _, stream = arguments
        return self._copy(*where, stream)

    def _copy(self, *arguments: int) -> Any:
        to, pitch, source, source_pitch, width, rows, stream = arguments

        def copy() -> None:
            for row in range(rows):
                target = self.array(to + row * pitch, width)
                target[...] = self.array(source + row * source_pitch, width)

        self.put(stream, copy)
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> Any:
        self.capturing[stream] = []
        self._capturers[stream] = threading.get_ident()
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> Any:
        work = self.capturing.pop(stream)
        del self._capturers[stream]
        if work is None:
            return Status.cudaErrorStreamCaptureInvalidated, 0
        handle = next(self._handles)
        self.graphs[handle] = work
        return Status.cudaSuccess, handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> Any:
        handle = next(self._handles)
        self.graphs[handle] = self.graphs[graph]
        return Status.cudaSuccess, handle

    def cudaGraphDestroy(self, graph: int) -> Any:
        del self.graphs[graph]
        return (Status.cudaSuccess,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: int, stream: int) -> Any:
        for work in self.graphs[graph]:
            self.put(stream, work)
        return (Status.cudaSuccess,)

    # --- the driver ----------------------------------------------------------------------------

    def cuModuleLoadData(self, image: bytes) -> Any:
        good = image == b"kernels"
        status = DriverStatus.CUDA_SUCCESS if good else DriverStatus.CUDA_ERROR_NO_BINARY_FOR_GPU
        return status, next(self._handles)

    def cuModuleGetFunction(self, module: int, name: bytes) -> Any:
        return DriverStatus.CUDA_SUCCESS, name.decode()

    def cuLaunchKernel(self, function: str, *more: Any) -> Any:
        *_, stream, arguments, _ = more
        kernel, layout = _KERNELS[function]
        (address,) = (ctypes.c_void_p * 1).from_address(arguments)
        fields = layout.unpack(ctypes.string_at(address, layout.size))  # copied, as CUDA does
        self.put(stream, lambda: kernel(self, *fields))
        return (DriverStatus.CUDA_SUCCESS,)


class _IllegalError(Exception):
    pass


def install(patch: pytest.MonkeyPatch, **changes: int) -> FakeCuda:
    """Make the library call a new fake instead of cuda-python."""
    fake = FakeCuda(**changes)
    patch.setattr(driver, "runtime_api", lambda: fake)
    patch.setattr(driver, "driver_api", lambda: fake)
    return fake


def _allocated(blocks: dict[int, Any], size: int) -> int:
    block = (ctypes.c_uint8 * size)()
    blocks[ctypes.addressof(block)] = block
    return ctypes.addressof(block)


# The kernels, written from `native/pixels.h` alone: nothing of the library computes here.


def _rows(cuda: FakeCuda, address: int, pitch: int, rows: int, width: int) -> np.ndarray:
    """Return rows of bytes in memory as an array that can be written."""
    flat = cuda.array(address, (rows - 1) * pitch + width)
    return np.lib.stride_tricks.as_strided(flat, (rows, width), (pitch, 1))


def _mirrored(first: int, count: int, side: int) -> np.ndarray:
    """Return the pixels of an axis that a tile shows: 0 1 2 1 0 1 ... for a side of 3."""
    turn = max(side - 1, 1)
    return (turn - np.abs(np.arange(first, first + count) % (2 * turn) - turn)) % side


def _weights(count: int) -> np.ndarray:
    """Return the smooth step in the middle of each of `count` cells, in FP32."""
    at = (np.arange(count, dtype=np.float32) + np.float32(0.5)) / np.float32(count)
    return at * at * (np.float32(3) - np.float32(2) * at)


def _blend(old: np.ndarray, new: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return values between old and new ones, with halves rounded to even."""
    start = old.astype(np.float32)
    return np.rint(start + (new.astype(np.float32) - start) * weights).astype(old.dtype)


def _gather(
    cuda: FakeCuda,
    frame: int,
    tile: int,
    pitch: int,
    frame_height: int,
    frame_width: int,
    top: int,
    left: int,
    height: int,
    width: int,
    depth: int,
) -> None:
    source = _rows(cuda, frame, pitch, frame_height, frame_width * depth)
    target = _rows(cuda, tile, width * depth, height, width * depth)
    columns = _mirrored(left, width, frame_width)
    inner = columns[:, None] * depth + np.arange(depth)
    target[...] = source[_mirrored(top, height, frame_height)[:, None], inner.ravel()]


def _scatter(
    cuda: FakeCuda,
    part: int,
    out: int,
    part_pitch: int,
    out_pitch: int,
    height: int,
    width: int,
    ramp: int,
    channels: int,
    sample: int,
) -> None:
    size, kind = width * channels * sample, f"<u{sample}"
    source = _rows(cuda, part, part_pitch, height, size).view(kind)
    target = _rows(cuda, out, out_pitch, height, size).view(kind)
    weights = np.ones(width, np.float32)
    weights[:ramp] = _weights(ramp)
    target[...] = _blend(target, source, weights.repeat(channels))


def _mix(
    cuda: FakeCuda, above: int, out: int, out_pitch: int, height: int, samples: int, sample: int
) -> None:
    size, kind = samples * sample, f"<u{sample}"
    source = _rows(cuda, above, size, height, size).view(kind)
    target = _rows(cuda, out, out_pitch, height, size).view(kind)
    target[...] = _blend(source, target, _weights(height)[:, None])


# The fields of the C structures, in their order.
_KERNELS: dict[str, tuple[Callable[..., None], struct.Struct]] = {
    "sr_gather": (_gather, struct.Struct("@PPq7i")),
    "sr_scatter": (_scatter, struct.Struct("@PPqq5i")),
    "sr_mix": (_mix, struct.Struct("@PPq3i")),
}
