"""All that this library asks of CUDA, through cuda-python; nothing else talks to it.

cuda-python is imported when something here is first used. Every call is checked, and what fails
says which call it was, on what, and what helps. Whatever is opened here is given back when it is
closed or when nobody holds it any more.

The calls work on the device that the calling thread has chosen with `use`.
"""

from __future__ import annotations

import contextlib
import ctypes
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.backends.cuda import calls
from sr_deploy.bundle.plan_store import GpuInfo
from sr_deploy.machine import format_bytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

LEGACY_STREAM = 1
"""The handle of the stream that everyone uses who says nothing."""
_THREADS = 256
_MOST_BLOCKS = 65535


def count() -> int:
    """Return how many GPUs this process has, at least one.

    Raises:
        BackendMissingError: cuda-python is not installed.
        BackendError: there is no driver, it is too old, or there is no GPU.
    """
    return int(calls.call("cudaGetDeviceCount"))


def describe(index: int) -> GpuInfo:
    """Return what TensorRT's plans depend on of a GPU.

    Raises:
        BackendMissingError, BackendError: as of `count`; or there is no such GPU.
    """
    count()
    found = calls.call("cudaGetDeviceProperties", index, about=f"device {index}")
    major, minor = calls.version(calls.call("cudaDriverGetVersion"))
    name = found.name.decode(errors="replace").rstrip("\0")
    return GpuInfo(name, (found.major, found.minor), f"for CUDA {major}.{minor}")


def use(index: int) -> None:
    """Make a device that of the calling thread; its primary context becomes the current one."""
    calls.call("cudaSetDevice", index, about=f"device {index}")


def memory(index: int) -> tuple[int, int]:
    """Return the free bytes of a device, and all; it becomes that of the calling thread."""
    use(index)
    free, total = calls.call("cudaMemGetInfo")
    return int(free), int(total)


def is_page_locked(array: NDArray[Any]) -> bool:
    """Return whether an array lies in page-locked memory, whoever allocated it."""
    ends = array.ctypes.data, array.ctypes.data + max(array.nbytes, 1) - 1
    host = calls.runtime().cudaMemoryType.cudaMemoryTypeHost
    return all(calls.call("cudaPointerGetAttributes", end).type == host for end in ends)


def device_of(address: int) -> int:
    """Return the device whose memory holds an address."""
    return int(calls.call("cudaPointerGetAttributes", address, about=f"{address:#x}").device)


def page_locked(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return an array of bytes in page-locked memory, given back with its last view.

    Raises:
        OutOfMemoryError: the system does not lock as much.
    """
    return np.asarray(_PageLocked(shape))


def copy(
    to: int, source: int, size: tuple[int, int], pitches: tuple[int, int], stream: CudaStream
) -> None:
    """Copy rows of bytes, wherever both lie; returns at once.

    Args:
        to: Address.
        source: Address.
        size: Rows, and bytes of each.
        pitches: Bytes from one row to the next, at `to` and at `source`.
        stream: In which it takes its turn.
    """
    rows, width = size
    kind = calls.runtime().cudaMemcpyKind.cudaMemcpyDefault
    about = f"{rows} rows of {width} bytes"
    if pitches == (width, width):
        calls.call("cudaMemcpyAsync", to, source, rows * width, kind, stream.handle, about=about)
        return
    calls.call(
        "cudaMemcpy2DAsync",
        *(to, pitches[0], source, pitches[1], width, rows, kind, stream.handle),
        about=about,
    )


def copy_bytes(to: int, source: int, size: int, stream: CudaStream) -> None:
    """Copy bytes, wherever both lie; returns at once."""
    copy(to, source, (1, size), (size, size), stream)


class _Owned:
    """Something of CUDA's that is given back once."""

    def _own(self, give_back: str, handle: int) -> None:
        function = getattr(calls.runtime(), give_back)
        self._close = weakref.finalize(self, calls.give_back, function, handle)
        self._close.atexit = False  # the driver gives everything back itself

    def close(self) -> None:
        """Give it back; again does nothing."""
        self._close()


class _PageLocked(_Owned):
    """Page-locked memory, as numpy takes it."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        size = max(int(np.prod(shape, dtype=np.int64)), 1)
        about = f"{format_bytes(size)} of page-locked memory"
        address = int(
            calls.call("cudaHostAlloc", size, calls.constant("cudaHostAllocPortable"), about=about)
        )
        self._own("cudaFreeHost", address)
        self.__array_interface__ = {
            "version": 3,
            "shape": shape,
            "typestr": "|u1",
            "data": (address, False),
        }


class Memory(_Owned):
    """Memory of the device.

    Raises:
        OutOfMemoryError: there is not as much.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.address = int(calls.call("cudaMalloc", max(size, 1), about=format_bytes(size)))
        self._own("cudaFree", self.address)


class CudaStream(_Owned):
    """A sequence of work on the device. Those of others are only borrowed, by their handle."""

    def __init__(self, borrowed: int | None = None) -> None:
        if borrowed is None:
            flags = calls.constant("cudaStreamNonBlocking")
            self.handle = int(calls.call("cudaStreamCreateWithFlags", flags))
            self._own("cudaStreamDestroy", self.handle)
        else:
            self.handle = borrowed or LEGACY_STREAM

    def wait(self, event: Event) -> None:
        """Have what follows wait for an event; returns at once."""
        calls.call("cudaStreamWaitEvent", self.handle, event.handle, 0)

    def synchronize(self) -> None:
        """Wait until everything is done; without the interpreter's lock."""
        calls.call("cudaStreamSynchronize", self.handle)


class Event(_Owned):
    """A point in a stream."""

    def __init__(self) -> None:
        # A thread that waits leaves its processor to others.
        flags = calls.constant("cudaEventBlockingSync") | calls.constant("cudaEventDisableTiming")
        self.handle = int(calls.call("cudaEventCreateWithFlags", flags))
        self._own("cudaEventDestroy", self.handle)

    def record(self, stream: CudaStream) -> None:
        """Be what the stream has been given so far."""
        calls.call("cudaEventRecord", self.handle, stream.handle)

    def synchronize(self) -> None:
        """Wait until it is done; without the interpreter's lock. Errors of the work come here."""
        calls.call("cudaEventSynchronize", self.handle)


class Graph(_Owned):
    """Work that was captured and is launched as one.

    Args:
        stream: In which `work` puts it.
        work: What to capture; it is not done.
    """

    def __init__(self, stream: CudaStream, work: Callable[[], None]) -> None:
        with _captured(stream, work) as graph:
            executable = calls.call("cudaGraphInstantiate", graph, 0)
        self._handle = int(executable)
        self._own("cudaGraphExecDestroy", self._handle)

    def launch(self, stream: CudaStream) -> None:
        """Do it once more."""
        calls.call("cudaGraphLaunch", self._handle, stream.handle)


@contextlib.contextmanager
def _captured(stream: CudaStream, work: Callable[[], None]) -> Iterator[object]:
    """Lend what was captured; the stream is as before even if that failed."""
    # Only this thread is kept from calls that cannot be captured.
    mode = calls.runtime().cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    calls.call("cudaStreamBeginCapture", stream.handle, mode)
    try:
        work()
    except BaseException:
        _, unfinished = calls.runtime().cudaStreamEndCapture(stream.handle)
        if unfinished is not None and int(unfinished):
            calls.give_back(calls.runtime().cudaGraphDestroy, int(unfinished))
        calls.runtime().cudaGetLastError()  # it would come again with the next call
        raise
    graph = calls.call("cudaStreamEndCapture", stream.handle)
    try:
        yield graph
    finally:
        calls.give_back(calls.runtime().cudaGraphDestroy, int(graph))


class Kernels:
    """Compiled kernels, loaded into the context that is current. They stay until the process ends.

    Raises:
        BackendError: they are not for this GPU, or the driver is too old for them.
    """

    def __init__(self, image: bytes) -> None:
        self._image = image
        self._functions: dict[str, object] = {}
        calls.call("cudaFree", 0)  # makes the device's context, if nobody has yet
        self._module = calls.call("cuModuleLoadData", image, about="the kernels of this library")

    def launch(
        self, name: str, step: ctypes.Structure, size: tuple[int, int], stream: CudaStream
    ) -> None:
        """Launch a kernel.

        Args:
            name: Of the kernel.
            step: Its only argument.
            size: Rows, and the elements of each; a thread takes one or more.
            stream: In which it takes its turn.
        """
        if name not in self._functions:
            self._functions[name] = calls.call(
                "cuModuleGetFunction", self._module, name.encode(), about=name
            )
        rows, elements = (max(each, 1) for each in size)
        grid = min(-(-elements // _THREADS), _MOST_BLOCKS), min(rows, _MOST_BLOCKS), 1
        arguments = (ctypes.c_void_p * 1)(ctypes.addressof(step))
        where = (*grid, _THREADS, 1, 1, 0, stream.handle, ctypes.addressof(arguments), 0)
        calls.call("cuLaunchKernel", self._functions[name], *where, about=name)
