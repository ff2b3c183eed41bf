"""Plans as TensorRT runs them, whatever its version: what moved between versions is looked for."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

import tensorrt as trt

from sr_deploy.backends.base import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_deploy.backends.cuda.driver import CudaStream, Memory
    from sr_deploy.bundle.plan_store import Shape

_log = logging.getLogger(__name__)

_MOST_MESSAGES = 5
_PIXEL_AXES = 4


class Messages(trt.ILogger):
    """Keeps what TensorRT complains about, for the error that follows."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self._errors: list[str] = []

    def log(self, severity: Any, msg: str) -> None:
        """Take one message; called by TensorRT, from any thread."""
        if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
            self._errors = [*self._errors, msg][-_MOST_MESSAGES:]
        _log.debug("TensorRT: %s", msg)

    def error(self, what: str) -> Exception:
        """Return the error for something that TensorRT did not do, with what it said of it."""
        said, self._errors = self._errors, []
        return translated(RuntimeError("; ".join(said) or "TensorRT did not say why"), what)


@functools.cache
def messages() -> Messages:
    """Return the one logger that TensorRT has in this process; it takes no second."""
    return Messages()


@functools.cache
def _runtime() -> trt.Runtime:
    """Return TensorRT's runtime. Without a driver this call would end the process."""
    return trt.Runtime(messages())


class LoadedPlan:
    """A plan that TensorRT has loaded, into the memory of the device that is chosen.

    Args:
        content: Of the plan's file, known to be what was built.
        name: Of the file, for errors.

    Raises:
        OutOfMemoryError: there is no memory for it.
        BackendError: TensorRT does not take it.

    Attributes:
        pixels: The name of the input that is a batch of frames; of a generator, of numbers.
        rows: Whether it is numbers, (N, size), which count as images of one row.
        others: The names of the other inputs.
        result: The name of the output.
        memory: Bytes that a context takes for intermediates, at most.
    """

    def __init__(self, content: bytes, name: str, *, version_compatible: bool = False) -> None:
        runtime = _runtime()
        if version_compatible:  # such a plan brings code of its own
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise messages().error(f"TensorRT {trt.__version__} does not take {name}")
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
        """Return another context, which has to be lent memory for its intermediates."""
        engine: Any = self._engine  # each version knows one of these ways
        strategies = getattr(trt, "ExecutionContextAllocationStrategy", None)
        if strategies is None:
            context = engine.create_execution_context_without_device_memory()
        else:
            context = engine.create_execution_context(strategy=strategies.USER_MANAGED)
        if context is None:
            raise messages().error("TensorRT opened no context")
        return context


class Contexts:
    """The network of one lane: a context for each plan that its frames needed.

    Args:
        program_for: Returns what runs a batch of a height and width.
    """

    def __init__(self, program_for: Callable[[Shape], LoadedPlan]) -> None:
        self._program_for = program_for
        self._contexts: dict[LoadedPlan, trt.IExecutionContext] = {}
        self._current: trt.IExecutionContext | None = None

    def bind(self, shape: tuple[int, ...], pixels: int, result: int, color: int | None) -> int:
        """Get ready for batches of a shape; see `Execution.bind`."""
        batch, height, width, _ = shape
        program = self._program_for((batch, height, width))
        if program not in self._contexts:
            self._contexts[program] = program.context()
        self._current = context = self._contexts[program]
        taken = (batch, width) if program.rows else shape
        if not context.set_input_shape(program.pixels, taken):
            raise messages().error(f"TensorRT does not take frames of {shape}")
        addresses = {program.pixels: pixels, program.result: result}
        if color is not None:
            addresses |= dict.fromkeys(program.others, color)
        for name, address in addresses.items():
            if not context.set_tensor_address(name, address):
                raise messages().error(f"TensorRT does not take memory for {name}")
        measure = getattr(context, "update_device_memory_size_for_shapes", None)
        return int(measure()) if measure is not None else program.memory

    def lend(self, memory: Memory) -> None:
        """Use this for intermediates, from the next batch on."""
        current: Any = self._current
        if hasattr(current, "set_device_memory"):
            current.set_device_memory(memory.address, memory.size)
        else:
            current.device_memory = memory.address

    def enqueue(self, stream: CudaStream) -> None:
        """Compute a batch; see `Execution.enqueue`."""
        if self._current is None or not self._current.execute_async_v3(stream.handle):
            raise messages().error("TensorRT did not run the network")

    def close(self) -> None:
        """Let go of the contexts."""
        self._current = None
        self._contexts.clear()
