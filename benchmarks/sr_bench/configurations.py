"""The configurations that can run a model on this machine, and the needs of their workers."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from sr_bench.records import Configuration
from sr_deploy import _worker, backends
from sr_deploy.bundle.manifest import Precision
from sr_deploy.errors import BackendError, InvalidInputError
from sr_deploy.files import sha256_of
from sr_deploy.runtime import selection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from sr_bench.quality import ImagePair
    from sr_bench.records import Mode, Size, Workload
    from sr_deploy.bundle.bundle import Bundle

DEFAULT = Configuration("sr-deploy", "auto", "auto")
"""`Engine(bundle)` without further arguments."""
STRONG = ("channels_last", "compiled")
"""The fast forms of PyTorch."""
# With these, glibc keeps freed memory for the next layer. Stock PyTorch returns it and maps it
# again, page by page, which costs a CPU more than half of the time of some networks.
KEEP_PAGES = (
    "glibc.malloc.mmap_threshold=4294967296:"
    "glibc.malloc.trim_threshold=8589934592:"
    "glibc.malloc.top_pad=268435456"
)
_PACKAGES = ("sr_bench", "sr_deploy", "sr_export")


@dataclass(frozen=True)
class WorkerSpec:
    """A configuration and the arguments of its worker process."""

    configuration: Configuration
    bundle: str
    checkpoint: str | None
    """Checkpoint of the bundle; torch needs it."""
    threads: int
    device: str = "cpu"
    memory: int | None = None
    """Memory budget of the engine in bytes: what it would have alone on the machine."""

    def environment(self) -> dict[str, str]:
        """Return the additional environment variables of the process."""
        strong = self.configuration.backend in STRONG
        return {"GLIBC_TUNABLES": KEEP_PAGES} if strong else {}


@dataclass(frozen=True)
class SizePlan:
    """The measurements of one model at one size.

    Attributes:
        specs: The baseline first.
        size: Width and height of the frames.
        batch: Frames of a call.
        modes: Modes besides "upscale".
        pythons: Interpreters by the name of a backend or "torch".
        pairs: Images with ground truth.
        scale: Scale of the model.
        work: Workload of a call.
        needs: Memory bytes that a configuration may take; see `measure.needed_memory`.
    """

    specs: Sequence[WorkerSpec]
    size: Size
    batch: int = 1
    modes: Sequence[Mode] = ()
    pythons: Mapping[str, str] = field(default_factory=dict)
    pairs: Sequence[ImagePair] = ()
    scale: int = 1
    work: Workload | None = None
    needs: int = 0


def torch_configurations(device: str) -> tuple[Configuration, ...]:
    """Return the configurations of PyTorch: the baseline as most scripts run it, then fast ones."""
    half = "bf16" if device == "cpu" else "fp16"
    strong = (Configuration("torch", form, each) for each in ("fp32", half) for form in STRONG)
    return (Configuration("torch", "contiguous", "fp32"), *strong)


def engine_configurations(
    bundle: Bundle,
    names: Sequence[str] | None,
    precisions: Sequence[str] | None,
    device: str | None = None,
    pythons: Mapping[str, str] | None = None,
) -> list[Configuration]:
    """Return the configurations of sr-deploy that run a bundle on this machine.

    Args:
        bundle: The bundle.
        names: Backends; None: all that are installed.
        precisions: Precisions; None: all.
        device: The device as backends name it; None: their default.
        pythons: Interpreters of backends that are installed in another environment, by backend.

    Raises:
        InvalidInputError: No configuration can run.
        BackendMissingError: A named backend, or every backend, is not installed.
    """
    pythons = pythons or {}
    frames = selection.pixel_format(bundle.manifest.model.channels, itemsize=1)
    found: list[Configuration] = []
    refusal: InvalidInputError | None = None
    for name in names or _installed(device, pythons):
        supported = _precisions(name, device, pythons.get(name))
        for precision in precisions or get_args(Precision):
            try:
                choice = selection.choices(bundle, frames, precision, supported)[0]
            except InvalidInputError as error:
                refusal = error
            else:
                found.append(Configuration("sr-deploy", name, choice.precision))
    if refusal and not found:
        raise refusal
    return found


def checkpoint_of(bundle: Bundle, candidates: Sequence[Path]) -> Path | None:
    """Return the checkpoint of a bundle: one of the candidates, or the file beside the bundle.

    Raises:
        InvalidInputError: There are candidates, but none is the checkpoint of this bundle.
    """
    source = bundle.manifest.source
    beside = bundle.folder.resolve().parent / source.name
    for path in candidates or ([beside] if beside.is_file() else []):
        if sha256_of(path) == source.sha256:
            return path
    if candidates:
        shown = ", ".join(map(str, candidates))
        raise InvalidInputError(
            f"{shown}: not the checkpoint of {bundle.folder}, which is {source.name} with SHA-256 "
            f"{source.sha256[:12]}; name that file, so that all rows run the same network"
        )
    return None


@contextlib.contextmanager
def interpreter_environment(python: str | None) -> Iterator[dict[str, str]]:
    """Provide the variables with which an interpreter imports this code; None: this interpreter.

    Only our own packages are shared, by links in a temporary folder: all other installed packages
    were built for this interpreter.
    """
    if python is None:
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory(prefix="sr-bench-") as folder:
        for name in _PACKAGES:
            spec = importlib.util.find_spec(name)
            assert spec is not None
            assert spec.origin is not None
            (Path(folder) / name).symlink_to(Path(spec.origin).parent, target_is_directory=True)
        path = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
        yield os.environ | {"PYTHONPATH": path}


def _installed(device: str | None, pythons: Mapping[str, str]) -> list[str]:
    elsewhere = [name for name in backends.REGISTRY if name in pythons]
    if elsewhere and not backends.available():
        return elsewhere
    here = [each.name for each in backends.candidates("auto", device)]
    return [name for name in backends.REGISTRY if name in (*here, *elsewhere)]


def _precisions(name: str, device: str | None, python: str | None) -> tuple[Precision, ...]:
    """Return the precisions that a backend supports, from its own interpreter if it has one."""
    if python is None:
        return backends.create(name).precisions(device)
    code = (
        "import json, sys; from sr_deploy import backends; "
        "print(json.dumps(backends.create(sys.argv[1]).precisions(json.loads(sys.argv[2]))))"
    )
    with interpreter_environment(python) as variables:
        command = [python, "-c", code, name, json.dumps(device)]
        done = _worker.run(command, variables)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BackendError(f"{python}: the backend {name} failed: {last[0]}")
    return tuple(json.loads(done.stdout))
