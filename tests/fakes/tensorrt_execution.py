"""A network for the fake GPU: an oracle that reads and writes the fake's memory."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from sr_deploy.backends.cuda.driver import CudaStream, Memory
from sr_deploy.errors import BackendError, OutOfMemoryError
from tests.fakes.cuda import FakeCuda


class FakeExecution:
    """Runs an oracle, batch by batch, in the stream."""

    def __init__(self, cuda: FakeCuda, network: Any, scratch: int = 100) -> None:
        self.cuda, self.network, self.scratch = cuda, network, scratch
        self.bound: tuple[Any, ...] = ()
        self.shapes: list[tuple[int, ...]] = []
        self.lent: Memory | None = None
        self.most_pixels = 1 << 40
        self.error: BaseException | None = None
        self.capturable = True
        self.closed = False
        self.threads: set[int] = set()

    def bind(self, shape: tuple[int, ...], pixels: int, result: int, colour: int | None) -> int:
        if shape[0] * shape[1] * shape[2] > self.most_pixels:
            raise OutOfMemoryError("too large for this test")
        self.bound = shape, pixels, result
        return self.scratch

    def lend(self, memory: Memory) -> None:
        self.lent = memory

    def enqueue(self, stream: CudaStream) -> None:
        self.threads.add(threading.get_ident())
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        if stream.handle in self.cuda.capturing and not self.capturable:
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
