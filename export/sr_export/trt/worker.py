"""The process in which TensorRT runs: `python -m sr_export.trt.worker`, started by `process`.

TensorRT may take minutes in which nothing can interrupt it, and where a kernel is broken it takes
the process with it. So it has one of its own. Calls come on stdin and events go to stdout, each a
JSON object a line; large things go through files.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy.backends.cuda import driver
from sr_deploy.bundle import schema
from sr_deploy.errors import BackendMissingError, SrDeployError
from sr_export.trt.build_request import BuildRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sr_deploy.backends.tensorrt.contexts import LoadedPlan

    Report = Callable[[str], None]


def main() -> int:
    """Answer calls until there are no more."""
    events = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # whatever libraries print

    def send(**event: object) -> None:
        events.write(json.dumps(event) + "\n")
        events.flush()

    for line in sys.stdin:
        call = json.loads(line)
        try:
            result = _CALLS[call.pop("call")](call, lambda text: send(stage=text))
            send(result=result)
        except (SrDeployError, OSError, MemoryError) as error:
            traceback.print_exc()
            send(error=type(error).__name__, text=str(error))
    return 0


def describe(call: dict[str, Any], _: Report) -> dict[str, Any]:
    """Return what there is: TensorRT, its flags, and the GPU."""
    # First, because without a driver TensorRT crashes.
    device = driver.describe(call["device"])
    free, _total = driver.memory(call["device"])
    try:
        from sr_export.trt import builder
    except ImportError as error:
        raise BackendMissingError(
            f"TensorRT cannot be imported ({error}): pip install sr-deploy[gpu]; on a Jetson, "
            "use the Python for which JetPack has it"
        ) from error
    return {
        "tensorrt": builder.version(),
        "abilities": builder.abilities(),
        "device": dataclasses.asdict(device),
        "free": free,
    }


def build(call: dict[str, Any], report: Report) -> dict[str, Any]:
    """Build a plan into a file."""
    from sr_export.trt import builder

    order = schema.decode(BuildRequest, call["order"], "order")
    driver.use(order.device)
    Path(call["plan"]).write_bytes(builder.build(order, report))
    return {}


def run(call: dict[str, Any], _: Report) -> dict[str, Any]:
    """Run a plan on batches from a file, and write what comes out to another."""
    from sr_deploy.backends.tensorrt.contexts import LoadedPlan

    driver.use(call["device"])
    content = Path(call["plan"]).read_bytes()
    program = LoadedPlan(content, "the plan", version_compatible=call["version_compatible"])
    with np.load(call["batches"]) as batches:
        asked = [batches[name] for name in batches.files]
    answers = [
        _answer(program, batch, tuple(shape))
        for batch, shape in zip(asked, call["shapes"], strict=True)
    ]
    np.savez(call["answers"], *answers)
    return {"device_memory": program.memory}


def _answer(
    program: LoadedPlan, batch: NDArray[np.uint8], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Return what becomes of a batch, (N, h, w, bytes), in a shape of the same kind."""
    from sr_deploy.backends.tensorrt.contexts import Contexts

    sent = driver.page_locked(batch.shape)
    np.copyto(sent, batch)
    answer = driver.page_locked(shape)
    contexts, stream = Contexts(lambda _: program), driver.CudaStream()
    source, target = driver.Memory(sent.nbytes), driver.Memory(answer.nbytes)
    scratch = driver.Memory(contexts.bind(sent.shape, source.address, target.address, None))
    contexts.lend(scratch)
    _copy(source.address, sent.ctypes.data, sent.nbytes, stream)
    contexts.enqueue(stream)
    _copy(answer.ctypes.data, target.address, answer.nbytes, stream)
    stream.synchronize()
    contexts.close()
    for each in (scratch, source, target, stream):
        each.close()
    return answer


def _copy(to: int, source: int, size: int, stream: driver.CudaStream) -> None:
    driver.copy(to, source, (1, size), (size, size), stream)


_CALLS: dict[str, Callable[[dict[str, Any], Report], dict[str, Any]]] = {
    "describe": describe,
    "build": build,
    "run": run,
}


if __name__ == "__main__":
    sys.exit(main())
