"""TensorRT, or TensorRT for RTX, in a child process: `python -m sr_export.trt.worker`.

A build can take minutes in which nothing can interrupt TensorRT, and a broken kernel ends the
process. In a child, Ctrl-C works and a crash is an error. `TensorRtProcess` is the parent's side;
the functions below it run in the child.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy import backends
from sr_deploy._worker import Limits, Worker, WorkerCrashError, WorkerLimitError, serve
from sr_deploy.backends.cuda import driver
from sr_deploy.backends.tensorrt import contexts
from sr_deploy.bundle import plan_store, schema
from sr_deploy.cli import console
from sr_deploy.errors import BackendError, BackendMissingError
from sr_export.trt import builder
from sr_export.trt.build_request import PORTABLE_MEMORY, BuildRequest

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from sr_deploy.bundle.plan_store import LibraryName

    Report = Callable[[str], None]

_SPINNER = "|/-\\"
# A net below any build that is worth waiting for.
_MOST_SECONDS = 12 * 3600


class TensorRtProcess:
    """The child that TensorRT runs in; it starts with the first call. A context manager.

    Args:
        report: Called several times a second with the stage and the time that it has taken.
        module: The child's module; tests have one of their own.
    """

    def __init__(self, report: Report, module: str = "sr_export.trt.worker") -> None:
        self._report = report
        self._worker = Worker(module, BackendError, limits=Limits(seconds=_MOST_SECONDS))

    def __enter__(self) -> TensorRtProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._worker.close()

    def call(self, function: str, stage: str, **arguments: object) -> Any:
        """Call one of the functions below.

        Args:
            function: Its name.
            stage: What it does, for the progress line.
            arguments: Its arguments.

        Raises:
            SrDeployError: What the function raises.
            BackendError: TensorRT crashed or exceeded a limit.
        """
        start, turn, detail = time.monotonic(), 0, ""

        def progress(text: str) -> None:
            nonlocal detail
            detail = text
            waiting()

        def waiting() -> None:
            nonlocal turn
            elapsed = console.clock(time.monotonic() - start)
            self._report(f"{_SPINNER[turn % 4]} {stage}, {elapsed}  {detail}")
            turn += 1

        try:
            return self._worker.call(function, progress=progress, waiting=waiting, **arguments)
        except WorkerLimitError as limit:
            raise BackendError(
                f"TensorRT was stopped while {stage}: it took more than {limit}, the limit on this "
                "machine"
            ) from RuntimeError(self._worker.log())
        except WorkerCrashError as crash:
            raise BackendError(
                f"TensorRT crashed ({crash.cause}) while {stage}: {crash.last_line}"
            ) from RuntimeError(crash.log)


def describe(progress: Report, library: LibraryName, device: int | None) -> dict[str, Any]:
    """Return the library's version and abilities, and the GPU, if the build needs one."""
    # The GPU first: without a driver, TensorRT crashes.
    gpu = None if device is None else dataclasses.asdict(driver.describe(device))
    free = PORTABLE_MEMORY if device is None else driver.memory(device)[0]
    try:
        trt = contexts.library(library)
    except ImportError as error:
        entry, title = backends.REGISTRY[library], plan_store.TITLES[library]
        jetson = "; on a Jetson, use the Python for which JetPack has it"
        raise BackendMissingError(
            f"{title} cannot be imported ({error}): {entry.install}"
            f"{jetson if library == 'tensorrt' else ''}"
        ) from error
    return {
        "library": library,
        "tensorrt": trt.__version__,
        "abilities": builder.abilities(trt),
        "device": gpu,
        "free": free,
    }


def build(
    progress: Report, library: LibraryName, request: dict[str, Any], plan: str
) -> dict[str, Any]:
    """Build a plan into a file; return the memory that the library reported."""
    decoded = schema.decode(BuildRequest, request, "build request")
    if decoded.device is not None:
        driver.use(decoded.device)
    built = builder.build(contexts.library(library), decoded, progress)
    Path(plan).write_bytes(built.content)
    return {"device_memory": built.memory}


def run(
    progress: Report,
    library: LibraryName,
    device: int,
    plan: str,
    inputs: str,
    outputs: str,
    shapes: list[list[int]],
    version_compatible: bool,
    cache: str | None = None,
) -> dict[str, Any]:
    """Run a plan on batches from a file; write its results, and its kernels to `cache`."""
    driver.use(device)
    loaded = contexts.LoadedPlan(
        contexts.library(library),
        Path(plan).read_bytes(),
        "the plan",
        version_compatible=version_compatible,
        cache=None if cache is None else Path(cache),
    )
    with np.load(inputs) as stored:
        batches = [stored[name] for name in stored.files]
    results = [
        _infer(loaded, batch, tuple(shape)) for batch, shape in zip(batches, shapes, strict=True)
    ]
    np.savez(outputs, *results)
    loaded.save_cache()
    return {"device_memory": loaded.memory}


def _infer(
    plan: contexts.LoadedPlan, batch: NDArray[np.uint8], shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Return the result of a batch (N, h, w, bytes), in a shape of the same layout."""
    sent, result = driver.page_locked(batch.shape), driver.page_locked(shape)
    np.copyto(sent, batch)
    network, stream = contexts.Contexts(lambda _: plan), driver.CudaStream()
    source, target = driver.Memory(sent.nbytes), driver.Memory(result.nbytes)
    addresses = source.address, target.address
    scratch = driver.Memory(network.bind(sent.shape, result.shape, *addresses, None))
    network.lend(scratch)
    driver.copy_bytes(source.address, sent.ctypes.data, sent.nbytes, stream)
    network.enqueue(stream)
    driver.copy_bytes(result.ctypes.data, target.address, result.nbytes, stream)
    stream.synchronize()
    network.close()
    for each in (scratch, source, target, stream):
        each.close()
    return result


if __name__ == "__main__":
    serve({"describe": describe, "build": build, "run": run})
