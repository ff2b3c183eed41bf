"""The backends by name. A backend's package is imported when the backend is chosen."""

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
    """Where a backend lives, and what it needs.

    Attributes:
        module: Of this package; it has a function `create()`.
        package: That it imports.
        install: What installs that.
    """

    module: str
    package: str
    install: str


REGISTRY = {  # best first
    "tensorrt": BackendEntry(
        "sr_deploy.backends.tensorrt.backend", "tensorrt", "pip install sr-deploy[gpu]"
    ),
    "openvino": BackendEntry(
        "sr_deploy.backends.openvino.backend", "openvino", "pip install sr-deploy[cpu]"
    ),
    "onnxruntime": BackendEntry(
        "sr_deploy.backends.onnxruntime.backend", "onnxruntime", "pip install sr-deploy[cpu]"
    ),
}


def available() -> tuple[str, ...]:
    """Return the backends whose packages are installed, best first; nothing is imported."""
    return tuple(name for name, entry in REGISTRY.items() if _installed(entry.package))


def _installed(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):  # something odd of that name is imported already
        return False


def name_and_version(name: str) -> str:
    """Return a backend's name with the version of its package: "openvino 2025.4.0"."""
    try:
        version = importlib.metadata.version(REGISTRY[name].package)
    except (KeyError, importlib.metadata.PackageNotFoundError):
        version = "of an unknown version"
    return f"{name} {version}"


def candidates(name: str, device: str | None = None) -> Iterator[Backend]:
    """Yield the backend of a name, or for "auto" those that work here and have the device.

    The best comes first; each is created when it is its turn.

    Raises:
        InvalidInputError: there is no backend of that name.
        BackendMissingError: its package, or for "auto" every package, is not installed.
        BackendError: its package is installed but broken; for "auto": the last one is, or lacks
            the device, and so does every other.
    """
    if name != "auto":
        yield create(name)
        return
    failure: Exception = BackendMissingError(
        f"no backend is installed (looked for {', '.join(REGISTRY)}): pip install sr-deploy[cpu]"
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
    """Return a backend by its name.

    Raises:
        InvalidInputError: there is no backend of that name.
        BackendMissingError: its package is not installed.
        BackendError: its package is installed but broken.
    """
    entry = REGISTRY.get(name)
    if entry is None:
        known = ", ".join(REGISTRY)
        raise InvalidInputError(f"there is no backend {name!r}; choose auto or one of {known}")
    if not _installed(entry.package):
        raise BackendMissingError(
            f"the backend {name} needs the package {entry.package}: {entry.install}"
        )
    try:
        backend: Backend = importlib.import_module(entry.module).create()
    except Exception as error:
        raise BackendError(
            f"the package {entry.package} is installed but does not work "
            f"({type(error).__name__}: {error}); sr-doctor tells more"
        ) from error
    return backend
