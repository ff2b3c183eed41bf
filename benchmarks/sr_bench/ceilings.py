"""The practical ceilings of a machine: what its best kernels reach, measured in the same run.

`python -m sr_bench.ceilings` prints them as JSON, in a process of its own, so that neither its
memory nor its threads touch what is measured beside it. A data sheet's peak says little, and so
does one kernel: a matrix product in FP32 uses half of the vector width on some processors. So for
each precision, several kernels try, and the best one counts.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_bench.timings import Ceiling
from sr_deploy.bundle import schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TRIES = 3
_TRY_SECONDS = 0.2
_COPY_BYTES = 256 << 20
_SIDE = 2048
_GPU_SIDE = 8192
# Convolutions as wide as what such networks have and wider, on frames that stay in the cache.
_CHANNELS, _FRAME, _LAYERS = (64, 128, 256), 64, 4


def measured(device: str, threads: int) -> dict[str, Ceiling]:
    """Measure the ceilings of a device in another process; what cannot be measured is left out."""
    command = [sys.executable, "-m", "sr_bench.ceilings", device, str(threads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return {}
    return schema.decode(dict[str, Ceiling], json.loads(done.stdout), "ceilings")


def joined(*measurements: dict[str, Ceiling]) -> dict[str, Ceiling]:
    """Return the higher one of each ceiling: other work on the machine can only lower it."""
    best: dict[str, Ceiling] = {}
    for name, each in (pair for found in measurements for pair in found.items()):
        if name not in best or each.best > best[name].best:
            best[name] = each
    return best


def main(device: str, threads: int) -> None:
    """Measure and print."""
    kernels = _on_gpu() if device != "cpu" else _on_cpu(threads)
    best = joined(*({what: Ceiling(how, _rates(work, call))} for what, how, work, call in kernels))
    sys.stdout.write(json.dumps({name: dataclasses.asdict(each) for name, each in best.items()}))


Kernel = tuple[str, str, float, "Callable[[], object]"]
"""What it measures, its name, what one call does in billions, and the call."""


def _rates(work: float, kernel: Callable[[], object]) -> tuple[float, ...]:
    """Return the billions per second of each try, after one that does not count."""
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
    """Return a copy of what no cache holds; its bytes are counted twice, read and written."""
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
    types = {"fp32": torch.float32, "bf16": torch.bfloat16}
    if on_gpu:
        types["fp16"] = torch.float16
    for name, dtype in types.items():
        a, b = (torch.rand(side, side).to(device, dtype) for _ in range(2))
        yield (
            name,
            f"PyTorch matrix product {side}",
            2 * side**3 / 1e9,
            _synchronised(on_gpu, functools.partial(torch.matmul, a, b)),
        )
    a, b = (torch.randint(-9, 9, (side, side), dtype=torch.int8, device=device) for _ in range(2))
    with contextlib.suppress(RuntimeError, AttributeError):  # not every device has the kernel
        torch._int_mm(a, b)
        yield (
            "int8",
            f"PyTorch matrix product {side}",
            2 * side**3 / 1e9,
            _synchronised(on_gpu, functools.partial(torch._int_mm, a, b)),
        )


def _on_gpu() -> Iterator[Kernel]:
    import torch

    host = torch.zeros(_COPY_BYTES, dtype=torch.uint8, pin_memory=True)
    source, target = (torch.zeros_like(host, device="cuda") for _ in range(2))
    moved = 2 * _COPY_BYTES / 1e9
    yield "copy", "PyTorch copy", moved, _synchronised(True, lambda: target.copy_(source))
    upload = _synchronised(True, lambda: target.copy_(host, non_blocking=True))
    yield "pcie", "upload from page-locked memory", moved / 2, upload
    yield from _torch_products("cuda", 1)


def _synchronised(on_gpu: bool, call: Callable[[], object]) -> Callable[[], object]:
    """Return a call that ends when the GPU has ended."""
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
                path.write_bytes(_convolutions(channels, quantised=precision == "int8"))
                request = core.compile_model(str(path), "CPU", options).create_infer_request()
            work = 2 * 9 * channels**2 * _FRAME**2 * _LAYERS / 1e9
            how = f"OpenVINO, {_LAYERS} convolutions 3x3 of {channels} channels, {_FRAME}x{_FRAME}"
            yield precision, how, work, request.infer


def _convolutions(channels: int, *, quantised: bool) -> bytes:
    """Return an ONNX graph of convolutions, one after the other."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    shape = (1, channels, _FRAME, _FRAME)
    weights, nodes = [], []

    def held(name: str, value: Any) -> str:
        weights.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def scaled(of: str, name: str) -> str:
        """Round a value to INT8 and back; weights are there as INT8 already."""
        step = held(f"{name}_step", np.float32(0.02))
        zero = held(f"{name}_zero", np.int8(0))
        if name.startswith("x"):
            nodes.append(helper.make_node("QuantizeLinear", [of, step, zero], [f"{name}_q"]))
            of = f"{name}_q"
        nodes.append(helper.make_node("DequantizeLinear", [of, step, zero], [f"{name}_d"]))
        return f"{name}_d"

    current = "input"
    for layer in range(_LAYERS):
        kernel = random.integers(-9, 9, (channels, channels, 3, 3))
        if quantised:
            weight = scaled(held(f"w{layer}", kernel.astype(np.int8)), f"w{layer}")
            current = scaled(current, f"x{layer}")
        else:
            weight = held(f"w{layer}", kernel.astype(np.float32) / 1000)
        result = f"y{layer}"
        nodes.append(
            helper.make_node("Conv", [current, weight], [f"{result}_c"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"{result}_c"], [result]))
        current = result
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
