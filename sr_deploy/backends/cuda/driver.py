"""All calls to CUDA, through cuda-python, which is imported with the first call.

Every call is checked: an error names the call, its subject and a remedy. Resources are freed by
`close`, or with their last reference. Calls apply to the device that the thread chose with `use`.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import logging
import os
import re
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.bundle.plan_store import GpuInfo
from sr_deploy.errors import BackendError, BackendMissingError, DriverError, OutOfMemoryError
from sr_deploy.machine import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

_log = logging.getLogger(__name__)

LEGACY_STREAM = 1
"""Handle of the default stream."""
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_THREADS = 256
_MOST_BLOCKS = 65535

_DEAD = "CUDA is unusable in this process: restart it"
REMEDIES = {
    "cudaErrorNoDevice": "see nvidia-smi, and CUDA_VISIBLE_DEVICES={visible}",
    "cudaErrorInvalidDevice": "see nvidia-smi, and CUDA_VISIBLE_DEVICES={visible}",
    "cudaErrorSystemDriverMismatch": "reboot: the driver was updated while it was in use",
    "cudaErrorSystemNotReady": "start nvidia-fabricmanager",
    "cudaErrorDevicesUnavailable": "another process uses the GPU exclusively",
    "cudaErrorIllegalAddress": _DEAD,
    "cudaErrorLaunchFailure": _DEAD,
    "cudaErrorMisalignedAddress": _DEAD,
    "cudaErrorECCUncorrectable": "the GPU's memory is faulty: see nvidia-smi -q -d ECC",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "build sr-deploy with a CUDA toolkit that supports this GPU",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "update the driver",
}
"""Remedies by the error's name in the runtime or driver API."""
_MACHINE_FAULTS = {
    "cudaErrorNoDevice",
    "cudaErrorInvalidDevice",
    "cudaErrorSystemDriverMismatch",
    "cudaErrorSystemNotReady",
    "cudaErrorDevicesUnavailable",
    "cudaErrorECCUncorrectable",
    "cudaErrorUnknown",
}
"""Errors of the machine, not of what runs on it."""


@functools.cache
def runtime_api() -> Any:
    """Return CUDA's runtime API."""
    return _imported("cuda.bindings.runtime")


@functools.cache
def driver_api() -> Any:
    """Return CUDA's driver API."""
    return _imported("cuda.bindings.driver")


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendMissingError(
            f"NVIDIA GPUs need cuda-python 12.6 or newer ({error}): pip install sr-deploy[gpu]"
        ) from error


def _call(name: str, *arguments: Any, about: str = "") -> Any:
    """Return the result of a function of the runtime (cuda...) or driver API (cu...).

    Raises:
        OutOfMemoryError: out of memory.
        BackendError: the call failed, or earlier work did, which CUDA reports only now.
    """
    module = runtime_api() if name.startswith("cuda") else driver_api()
    status, *values = getattr(module, name)(*arguments)
    if int(status):
        raise _failure(name, status, about)
    return values[0] if len(values) == 1 else values


def _failure(name: str, status: Any, about: str) -> BackendError | OutOfMemoryError:
    what = f"{name} ({about})" if about else name
    if status.name in ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"):
        return OutOfMemoryError(f"CUDA: {what}: out of memory")
    if status.name == "cudaErrorInsufficientDriver":
        return DriverError(_driver_problem())
    text = str(status.name)
    if text.startswith("cuda"):
        _, description = runtime_api().cudaGetErrorString(status)
        text = f"{text}, {description.decode(errors='replace')}"
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "(not set)")
    remedy = REMEDIES.get(status.name, "see sr-doctor").format(visible=visible)
    kind = DriverError if status.name in _MACHINE_FAULTS else BackendError
    return kind(f"CUDA: {what}: {text}; {remedy}")


def _driver_problem() -> str:
    _, number = runtime_api().cudaDriverGetVersion()
    if not number:
        return "no NVIDIA driver on this machine; a container needs `--gpus all`"
    _, needed = runtime_api().cudaRuntimeGetVersion()
    return (
        f"the NVIDIA driver supports CUDA up to {_version(number)}, cuda-python needs "
        f'{_version(needed)}: update the driver, or pip install "cuda-python=={number // 1000}.*"'
    )


def _version(number: int) -> str:
    """Return 12080 as 12.8."""
    return f"{number // 1000}.{number % 1000 // 10}"


def _constant(name: str) -> int:
    return int(getattr(runtime_api(), name))


def count() -> int:
    """Return the number of GPUs, at least one.

    Raises:
        BackendMissingError: cuda-python is not installed.
        BackendError: there is no GPU, no driver, or an old driver.
    """
    return int(_call("cudaGetDeviceCount"))


def describe(index: int) -> GpuInfo:
    """Return a GPU's name, compute capability and driver.

    Raises:
        BackendMissingError, BackendError: see `count`; or the GPU does not exist.
    """
    count()
    found = _call("cudaGetDeviceProperties", index, about=f"device {index}")
    name = found.name.decode(errors="replace").rstrip("\0")
    supported = _version(_call("cudaDriverGetVersion"))
    driver = f"{_driver_version()} for CUDA {supported}".strip()
    return GpuInfo(name, (found.major, found.minor), driver)


def _driver_version() -> str:
    """Return the version of the driver, such as 580.65.06; empty if it is not known."""
    try:
        found = re.search(r"Module +([\d.]+)", _DRIVER_FILE.read_text(errors="replace"))
    except OSError:
        return ""
    return found[1] if found else ""


def use(index: int) -> None:
    """Make a device the current one of the calling thread."""
    _call("cudaSetDevice", index, about=f"device {index}")


def memory(index: int) -> tuple[int, int]:
    """Return a device's free and total bytes; it becomes the current one."""
    use(index)
    free, total = _call("cudaMemGetInfo")
    return int(free), int(total)


def is_page_locked(array: NDArray[Any]) -> bool:
    """Return whether an array is in page-locked memory of any owner."""
    ends = array.ctypes.data, array.ctypes.data + max(array.nbytes, 1) - 1
    host = runtime_api().cudaMemoryType.cudaMemoryTypeHost
    return all(_call("cudaPointerGetAttributes", end).type == host for end in ends)


def device_of(address: int) -> int:
    """Return the index of the GPU that has an address."""
    return int(_call("cudaPointerGetAttributes", address, about=f"{address:#x}").device)


def page_locked(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a page-locked array, which is freed with its last view.

    Raises:
        OutOfMemoryError: the system cannot lock as much memory.
    """
    return np.asarray(_PageLocked(shape))


def copy(
    to: int, source: int, size: tuple[int, int], pitches: tuple[int, int], stream: CudaStream
) -> None:
    """Enqueue a copy of rows, between any two memories.

    Args:
        to: Address.
        source: Address.
        size: Number of rows, and bytes of a row.
        pitches: Bytes from one row to the next, at `to` and at `source`.
        stream: The stream.
    """
    rows, width = size
    kind = runtime_api().cudaMemcpyKind.cudaMemcpyDefault
    about = f"{rows} rows of {width} bytes"
    if pitches == (width, width):
        _call("cudaMemcpyAsync", to, source, rows * width, kind, stream.handle, about=about)
        return
    _call(
        "cudaMemcpy2DAsync",
        *(to, pitches[0], source, pitches[1], width, rows, kind, stream.handle),
        about=about,
    )


def copy_bytes(to: int, source: int, size: int, stream: CudaStream) -> None:
    """Enqueue a copy of bytes, between any two memories."""
    copy(to, source, (1, size), (size, size), stream)


class _Resource:
    """A CUDA resource that is freed once, by `close` or with its last reference."""

    def _own(self, function: str, handle: int) -> None:
        free = getattr(runtime_api(), function)
        self._close = weakref.finalize(self, _free, free, handle)
        self._close.atexit = False  # the driver frees everything at exit

    def close(self) -> None:
        """Free the resource; a second call does nothing."""
        self._close()


def _free(function: Callable[[int], Any], handle: int) -> None:
    """Free a handle; never fail, because the next call that needs CUDA reports the error."""
    status, *_ = function(handle)
    if int(status):
        _log.debug("CUDA: %s was not freed: %s", handle, status.name)


class _PageLocked(_Resource):
    """Page-locked memory with numpy's array interface."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        size = max(int(np.prod(shape, dtype=np.int64)), 1)
        about = f"{format_bytes(size)} of page-locked memory"
        flags = _constant("cudaHostAllocPortable")
        address = int(_call("cudaHostAlloc", size, flags, about=about))
        self._own("cudaFreeHost", address)
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": "|u1",
            "data": (address, False),
        }


class Memory(_Resource):
    """Memory of the current device.

    Raises:
        OutOfMemoryError: not enough GPU memory.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = int(_call("cudaMalloc", max(size, 1), about=format_bytes(size)))
        self._own("cudaFree", self.address)


class CudaStream(_Resource):
    """A new stream, or one of another library by its handle, which stays its owner's."""

    def __init__(self, borrowed: int | None = None) -> None:
        if borrowed is None:
            flags = _constant("cudaStreamNonBlocking")
            self.handle = int(_call("cudaStreamCreateWithFlags", flags))
            self._own("cudaStreamDestroy", self.handle)
        else:
            self.handle = borrowed or LEGACY_STREAM

    def wait(self, event: Event) -> None:
        """Make later work of the stream wait for an event; returns at once."""
        _call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def synchronize(self) -> None:
        """Wait for all work of the stream, without the GIL."""
        _call("cudaStreamSynchronize", self.handle)


class Event(_Resource):
    """A point in a stream."""

    def __init__(self) -> None:
        # With blocking sync, a waiting thread leaves its CPU core to others.
        flags = _constant("cudaEventBlockingSync") | _constant("cudaEventDisableTiming")
        self.handle = int(_call("cudaEventCreateWithFlags", flags))
        self._own("cudaEventDestroy", self.handle)

    def record(self, stream: CudaStream) -> None:
        """Move the event to the end of a stream's present work."""
        _call("cudaEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait for the event, without the GIL. Errors of the work before it are raised here."""
        _call("cudaEventSynchronize", self.handle)


class Graph(_Resource):
    """Captured work that launches as one.

    Args:
        stream: The stream that `work` uses.
        work: Enqueues the work, which is recorded and not run.
    """

    def __init__(self, stream: CudaStream, work: Callable[[], None]) -> None:
        api = runtime_api()
        # In this mode, only this thread must avoid calls that cannot be captured.
        mode = api.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        _call("cudaStreamBeginCapture", stream.handle, mode)
        try:
            work()
        except BaseException:
            # End the capture, so that the stream is usable again.
            _, unfinished = api.cudaStreamEndCapture(stream.handle)
            if unfinished is not None and int(unfinished):
                _free(api.cudaGraphDestroy, int(unfinished))
            api.cudaGetLastError()  # else the next call would report the error again
            raise
        graph = int(_call("cudaStreamEndCapture", stream.handle))
        try:
            self._handle = int(_call("cudaGraphInstantiate", graph, 0))
        finally:
            _free(api.cudaGraphDestroy, graph)
        self._own("cudaGraphExecDestroy", self._handle)

    def launch(self, stream: CudaStream) -> None:
        """Enqueue the work."""
        _call("cudaGraphLaunch", self._handle, stream.handle)


class Kernels:
    """Kernels loaded into the current context, until the process ends.

    Raises:
        BackendError: they do not support this GPU, or the driver is too old for them.
    """

    def __init__(self, image: bytes) -> None:
        self._image = image
        self._functions: dict[str, object] = {}
        _call("cudaFree", 0)  # creates the device's context if there is none
        self._module = _call("cuModuleLoadData", image, about="the kernels of sr-deploy")

    def launch(
        self, name: str, step: ctypes.Structure, size: tuple[int, int], stream: CudaStream
    ) -> None:
        """Enqueue a kernel.

        Args:
            name: Name of the kernel.
            step: Its only argument.
            size: Number of rows, and of elements in a row; a thread computes one or more.
            stream: The stream.
        """
        if name not in self._functions:
            self._functions[name] = _call(
                "cuModuleGetFunction", self._module, name.encode(), about=name
            )
        rows, elements = (max(each, 1) for each in size)
        grid = min(-(-elements // _THREADS), _MOST_BLOCKS), min(rows, _MOST_BLOCKS), 1
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(step))
        where = (*grid, _THREADS, 1, 1, 0, stream.handle, ctypes.addressof(arguments), 0)
        _call("cuLaunchKernel", self._functions[name], *where, about=name)
