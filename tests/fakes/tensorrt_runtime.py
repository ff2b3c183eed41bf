"""TensorRT without a GPU: plans are text that names their shapes, networks are oracles.

It has what the library uses, and of what differs between versions only what a version has.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from typing import Any, cast

import numpy as np

from tests.fakes.cuda import FakeCuda


def plan(
    least: tuple[int, ...], most: tuple[int, ...], *, memory: int = 1000, rows: bool = False
) -> bytes:
    """Return a plan for shapes between two, (batch, height, width); `rows`: of a generator."""
    return json.dumps({"least": least, "most": most, "memory": memory, "rows": rows}).encode()


def module(cuda: FakeCuda, network: Callable[[Any], Any], version: str) -> types.ModuleType:
    """Return what stands for the package, as of a version: 8.6.0 or 10.3.0, say."""
    found: Any = types.ModuleType("tensorrt")
    found.__version__ = version
    found.__spec__ = types.SimpleNamespace()  # importlib finds it installed
    found.ILogger, found.TensorIOMode = _Logger, _Mode
    found.Runtime = lambda logger: _Runtime(cuda, network, logger, version)
    if not version.startswith("8."):
        found.ExecutionContextAllocationStrategy = types.SimpleNamespace(USER_MANAGED="user")
    return found


class _Logger:
    INTERNAL_ERROR, ERROR, WARNING = range(3)

    def log(self, severity: int, msg: str) -> None: ...


class _Mode:
    INPUT, OUTPUT = "in", "out"


class _Runtime:
    def __init__(self, cuda: FakeCuda, network: Any, logger: Any, version: str) -> None:
        self.cuda, self.network, self.logger, self.version = cuda, network, logger, version
        self.engine_host_code_allowed = False

    def deserialize_cuda_engine(self, content: bytes) -> Any:
        if not content.startswith(b"{"):
            self.logger.log(_Logger.ERROR, "magic tag does not match")
            return None
        return (_OldEngine if self.version.startswith("8.") else _NewEngine)(self, content)


class _Engine:
    num_io_tensors = 2

    def __init__(self, runtime: _Runtime, content: bytes) -> None:
        self.runtime, self.shapes = runtime, json.loads(content)

    def get_tensor_name(self, index: int) -> str:
        return ("pixels", "upscaled")[index]

    def get_tensor_mode(self, name: str) -> str:
        return _Mode.INPUT if name == "pixels" else _Mode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return (-1, 5) if self.shapes["rows"] else (-1, -1, -1, 3)


class _OldEngine(_Engine):
    @property
    def device_memory_size(self) -> int:
        return int(self.shapes["memory"])

    def create_execution_context_without_device_memory(self) -> Any:
        return _OldContext(self)


class _NewEngine(_Engine):
    @property
    def device_memory_size_v2(self) -> int:
        return int(self.shapes["memory"])

    def create_execution_context(self, strategy: str) -> Any:
        assert strategy == "user"
        return _NewContext(self)


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self.engine, self.shape = engine, cast("tuple[int, ...]", (0, 0, 0, 0))
        self.addresses: dict[str, int] = {}
        self.lent = (0, 0)

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        shapes = self.engine.shapes
        self.shape = shape
        assert len(shape) == (2 if shapes["rows"] else 4)
        sides = (shape[0], 1, shape[1]) if shapes["rows"] else shape
        inside = zip(shapes["least"], sides, shapes["most"], strict=False)
        return name == "pixels" and all(low <= side <= high for low, side, high in inside)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        runtime = self.engine.runtime
        if self.lent[1] < self.needed():
            runtime.logger.log(_Logger.ERROR, "too little memory was lent")
            return False
        shape, pixels, result = self.shape, *map(self.addresses.get, ("pixels", "upscaled"))
        assert pixels is not None
        assert result is not None
        address, size = self.lent

        def compute() -> None:
            runtime.cuda.array(address, size)[...] = 7
            kind = np.dtype(np.float32 if len(shape) == 2 else np.uint8)
            found = runtime.cuda.array(pixels, int(np.prod(shape)) * kind.itemsize)
            batch = found.view(kind).reshape(shape)
            values = np.stack([runtime.network(each) for each in batch])
            runtime.cuda.array(result, values.size)[...] = values.ravel()

        runtime.cuda.put(stream, compute)
        return True

    def needed(self) -> int:
        return int(self.engine.shapes["memory"])


class _OldContext(_Context):
    def _lend(self, address: int) -> None:
        self.lent = address, self.needed()

    device_memory = property(None, _lend)


class _NewContext(_Context):
    def set_device_memory(self, address: int, size: int) -> None:
        self.lent = address, size

    def update_device_memory_size_for_shapes(self) -> int:
        return self.needed()

    def needed(self) -> int:
        share = np.prod(self.shape[:3]) / np.prod(self.engine.shapes["most"])  # 1 row of numbers
        return int(super().needed() * share)
