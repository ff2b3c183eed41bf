"""Backends called bare, as their own documentation does: what an engine can at best reach."""

from __future__ import annotations

from typing import TYPE_CHECKING, get_args

import numpy as np

from sr_deploy.bundle.manifest import Precision
from sr_deploy.runtime import selection

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from sr_bench.jobs import Frames, WorkerSpec
    from sr_deploy.bundle.bundle import Bundle


def call(
    bundle: Bundle, backend: str, precision: str, job: WorkerSpec, batches: Frames
) -> Callable[[int], object] | None:
    """Return a call of a backend on one of the batches (M, N, H, W, C), by its index.

    The network is compiled for the batches' shape, inputs are read where they lie, and the output
    is written to the same place each time. None: the backend is not one of those known here, or
    the network takes no such shape.
    """
    model = bundle.manifest.model
    height, width = batches.shape[2:4]
    fits = model.fixed_size in (None, (height, width)) and model.fixed_batch in (
        None,
        batches.shape[1],
    )
    known = {"openvino": _openvino, "onnxruntime": _onnxruntime}
    if backend not in known or job.device != "cpu" or not fits:
        return None
    frames = selection.pixel_format(model.channels, itemsize=1)
    chosen = next(each for each in get_args(Precision) if each == precision)
    variant = bundle.variant(chosen, frames)
    assert variant is not None
    scale = model.scale
    shape = (batches.shape[1], scale * height, scale * width, batches.shape[4])
    return known[backend](
        bundle.verified(variant), precision, job.threads, batches, np.empty(shape, np.uint8)
    )


def _openvino(
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


def _onnxruntime(
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
        return output  # which the bindings know by its address alone

    return run
