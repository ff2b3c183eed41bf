"""The runner of sr-deploy's engine, and direct calls of the backend below it."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sr_bench import meters
from sr_bench.configurations import DEFAULT
from sr_bench.records import Configuration
from sr_bench.timers import wall_clock
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.bundle.manifest import Precision
from sr_deploy.engine import Engine
from sr_deploy.runtime.selection import pixel_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_bench.configurations import WorkerSpec
    from sr_bench.timers import Clock, Frames


class EngineRunner:
    """An engine on a bundle; see `timers.Runner`."""

    def __init__(self, spec: WorkerSpec) -> None:
        self._spec = spec
        is_default = spec.configuration == DEFAULT
        # For the default device no device is passed, as users do.
        default_device = meters.default_device() if is_default else "cpu"
        self._engine = Engine(
            spec.bundle,
            backend=spec.configuration.backend,
            precision=spec.configuration.precision,
            device=None if spec.device == default_device else spec.device,
            threads=None if is_default else spec.threads,
            memory=spec.memory,
        )
        engine = self._engine.spec
        self._variant = (engine.backend, engine.precision)
        resolved = Configuration("sr-deploy", *self._variant)
        self.resolved = resolved if is_default else None

    def upscale(self, frames: Frames) -> NDArray[Any]:
        """Upscale a batch, frame by frame."""
        if len(frames) == 1:
            return self._engine.upscale(frames[0])[None]
        return np.stack([self._engine.upscale(frame) for frame in frames])

    def network(self, batches: Frames) -> Callable[[int], object] | None:
        """Return a direct call of the backend."""
        return direct_call(Bundle.open(self._spec.bundle), *self._variant, self._spec, batches)

    def stream(self, frames: Iterator[Frames]) -> Iterator[NDArray[Any]] | None:
        """Upscale consecutive frames, overlapped."""
        return self._engine.stream(frames)

    def stages(self, frames: Frames) -> dict[str, float]:
        """Upscale a batch; return the milliseconds of engine, tiles and network."""
        spent = dict.fromkeys(("lane", "infer"), 0.0)
        with contextlib.ExitStack() as stack:
            for lane in _lanes(self._engine):
                stack.enter_context(_timed_method(lane, "run", spent, "lane"))
                if (inference := getattr(lane, "_inference", None)) is not None:
                    stack.enter_context(_timed_method(inference, "infer", spent, "infer"))
            whole = wall_clock(lambda: self.upscale(frames))
        found = {"engine": whole - spent["lane"]}
        if spent["infer"]:
            return found | {"tiles": spent["lane"] - spent["infer"], "network": spent["infer"]}
        return found | {"network": spent["lane"]}

    def settle(self, frames: Frames) -> NDArray[Any]:
        """Compile the network for the size of the frames; see `settle`."""
        settle(self._engine)
        return self.upscale(frames)

    def clock(self) -> Clock:
        """Return the wall clock: frames are in host memory when a call returns."""
        return wall_clock

    def device_memory(self) -> int | None:
        """Return None: the driver reports the memory of a backend, from outside."""
        return None

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def settle(engine: Engine) -> None:
    """Make OpenVINO compile the network for the size of the next frame.

    The engine does so by itself from the third frame of a size; this saves the wait.
    """
    for lane in _lanes(engine):
        inference = getattr(lane, "_inference", None)
        if hasattr(inference, "_price"):
            inference._price = 0.0  # type: ignore[union-attr]


def _lanes(engine: Engine) -> list[Any]:
    """Return the lanes for 8-bit frames, all idle. Private attributes, for measurements only."""
    frames = pixel_format(engine.spec.channels, itemsize=1)
    return list(engine._session.pool(frames)._idle.queue)


@contextlib.contextmanager
def _timed_method(owner: Any, name: str, spent: dict[str, float], key: str) -> Iterator[None]:
    """Add up the milliseconds of a method of an object."""
    method = getattr(owner, name)

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            spent[key] += 1e3 * (time.perf_counter() - start)

    setattr(owner, name, timed)
    try:
        yield
    finally:
        delattr(owner, name)


def direct_call(
    bundle: Bundle, backend: str, precision: str, spec: WorkerSpec, batches: Frames
) -> Callable[[int], object] | None:
    """Return a call of a backend on a batch of (M, N, H, W, C), by its index: a lower bound.

    The network is compiled for the shape of the batches, inputs are read in place, and all outputs
    are written to the same array. None: the backend is not supported here, or the network does not
    accept the shape.
    """
    model = bundle.manifest.model
    height, width = batches.shape[2:4]
    fits = model.fixed_size in (None, (height, width)) and model.fixed_batch in (
        None,
        batches.shape[1],
    )
    supported = {"openvino": _openvino_call, "onnxruntime": _onnxruntime_call}
    if backend not in supported or spec.device != "cpu" or not fits:
        return None
    frames = pixel_format(model.channels, itemsize=1)
    known = next(each for each in get_args(Precision) if each == precision)
    variant = bundle.variant(known, frames)
    assert variant is not None
    scale = model.scale
    shape = (batches.shape[1], scale * height, scale * width, batches.shape[4])
    output = np.empty(shape, np.uint8)
    return supported[backend](bundle.network(variant), precision, spec.threads, batches, output)


def _openvino_call(
    file: Path, precision: str, threads: int, batches: Frames, output: Frames
) -> Callable[[int], object]:
    import openvino

    core = openvino.Core()
    has_bf16 = "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    model = core.read_model(file)
    model.reshape(list(batches.shape[1:]))
    options = {
        "INFERENCE_PRECISION_HINT": (
            "bf16" if has_bf16 and precision in ("bf16", "int8") else "f32"
        ),
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    request = core.compile_model(model, "CPU", options).create_infer_request()
    inputs = [openvino.Tensor(batch, shared_memory=True) for batch in batches]
    request.set_output_tensor(openvino.Tensor(output, shared_memory=True))

    def run(index: int) -> object:
        request.set_input_tensor(inputs[index])
        request.infer()
        return output

    return run


def _onnxruntime_call(
    file: Path, precision: str, threads: int, batches: Frames, output: Frames
) -> Callable[[int], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(file), options, ["CPUExecutionProvider"])
    (fed,), (fetched,) = session.get_inputs(), session.get_outputs()
    bindings = []
    for batch in batches:
        binding = session.io_binding()
        binding.bind_cpu_input(fed.name, batch)
        binding.bind_output(fetched.name, "cpu", 0, np.uint8, output.shape, output.ctypes.data)
        bindings.append(binding)

    def run(index: int) -> object:
        session.run_with_iobinding(bindings[index])
        return output  # a reference: the bindings have its address only

    return run
