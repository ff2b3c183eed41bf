"""The memory that lanes on a GPU keep from frame to frame."""

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
    """One lane's, by name; they grow, and stay for the next frame."""

    def __init__(self) -> None:
        self._memory: dict[str, Memory] = {}
        self._staging: dict[str, NDArray[np.uint8]] = {}

    def reserve(self, name: str, size: int) -> int:
        """Return the address of memory of the device; nothing may be on its way there.

        Raises:
            OutOfMemoryError: there is not as much.
        """
        if name not in self._memory or self._memory[name].size < size:
            if name in self._memory:
                self._memory.pop(name).close()  # the old goes first
            self._memory[name] = Memory(size)
        return self._memory[name].address

    def address(self, name: str) -> int:
        """Return the address of what was reserved."""
        return self._memory[name].address

    def staged(self, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return a page-locked array; nothing may be on its way there.

        Raises:
            OutOfMemoryError: the system does not lock as much.
        """
        if name not in self._staging or self._staging[name].shape != shape:
            self._staging.pop(name, None)
            self._staging[name] = driver.page_locked(shape)
        return self._staging[name]

    def close(self) -> None:
        """Give all of it back; it can be reserved again."""
        while self._memory:
            self._memory.popitem()[1].close()
        self._staging.clear()


class Scratch:
    """Memory for intermediates that lanes share: their networks compute one after the other.

    Several at once would only take turns on the GPU; so a lane costs no more than its frames.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._done = Event()
        self._memory: Memory | None = None

    @contextlib.contextmanager
    def turn(self, stream: CudaStream, size: int) -> Iterator[Memory]:
        """Lend the memory to what is put into a stream, after all that others have put there.

        Raises:
            OutOfMemoryError: there is not as much.
        """
        with self._turn:
            if self._memory is None or self._memory.size < size:
                self._done.synchronize()
                self._drop()
                self._memory = Memory(size)
            stream.wait(self._done)
            try:
                yield self._memory
            finally:
                self._done.record(stream)

    def release(self) -> None:
        """Give the memory back, when those who use it are done."""
        with self._turn:
            self._done.synchronize()
            self._drop()

    def close(self) -> None:
        """Give everything back; the lanes are closed already."""
        self._drop()
        self._done.close()

    def _drop(self) -> None:
        memory, self._memory = self._memory, None
        if memory is not None:
            memory.close()
