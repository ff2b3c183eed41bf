"""Loading and running plans, with TensorRT 8.6 to 11: names that differ are looked up."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import tensorrt as trt

from sr_deploy.backends.base import translate_error

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_deploy.backends.cuda.driver import CudaStream, Memory
    from sr_deploy.bundle.plan_store import Shape

_log = logging.getLogger(__name__)

_MOST_MESSAGES = 5
_PIXEL_AXES = 4


class Messages(trt.ILogger):
    """Keeps TensorRT's error messages for the exception that follows."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        """Handle a message; TensorRT calls this from any thread."""
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self._errors = [*self._errors, msg][-_MOST_MESSAGES:]
        _log.debug("TensorRT: %s", msg)

    def error(self, what: str) -> Exception:
        """Return the exception for a failed call, with TensorRT's messages."""
        texts, self._errors = self._errors, []
        return translate_error(RuntimeError("; ".join(texts) or "TensorRT gave no reason"), what)


@functools.cache
def messages() -> Messages:
    """Return the logger of this process; TensorRT accepts only one."""
    return Messages()


@functools.cache
def _runtime() -> trt.Runtime:
    """Return TensorRT's runtime. Without a driver, this call ends the process."""
    return trt.Runtime(messages())


class LoadedPlan:
    """A plan loaded into the memory of the current device.

    Args:
        content: Content of the plan's file; its hash is already verified.
        name: Name of the file, for errors.
        version_compatible: Whether the plan was built for later versions too.

    Raises:
        OutOfMemoryError: not enough GPU memory.
        BackendError: TensorRT rejects the plan.

    Attributes:
        pixels: Name of the input for frames, or for a generator's noise.
        rows: Whether that input is noise, (N, size); callers pass it as images of one row.
        others: Names of the other inputs.
        result: Name of the output.
        memory: Largest memory for intermediates of a context, in bytes.
    """

    def __init__(self, content: bytes, name: str, *, version_compatible: bool = False) -> None:
        runtime = _runtime()
        if version_compatible:  # such a plan contains host code
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise messages().error(f"TensorRT {trt.__version__} rejects {name}")
        self._engine = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [each for each in names if engine.get_tensor_mode(each) == trt.TensorIOMode.INPUT]
        (self.result,) = (each for each in names if each not in inputs)
        frames = [each for each in inputs if len(engine.get_tensor_shape(each)) == _PIXEL_AXES]
        (self.pixels,) = frames or inputs
        self.rows = not frames
        self.others = tuple(each for each in inputs if each != self.pixels)
        sizes = ("device_memory_size_v2", "device_memory_size")
        name = next(each for each in sizes if hasattr(engine, each))
        self.memory = int(getattr(engine, name))

    def context(self) -> trt.IExecutionContext:
        """Return a new context without memory for intermediates, which the caller must provide."""
        engine: Any = self._engine  # each version has one of these two methods
        strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
        if strategies is None:
            context = engine.create_execution_context_without_device_memory()
        else:
            context = engine.create_execution_context(strategy=strategies.USER_MANAGED)
        if context is None:
            raise messages().error("TensorRT failed to create an execution context")
        return context


class Contexts:
    """The network of one lane: a context for each plan that its frames need; see `Execution`.

    Args:
        plan_for: Returns the loaded plan for a (batch, height, width).
    """

    def __init__(self, plan_for: Callable[[Shape], LoadedPlan]) -> None:
        self._plan_for = plan_for
        self._contexts: dict[LoadedPlan, trt.IExecutionContext] = {}
        self._current: trt.IExecutionContext | None = None

    def bind(self, shape: tuple[int, ...], pixels: int, result: int, color: int | None) -> int:
        """Prepare for batches of a shape; see `Execution.bind`."""
        batch, height, width, _ = shape
        plan = self._plan_for((batch, height, width))
        if plan not in self._contexts:
            self._contexts[plan] = plan.context()
        self._current = context = self._contexts[plan]
        input_shape = (batch, width) if plan.rows else shape
        if not context.set_input_shape(plan.pixels, input_shape):
            raise messages().error(f"TensorRT rejects the shape {shape}")
        addresses = {plan.pixels: pixels, plan.result: result}
        if color is not None:
            addresses |= dict.fromkeys(plan.others, color)
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise messages().error(f"TensorRT rejects the memory for {name}")
        needed = getattr(context, "update_device_memory_size_for_shapes", None)
        return plan.memory if needed is None else int(needed())

    def lend(self, memory: Memory) -> None:
        """Use this memory for intermediates, from the next batch on."""
        current: Any = self._current
        if hasattr(current, "set_device_memory"):
            current.set_device_memory(memory.address, memory.size)
        else:
            current.device_memory = memory.address

    def enqueue(self, stream: CudaStream) -> None:
        """Enqueue a batch; see `Execution.enqueue`."""
        if self._current is None or not self._current.execute_async_v3(stream.handle):
            raise messages().error("TensorRT failed to run the network")

    def close(self) -> None:
        """Free the contexts."""
        self._current = None
        self._contexts.clear()
