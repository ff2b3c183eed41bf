"""Memory that the lanes of a GPU keep between frames."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

from sr_deploy.backends.cuda import driver
from sr_deploy.backends.cuda.driver import Event, Memory

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from sr_deploy.backends.cuda.driver import CudaStream


class Buffers:
    """The buffers of one lane, by name. They grow, and the next frame reuses them."""

    def __init__(self) -> None:
        self._memory: dict[str, Memory] = {}
        self._staging: dict[str, NDArray[np.uint8]] = {}

    def reserve(self, name: str, size: int) -> int:
        """Return the address of GPU memory of at least a size; no work may use the old one.

        Raises:
            OutOfMemoryError: not enough GPU memory.
        """
        if name not in self._memory or self._memory[name].size < size:
            if name in self._memory:
                self._memory.pop(name).close()  # before the new one is allocated
            self._memory[name] = Memory(size)
        return self._memory[name].address

    def address(self, name: str) -> int:
        """Return the address of reserved memory."""
        return self._memory[name].address

    def staged(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a page-locked array; no work may use the old one.

        Raises:
            OutOfMemoryError: the system cannot lock as much memory.
        """
        if name not in self._staging or self._staging[name].shape != shape:
            self._staging.pop(name, None)
            self._staging[name] = driver.page_locked(shape)
        return self._staging[name]

    def close(self) -> None:
        """Free all buffers; they can be reserved again."""
        while self._memory:
            self._memory.popitem()[1].close()
        self._staging.clear()


class Scratch:
    """Memory for intermediates that all lanes share, so that a lane costs only its frames.

    The networks of the lanes compute one after the other: in parallel, they would only take turns
    on the GPU.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._done = Event()
        self._memory: Memory | None = None

    @contextlib.contextmanager
    def turn(self, stream: CudaStream, size: int) -> Iterator[Memory]:
        """Lend the memory to the work that is enqueued in a stream, after the work of others.

        Raises:
            OutOfMemoryError: not enough GPU memory.
        """
        with self._lock:
            if self._memory is None or self._memory.size < size:
                self._drop()
                self._memory = Memory(size)
            stream.wait(self._done)
            try:
                yield self._memory
            finally:
                self._done.record(stream)

    def release(self) -> None:
        """Free the memory after the work that uses it."""
        with self._lock:
            self._drop()

    def close(self) -> None:
        """Free all resources; the lanes are already closed."""
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
        self._done.close()

    def _drop(self) -> None:
        self._done.synchronize()
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
