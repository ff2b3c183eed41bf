"""The backends by name. A backend's package is imported when the backend is created.

The runtime uses `available`, `candidates`, `create` and `name_and_version` of this module, and the
protocols of `base`.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.errors import BackendError, BackendMissingError, InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sr_deploy.backends.base import Backend


@dataclass(frozen=True)
class BackendEntry:
    """A backend's module and package.

    Attributes:
        module: Module with a function `create()`.
        packages: Package that the module imports, under each of its names.
        install: Command that installs the package.
    """

    module: str
    packages: tuple[str, ...]
    install: str

    @property
    def package(self) -> str:
        """The name under which the package is installed, else its usual name."""
        return next(filter(_installed, self.packages), self.packages[0])


REGISTRY = {  # best first
    "tensorrt": BackendEntry(
        "sr_deploy.backends.tensorrt.backend", ("tensorrt",), "pip install sr-deploy[gpu]"
    ),
    "tensorrt_rtx": BackendEntry(
        "sr_deploy.backends.tensorrt.rtx",
        ("tensorrt_rtx_bindings", "tensorrt_rtx"),  # from PyPI, and from NVIDIA's archive
        "pip install sr-deploy[rtx]",
    ),
    "openvino": BackendEntry(
        "sr_deploy.backends.openvino.backend", ("openvino",), "pip install sr-deploy[cpu]"
    ),
    "onnxruntime": BackendEntry(
        "sr_deploy.backends.onnxruntime.backend", ("onnxruntime",), "pip install sr-deploy[cpu]"
    ),
}


def available() -> tuple[str, ...]:
    """Return the backends whose packages are installed, best first, without importing them."""
    return tuple(name for name, entry in REGISTRY.items() if _installed(entry.package))


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # an imported module of that name has no spec
        return False


def name_and_version(name: str) -> str:
    """Return a backend's name with the version of its package: "openvino 2025.4.0"."""
    try:
        version = importlib.metadata.version(REGISTRY[name].package)
    except (KeyError, importlib.metadata.PackageNotFoundError):
        version = "(unknown version)"
    return f"{name} {version}"


def candidates(name: str, device: str | None = None) -> Iterator[Backend]:
    """Yield a backend by name; for "auto", all that work and have the device, best first.

    Each is created when the caller asks for it.

    Raises:
        InvalidInputError: the name is unknown.
        BackendMissingError: the package is not installed; for "auto": no package is.
        BackendError: the package is broken; for "auto": no backend works or has the device.
    """
    if name != "auto":
        yield create(name)
        return
    failure: Exception = BackendMissingError(
        f"no backend is installed ({', '.join(REGISTRY)}): pip install sr-deploy[cpu]"
    )
    works = False
    for each in available():
        try:
            backend = create(each)
            backend.precisions(device)
        except (BackendError, BackendMissingError) as error:  # some need a second package
            failure = error
        else:
            works = True
            yield backend
    if not works:
        raise failure


def create(name: str) -> Backend:
    """Return a backend by name.

    Raises:
        InvalidInputError: the name is unknown.
        BackendMissingError: the package is not installed.
        BackendError: the package is broken.
    """
    entry = REGISTRY.get(name)
    if entry is None:
        known = ", ".join(REGISTRY)
        raise InvalidInputError(f"unknown backend {name!r}; choose auto, {known}")
    if not _installed(entry.package):
        raise BackendMissingError(
            f"the backend {name} needs the package {entry.package}: {entry.install}"
        )
    try:
        backend: Backend = importlib.import_module(entry.module).create()
    except Exception as error:
        raise BackendError(
            f"the package {entry.package} is installed but does not work "
            f"({type(error).__name__}: {error}); see sr-doctor"
        ) from error
    return backend
