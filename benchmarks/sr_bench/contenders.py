"""What can be measured of a network: which ways there are to run it, and how one is opened."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, get_args

from sr_bench import interpreters
from sr_bench.jobs import STRONG
from sr_bench.records import Configuration
from sr_deploy import backends
from sr_deploy.bundle.manifest import Precision
from sr_deploy.errors import BackendError, InvalidInputError
from sr_deploy.runtime import selection

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sr_bench.jobs import Runner, WorkerSpec
    from sr_deploy.bundle.bundle import Bundle


def torch(device: str) -> tuple[Configuration, ...]:
    """Return PyTorch's rows: as people run it, which is the baseline, and what is hard to beat."""
    half = "bf16" if device == "cpu" else "fp16"
    strong = (Configuration("torch", form, each) for each in ("fp32", half) for form in STRONG)
    return (Configuration("torch", "contiguous", "fp32"), *strong)


def engines(
    bundle: Bundle,
    names: Sequence[str] | None,
    precisions: Sequence[str] | None,
    device: str | None = None,
    pythons: Mapping[str, str] | None = None,
) -> list[Configuration]:
    """Return what sr-deploy can run of a bundle on this machine, of what is asked for.

    Args:
        bundle: the bundle.
        names: of backends; None: all that are installed.
        precisions: None: all.
        device: as backends name it; None: their default.
        pythons: the interpreters of backends that live in another environment, by name.

    Raises:
        InvalidInputError: nothing of it can be run.
        BackendMissingError: a named backend, or for None every one, is not installed.
    """
    pythons = pythons or {}
    frames = selection.pixel_format(bundle.manifest.model.channels, itemsize=1)
    found: list[Configuration] = []
    refusal: InvalidInputError | None = None
    for name in names or _installed(device, pythons):
        computed = _precisions(name, device, pythons.get(name))
        for precision in precisions or get_args(Precision):
            try:
                choice = selection.choices(bundle, frames, precision, computed)[0]
            except InvalidInputError as error:
                refusal = error
            else:
                found.append(Configuration("sr-deploy", name, choice.precision))
    if refusal and not found:
        raise refusal
    return found


def _installed(device: str | None, pythons: Mapping[str, str]) -> list[str]:
    elsewhere = [name for name in backends.REGISTRY if name in pythons]
    if elsewhere and not backends.available():
        return elsewhere
    here = [each.name for each in backends.candidates("auto", device)]
    return [name for name in backends.REGISTRY if name in (*here, *elsewhere)]


def _precisions(name: str, device: str | None, python: str | None) -> tuple[Precision, ...]:
    """Return what a backend computes in, asking its own interpreter where it has one."""
    if python is None:
        return backends.create(name).precisions(device)
    code = (
        "import json, sys; from sr_deploy import backends; "
        "print(json.dumps(backends.create(sys.argv[1]).precisions(json.loads(sys.argv[2]))))"
    )
    with interpreters.environment(python) as variables:
        command = [python, "-c", code, name, json.dumps(device)]
        done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if done.returncode:
        said = done.stderr.strip().splitlines()[-1:] or ["no message"]
        raise BackendError(f"{python}: cannot use the backend {name}: {said[0]}")
    return tuple(json.loads(done.stdout))


def opened(job: WorkerSpec) -> Runner:
    """Open a contender."""
    # Each with its own imports: the other's packages may be missing in this interpreter.
    if job.contender.runtime == "torch":
        from sr_bench.torch_runner import TorchRunner

        return TorchRunner(job)
    from sr_bench.engine_runner import EngineRunner

    return EngineRunner(job)


def checkpoint_of(bundle: Bundle, given: Sequence[Path]) -> Path | None:
    """Return the file that a bundle was made from: one of those given, or the one beside it.

    Raises:
        InvalidInputError: checkpoints are given, but this bundle's is not among them.
    """
    from sr_deploy.files import sha256_of

    source = bundle.manifest.source
    beside = bundle.folder.resolve().parent / source.name
    for path in given or ([beside] if beside.is_file() else []):
        if sha256_of(path) == source.sha256:
            return path
    if given:
        shown = ", ".join(map(str, given))
        raise InvalidInputError(
            f"{shown}: not the file that {bundle.folder} was made from, which was called "
            f"{source.name} (SHA-256 {source.sha256[:12]}); rows of another network compare nothing"
        )
    return None
