"""The ceilings of the machine: the best rates of its kernels, and the least time of a workload.

`python -m sr_bench.ceilings` measures the rates and prints them as JSON, in its own process, whose
memory and threads do not affect other measurements. The peak of a data sheet is out of reach, and
one kernel is not enough: a matrix product in FP32 uses half of the vector width on some processors.
So several kernels are measured for each precision, and the best one counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sr_bench.records import Ceiling, Workload
from sr_deploy import _worker
from sr_deploy.bundle import schema
from sr_deploy.errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sr_bench.records import BenchRun, Measurement, Size
    from sr_deploy.bundle.bundle import Bundle

_TRIES = 3
_TRY_SECONDS = 0.2
_COPY_BYTES = 256 << 20
_SIDE = 2048
_GPU_SIDE = 8192
# Convolutions as wide as those of such networks, and wider, on frames that fit into the cache.
_CHANNELS, _FRAME, _LAYERS = (64, 128, 256), 64, 4
_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


def count(bundle: Bundle, size: Size, batch: int) -> Workload | None:
    """Return the workload of a call at a size; None: the graph does not accept that size."""
    import onnx

    from sr_export.graph import cost

    width, height = size
    model = bundle.manifest.model
    try:
        graph = cost.with_shapes(
            onnx.load_model(bundle.verified(bundle.manifest.onnx)), (height, width)
        ).graph
    except ExportError:
        return None
    shapes = cost.shapes_of(graph)
    operations, activations = 0.0, 0
    for node in graph.node:
        if node.op_type in cost.MULTIPLYING:
            operations += cost.operations(node, shapes)
            activations += sum(
                math.prod(shapes.get(name, [0])) for name in (node.input[0], node.output[0])
            )
    steps = bundle.manifest.int8.steps if bundle.manifest.int8 else ()
    return Workload(
        operations=batch * operations,
        int8_share=steps[-1].share if steps else 0.0,
        frame_bytes=batch * math.prod(size) * model.channels * (1 + model.scale**2),
        weights=model.parameters,
        activations=batch * activations,
    )


@dataclass(frozen=True)
class CeilingShare:
    """How close a measurement is to the ceiling of the machine."""

    value: float
    """Least possible time over measured time."""
    bound: Literal["arithmetic", "memory"]
    """The limit that applies."""


def share(row: Measurement, run: BenchRun, ceilings: Mapping[str, Ceiling]) -> CeilingShare | None:
    """Return the share of its ceiling that a measurement reached; None: a figure is missing.

    The least time is that of the operations at the best rate in their precision, or of moving
    frames and weights once at the rate of a copy, whichever is longer. It is compared with the
    network alone where that was timed, otherwise with the whole call.
    """
    least = least_seconds(run.work, row.precision, ceilings)
    if least is None:
        return None
    seconds, bound = least
    timing = row.timing("network") or row.upscale
    return CeilingShare(seconds / (timing.percentile(50) / 1e3), bound)


def least_seconds(
    work: Workload | None, precision: str, ceilings: Mapping[str, Ceiling]
) -> tuple[float, Literal["arithmetic", "memory"]] | None:
    """Return the least seconds of a workload and the limit; None: a rate is missing."""
    if work is None or "copy" not in ceilings:
        return None
    parts = {precision: 1.0}
    if precision == "int8":
        rest = next((each for each in ("bf16", "fp16", "fp32") if each in ceilings), "fp32")
        parts = {"int8": work.int8_share, rest: 1.0 - work.int8_share}
    if precision == "fp16" and "fp16" not in ceilings:
        parts = {"fp32": 1.0}  # a device without FP16 kernels computes in FP32
    if not parts.keys() <= ceilings.keys():
        return None
    arithmetic = sum(
        part * work.operations / (1e9 * ceilings[each].best) for each, part in parts.items()
    )
    weights = sum(part * work.weights * _BYTES[each] for each, part in parts.items())
    memory = (work.frame_bytes + weights) / (1e9 * ceilings["copy"].best)
    return (arithmetic, "arithmetic") if arithmetic > memory else (memory, "memory")


def measured(device: str, threads: int) -> dict[str, Ceiling]:
    """Measure the ceilings of a device in a process; kernels that do not run are left out."""
    command = [sys.executable, "-m", "sr_bench.ceilings", device, str(threads)]
    done = _worker.run(command)
    if done.returncode:
        return {}
    return schema.decode(dict[str, Ceiling], json.loads(done.stdout), "ceilings")


def joined(*measurements: dict[str, Ceiling]) -> dict[str, Ceiling]:
    """Return the higher of each ceiling: other work on the machine can only lower it."""
    best: dict[str, Ceiling] = {}
    for name, each in (pair for found in measurements for pair in found.items()):
        if name not in best or each.best > best[name].best:
            best[name] = each
    return best


def main(device: str, threads: int) -> None:
    """Measure all kernels and print the best of each kind as JSON."""
    kernels = _on_gpu() if device != "cpu" else _on_cpu(threads)
    best = joined(*({name: Ceiling(how, _rates(work, call))} for name, how, work, call in kernels))
    sys.stdout.write(json.dumps({name: dataclasses.asdict(each) for name, each in best.items()}))


Kernel = tuple[str, str, float, "Callable[[], object]"]
"""The kind of ceiling, the name, the work of one call in billions, and the call."""


def _rates(work: float, kernel: Callable[[], object]) -> tuple[float, ...]:
    """Return billions per second of each try, after one try as warm-up."""
    found = []
    for _ in range(1 + _TRIES):
        start, calls = time.perf_counter(), 0
        while (now := time.perf_counter()) - start < _TRY_SECONDS or not calls:
            kernel()
            calls += 1
        found.append(round(work * calls / (now - start), 2))
    return tuple(found[1:])


def _on_cpu(threads: int) -> Iterator[Kernel]:
    yield "copy", f"numpy copy, {threads} threads", 2 * _COPY_BYTES / 1e9, _copy(threads)
    with contextlib.suppress(ImportError):
        yield from _torch_products("cpu", threads)
    with contextlib.suppress(ImportError):
        yield from _openvino_convolutions(threads)


def _copy(threads: int) -> Callable[[], object]:
    """Return a copy of more bytes than a cache holds; bytes read and written both count."""
    source, target = np.ones(_COPY_BYTES, np.uint8), np.zeros(_COPY_BYTES, np.uint8)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads), strict=True))

    def run() -> None:
        workers = [threading.Thread(target=np.copyto, args=part) for part in parts[1:]]
        for each in workers:
            each.start()
        np.copyto(*parts[0])
        for each in workers:
            each.join()

    return run


def _torch_products(device: str, threads: int) -> Iterator[Kernel]:
    import torch

    on_gpu = device != "cpu"
    if not on_gpu:
        torch.set_num_threads(threads)
    side = _GPU_SIDE if on_gpu else _SIDE
    how, work = f"PyTorch matrix product {side}", 2 * side**3 / 1e9
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if on_gpu:
        types["fp16"] = torch.float16
    for name, dtype in types.items():
        a, b = (torch.rand(side, side).to(device, dtype) for _ in range(2))
        yield name, how, work, _synchronized(on_gpu, functools.partial(torch.matmul, a, b))
    a, b = (torch.randint(-9, 9, (side, side), dtype=torch.int8, device=device) for _ in range(2))
    with contextlib.suppress(RuntimeError, AttributeError):  # not every device has the kernel
        torch._int_mm(a, b)
        yield "int8", how, work, _synchronized(on_gpu, functools.partial(torch._int_mm, a, b))


def _on_gpu() -> Iterator[Kernel]:
    import torch

    host = torch.zeros(_COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    source, target = (torch.zeros_like(host, device="cuda") for _ in range(2))
    moved = 2 * _COPY_BYTES / 1e9
    yield "copy", "PyTorch copy", moved, _synchronized(True, lambda: target.copy_(source))
    upload = _synchronized(True, lambda: target.copy_(host, non_blocking=True))
    yield "pcie", "upload from page-locked memory", moved / 2, upload
    yield from _torch_products("cuda", 1)


def _synchronized(on_gpu: bool, call: Callable[[], object]) -> Callable[[], object]:
    """Return a call that waits for the GPU."""
    if not on_gpu:
        return call
    import torch

    def run() -> None:
        call()
        torch.cuda.synchronize()

    return run


def _openvino_convolutions(threads: int) -> Iterator[Kernel]:
    import openvino

    core = openvino.Core()
    hints = {"fp32": "f32", "int8": "f32"}
    if "BF16" in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        hints["bf16"] = "bf16"
    for precision, hint in hints.items():
        options: dict[str, Any] = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        for channels in _CHANNELS:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "convolutions.onnx"
                path.write_bytes(_convolutions(channels, quantized=precision == "int8"))
                request = core.compile_model(str(path), "CPU", options).create_infer_request()
            work = 2 * 9 * channels**2 * _FRAME**2 * _LAYERS / 1e9
            how = f"OpenVINO, {_LAYERS} convolutions 3x3 of {channels} channels, {_FRAME}x{_FRAME}"
            yield precision, how, work, request.infer


def _convolutions(channels: int, *, quantized: bool) -> bytes:
    """Return an ONNX graph with a chain of convolutions."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shape = (1, channels, _FRAME, _FRAME)
    weights, nodes = [], []

    def constant(name: str, value: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def quantize(source: str, name: str) -> str:
        """Round a value to INT8 and back; weights are stored as INT8."""
        step = constant(f"{name}_step", np.float32(0.02))
        zero = constant(f"{name}_zero", np.int8(0))
        if name.startswith("x"):
            nodes.append(helper.make_node("QuantizeLinear", [source, step, zero], [f"{name}_q"]))
            source = f"{name}_q"
        nodes.append(helper.make_node("DequantizeLinear", [source, step, zero], [f"{name}_d"]))
        return f"{name}_d"

    current = "input"
    for layer in range(_LAYERS):
        kernel = random.integers(-9, 9, (channels, channels, 3, 3))
        if quantized:
            weight = quantize(constant(f"w{layer}", kernel.astype(np.int8)), f"w{layer}")
            current = quantize(current, f"x{layer}")
        else:
            weight = constant(f"w{layer}", kernel.astype(np.float32) / 1000)
        output = f"y{layer}"
        nodes.append(helper.make_node("Conv", [current, weight], [f"{output}_c"], pads=[1] * 4))
        nodes.append(helper.make_node("Relu", [f"{output}_c"], [output]))
        current = output
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("input", current)
    ]
    graph = helper.make_graph(nodes, "convolutions", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    found: bytes = model.SerializeToString()
    return found


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
