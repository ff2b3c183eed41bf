"""Loading and running plans with TensorRT 8.6 to 11, and with TensorRT for RTX.

The libraries have the same classes in two modules; the module is handed in, as `trt`. Names that
differ between versions are looked up.
"""

from __future__ import annotations

import functools
import importlib
import logging
import re
from typing import TYPE_CHECKING, Any

from sr_deploy import backends
from sr_deploy.backends.base import check_result, translate_error
from sr_deploy.bundle.plan_store import TITLES
from sr_deploy.errors import BackendError, DriverError, OutOfMemoryError
from sr_deploy.files import atomic_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import tensorrt

    from sr_deploy.backends.cuda.driver import CudaStream, Memory
    from sr_deploy.bundle.plan_store import LibraryName, Shape

_log = logging.getLogger(__name__)

_MOST_MESSAGES = 5
_PIXEL_AXES = 4
_DRIVER_FAULT = re.compile(r"cuda ?runtime|cudaerror|cuda initialization", re.IGNORECASE)
# CUDA reports a kernel's faults in the same way as its own; they are faults of the plan.
_PLAN_FAULT = re.compile(r"illegal|launch failure|misaligned", re.IGNORECASE)
_ACTIVATIONS = re.compile(r"Total Activation Memory: (\d+) bytes")


def library(name: LibraryName) -> Any:
    """Import the module of a library.

    Raises:
        ImportError: it is not installed, or does not work.
    """
    return importlib.import_module(backends.REGISTRY[name].package)


def title(trt: Any) -> str:
    """Return the name and version of a library, for messages."""
    rtx = trt.__name__.startswith("tensorrt_rtx")
    return f"{TITLES['tensorrt_rtx' if rtx else 'tensorrt']} {trt.__version__}"


class Messages:
    """Keeps a library's error messages for the exception that follows.

    Attributes:
        logger: What the library calls.
        activations: Memory in bytes for intermediates of the last built plan, as it was reported;
            0: it was not.
    """

    def __init__(self, trt: Any) -> None:
        # The base class is not known before run time, so the subclass is made here.
        methods = {"__init__": trt.ILogger.__init__, "log": lambda _, *message: self.log(*message)}
        self.logger = type("Logger", (trt.ILogger,), methods)()
        self.activations = 0
        self._kept = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR)
        self._errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        """Handle a message; the library calls this from any thread."""
        if severity in self._kept:
            self._errors = [*self._errors, msg][-_MOST_MESSAGES:]
        if found := _ACTIVATIONS.search(msg):
            self.activations = int(found[1])
        _log.debug("TensorRT: %s", msg)

    def error(self, what: str) -> Exception:
        """Return the exception for a failed call, with the library's messages."""
        texts, self._errors = self._errors, []
        reason = "; ".join(texts)
        error = translate_error(RuntimeError(reason or "TensorRT gave no reason"), what)
        driver = _DRIVER_FAULT.search(reason) and not _PLAN_FAULT.search(reason)
        if driver and not isinstance(error, OutOfMemoryError):
            return DriverError(str(error))
        return error


@functools.cache
def messages(trt: Any) -> Messages:
    """Return the logger of this process; a library accepts only one."""
    return Messages(trt)


@functools.cache
def _runtime(trt: Any) -> Any:
    """Return the library's runtime. Without a driver, TensorRT ends the process here."""
    return trt.Runtime(messages(trt).logger)


class LoadedPlan:
    """A plan loaded into the memory of the current device.

    Args:
        trt: The library's module.
        content: Content of the plan's file; its hash is already verified.
        name: Name of the file, for errors.
        version_compatible: Whether the plan was built for later versions too.
        cache: File with the kernels that TensorRT for RTX compiled for this GPU, which `save_cache`
            writes; None: they are compiled again.

    Raises:
        OutOfMemoryError: not enough GPU memory.
        DriverError: CUDA or the driver does not work.
        BackendError: the library rejects the plan.

    Attributes:
        name: The library, for errors.
        messages: The library's messages.
        pixels: Name of the input for frames, or for a generator's noise.
        rows: Whether that input is noise, (N, size); callers pass it as images of one row.
        others: Names of the other inputs.
        result: Name of the output.
        memory: Largest memory for intermediates of a context, in bytes.
    """

    def __init__(
        self,
        trt: Any,
        content: bytes,
        name: str,
        *,
        version_compatible: bool = False,
        cache: Path | None = None,
    ) -> None:
        self._trt = trt
        self.name = title(trt)
        self.messages = messages(trt)
        runtime = _runtime(trt)
        if version_compatible:  # such a plan contains host code
            runtime.engine_host_code_allowed = True
        engine: tensorrt.ICudaEngine | None = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise self.messages.error(f"{self.name} rejects {name}")
        self._engine = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [each for each in names if engine.get_tensor_mode(each) == trt.TensorIOMode.INPUT]
        results = [each for each in names if each not in inputs]
        frames = [each for each in inputs if len(engine.get_tensor_shape(each)) == _PIXEL_AXES]
        if len(results) != 1 or len(frames or inputs) != 1:
            raise BackendError(
                f"{name}: not a plan of a bundle, its tensors are {', '.join(names)}"
            )
        (self.result,), (self.pixels,) = results, frames or inputs
        self.rows = not frames
        self.others = tuple(each for each in inputs if each != self.pixels)
        for each in names:
            self._check_type(each, name)
        sizes = ("device_memory_size_v2", "device_memory_size")
        name = next(each for each in sizes if hasattr(engine, each))
        self.memory = int(getattr(engine, name))
        self._cache = cache
        self._config = self._runtime_config()

    def _check_type(self, tensor: str, name: str) -> None:
        """Check that a tensor has values of the size for which memory is reserved.

        Raises:
            BackendError: it has not.
        """
        types = self._trt.DataType
        is_bytes = tensor == self.result or (tensor == self.pixels and not self.rows)
        expected = types.UINT8 if is_bytes else types.FLOAT
        found = self._engine.get_tensor_dtype(tensor)
        if found != expected:
            raise BackendError(
                f"{name}: its tensor {tensor!r} is of type {found.name}, but {expected.name} in "
                "bundles"
            )

    def context(self) -> tensorrt.IExecutionContext:
        """Return a new context without memory for intermediates, which the caller must provide."""
        engine: Any = self._engine  # each version has one of these methods
        strategies = getattr(self._trt, "ExecutionContextAllocationStrategy", None)
        if self._config is not None:
            context = engine.create_execution_context(runtime_config=self._config)
        elif strategies is not None:
            context = engine.create_execution_context(strategy=strategies.USER_MANAGED)
        else:
            context = engine.create_execution_context_without_device_memory()
        if context is None:
            raise self.messages.error(f"{self.name} failed to create an execution context")
        return context

    def save_cache(self) -> None:
        """Write the kernels that were compiled for this GPU, if it is possible."""
        if self._cache is None or self._config is None:
            return
        content = bytes(self._config.get_runtime_cache().serialize())
        try:
            if self._cache.is_file() and self._cache.read_bytes() == content:
                return
            with atomic_file(self._cache) as temporary:
                temporary.write_bytes(content)
        except OSError as error:  # a bundle that cannot be written to
            _log.debug("%s: not kept: %s", self._cache, error)

    def _runtime_config(self) -> Any:
        """Return the settings of contexts; None for libraries that compile nothing at run time."""
        strategies = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if strategies is None:
            return None
        engine: Any = self._engine
        config = engine.create_runtime_config()
        user = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
        config.set_execution_context_allocation_strategy(user)
        # Kernels for a shape are compiled by its first frame. The default, in the background,
        # would exchange kernels while a CUDA graph holds the general ones.
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        cache = config.create_runtime_cache()
        if self._cache is not None and self._cache.is_file():
            try:
                known = self._cache.read_bytes()
            except OSError as error:
                _log.debug("%s: not read: %s", self._cache, error)
            else:
                if not cache.deserialize(known):
                    _log.debug("%s: of another driver or version; replaced", self._cache)
        config.set_runtime_cache(cache)
        return config


class Contexts:
    """The network of one lane: a context for each plan that its frames need; see `Execution`.

    Args:
        plan_for: Returns the loaded plan for a (batch, height, width).
    """

    def __init__(self, plan_for: Callable[[Shape], LoadedPlan]) -> None:
        self._plan_for = plan_for
        self._contexts: dict[LoadedPlan, tensorrt.IExecutionContext] = {}
        self._current: tuple[LoadedPlan, tensorrt.IExecutionContext] | None = None

    def bind(
        self,
        shape: tuple[int, ...],
        result_shape: tuple[int, ...],
        pixels: int,
        result: int,
        color: int | None,
    ) -> int:
        """Prepare for batches of a shape; see `Execution.bind`."""
        batch, height, width, _ = shape
        plan = self._plan_for((batch, height, width))
        if plan not in self._contexts:
            self._contexts[plan] = plan.context()
        context = self._contexts[plan]
        self._current = plan, context
        input_shape = (batch, width) if plan.rows else shape
        if not context.set_input_shape(plan.pixels, input_shape):
            raise plan.messages.error(f"TensorRT rejects the shape {shape}")
        given: Any = context.get_tensor_shape(plan.result)
        check_result(given, result_shape, plan.name)
        addresses = {plan.pixels: pixels, plan.result: result}
        if color is not None:
            addresses |= dict.fromkeys(plan.others, color)
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise plan.messages.error(f"TensorRT rejects the memory for {name}")
        needed = getattr(context, "update_device_memory_size_for_shapes", None)
        return plan.memory if needed is None else int(needed())

    def lend(self, memory: Memory) -> None:
        """Use this memory for intermediates, from the next batch on."""
        current: Any = None if self._current is None else self._current[1]
        if hasattr(current, "set_device_memory"):
            current.set_device_memory(memory.address, memory.size)
        else:
            current.device_memory = memory.address

    def enqueue(self, stream: CudaStream) -> None:
        """Enqueue a batch; see `Execution.enqueue`."""
        assert self._current is not None
        plan, context = self._current
        if not context.execute_async_v3(stream.handle):
            raise plan.messages.error("TensorRT failed to run the network")

    def capturable(self, stream: CudaStream) -> bool:
        """Return whether a CUDA graph can hold the batch; see `Execution.capturable`."""
        current: Any = None if self._current is None else self._current[1]
        asked = getattr(current, "is_stream_capturable", None)
        return asked is None or bool(asked(stream.handle))

    def close(self) -> None:
        """Free the contexts."""
        self._current = None
        self._contexts.clear()
