"""Clocks: how long a call took, on the wall or on a GPU's stream."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def wall(call: Callable[[], object]) -> float:
    """Return the milliseconds of a call that returns when its work is done."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def cuda_events() -> Callable[[Callable[[], object]], float]:
    """Return a clock of what a call puts on PyTorch's current CUDA stream.

    Events are stamped by the GPU itself, so that the time to launch and to notice the end does not
    count, but waiting for the host, where it is too slow to feed the GPU, does.
    """
    import torch

    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def timed(call: Callable[[], object]) -> float:
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    return timed
