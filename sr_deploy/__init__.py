"""sr-deploy runs verified super-resolution bundles on CPUs and GPUs, tiled where memory is small.

This module is the public API. `import sr_deploy` is cheap: it loads neither numpy nor a backend;
each name below is imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from sr_deploy.errors import (
    BackendError,
    BackendMissingError,
    BundleError,
    CheckpointError,
    DriverError,
    ExportError,
    ImageError,
    InvalidInputError,
    NotFoundError,
    OutOfMemoryError,
    SrDeployError,
    TilingNeededError,
    VideoError,
)

if TYPE_CHECKING:
    from sr_deploy.backends.cuda.device_array import DeviceArray
    from sr_deploy.bundle.tuning import Tuning
    from sr_deploy.engine import Engine, Spec
    from sr_deploy.runtime.yuv import YuvFrame

__all__ = [
    "BackendError",
    "BackendMissingError",
    "BundleError",
    "CheckpointError",
    "DeviceArray",
    "DriverError",
    "Engine",
    "ExportError",
    "ImageError",
    "InvalidInputError",
    "NotFoundError",
    "OutOfMemoryError",
    "Spec",
    "SrDeployError",
    "TilingNeededError",
    "Tuning",
    "VideoError",
    "YuvFrame",
    "__version__",
]

__version__ = "0.2.0"

_LAZY = {
    "DeviceArray": "sr_deploy.backends.cuda.device_array",
    "Engine": "sr_deploy.engine",
    "Spec": "sr_deploy.engine",
    "Tuning": "sr_deploy.bundle.tuning",
    "YuvFrame": "sr_deploy.runtime.yuv",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
