"""TensorRT for RTX: portable plans, which are built on any machine and run on every RTX GPU.

The library compiles a plan's kernels for the GPU when they are first needed. So a plan is validated
at its first use on a GPU, and the kernels are kept beside it.
"""

from __future__ import annotations

from sr_deploy.backends.tensorrt.backend import TensorRtBackend


def create() -> TensorRtBackend:
    """Return the backend."""
    return TensorRtBackend("tensorrt_rtx")
