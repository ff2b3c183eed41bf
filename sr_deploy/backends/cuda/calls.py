"""Calls into cuda-python, checked: what fails says which call it was, on what, and what helps.

Only `sr_deploy.backends.cuda.driver` uses this.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
from typing import TYPE_CHECKING, Any

from sr_deploy.errors import BackendError, BackendMissingError, OutOfMemoryError

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

# What helps against the errors that are met, by their name in the runtime and in the driver.
_CURES = {
    "cudaErrorNoDevice": "see nvidia-smi, and CUDA_VISIBLE_DEVICES={visible}",
    "cudaErrorInvalidDevice": "see nvidia-smi, and CUDA_VISIBLE_DEVICES={visible}",
    "cudaErrorSystemDriverMismatch": "reboot: the driver was updated while it was in use",
    "cudaErrorSystemNotReady": "start nvidia-fabricmanager",
    "cudaErrorDevicesUnavailable": "another process has the GPU for itself",
    "cudaErrorIllegalAddress": "CUDA works no more in this process: start it again",
    "cudaErrorLaunchFailure": "CUDA works no more in this process: start it again",
    "cudaErrorMisalignedAddress": "CUDA works no more in this process: start it again",
    "cudaErrorECCUncorrectable": "the GPU's memory is faulty: see nvidia-smi -q -d ECC",
    "CUDA_ERROR_NO_BINARY_FOR_GPU": "build sr-deploy with a CUDA toolkit that knows this GPU",
    "CUDA_ERROR_UNSUPPORTED_PTX_VERSION": "update the driver",
}


@functools.cache
def runtime() -> Any:
    """Return the runtime's functions and constants."""
    return _imported("cuda.bindings.runtime")


@functools.cache
def driver() -> Any:
    """Return the driver's functions."""
    return _imported("cuda.bindings.driver")


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackendMissingError(
            f"running on an NVIDIA GPU needs cuda-python 12.6 or newer ({error}): "
            "pip install sr-deploy[gpu]"
        ) from error


def constant(name: str) -> int:
    """Return a constant of the runtime."""
    return int(getattr(runtime(), name))


def call(name: str, *arguments: Any, about: str = "") -> Any:
    """Return what a function of the runtime (cuda...) or the driver (cu...) gives.

    Raises:
        OutOfMemoryError: it lacked memory.
        BackendError: it failed otherwise; or something before it, of which CUDA tells only now.
    """
    module = runtime() if name.startswith("cuda") else driver()
    status, *values = getattr(module, name)(*arguments)
    if int(status):
        raise _failure(name, status, about)
    return values[0] if len(values) == 1 else values


def _failure(name: str, status: Any, about: str) -> BackendError | OutOfMemoryError:
    """Return the error for a call, with what helps."""
    what = f"{name} ({about})" if about else name
    if status.name in ("cudaErrorMemoryAllocation", "CUDA_ERROR_OUT_OF_MEMORY"):
        return OutOfMemoryError(f"CUDA: {what}: out of memory")
    if status.name == "cudaErrorInsufficientDriver":
        return BackendError(_driver_problem())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "(not set)")
    cure = _CURES.get(status.name, "see sr-doctor").format(visible=visible)
    return BackendError(f"CUDA: {what}: {_said(status)}; {cure}")


def _said(status: Any) -> str:
    """Return an error's name, and what the runtime says of it."""
    if not status.name.startswith("cuda"):
        return str(status.name)
    _, text = runtime().cudaGetErrorString(status)
    return f"{status.name}, {text.decode(errors='replace')}"


def _driver_problem() -> str:
    """Return what is wrong with the driver if it does not suffice."""
    _, number = runtime().cudaDriverGetVersion()
    if not number:
        return "there is no NVIDIA driver on this machine; a container needs `--gpus all`"
    _, wanted = runtime().cudaRuntimeGetVersion()
    here, there = (".".join(map(str, version(each))) for each in (number, wanted))
    return (
        f"the NVIDIA driver takes CUDA up to {here}, cuda-python is for {there}: update the "
        f'driver, or pip install "cuda-python=={version(number)[0]}.*"'
    )


def version(number: int) -> tuple[int, int]:
    """Return the major and minor of 12080."""
    return number // 1000, number % 1000 // 10


def give_back(function: Callable[[int], Any], handle: int) -> None:
    """Give something back; that never fails: what broke is told by whatever needs it."""
    status, *_ = function(handle)
    if int(status):
        _log.debug("CUDA: %s was not given back: %s", handle, status.name)
