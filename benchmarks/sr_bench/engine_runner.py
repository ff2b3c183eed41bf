"""sr-deploy's engine, and the backend below it called bare."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_bench import bare, clocks, meters
from sr_bench.jobs import DEFAULT
from sr_bench.records import Configuration
from sr_deploy.bundle.bundle import Bundle
from sr_deploy.engine import Engine
from sr_deploy.runtime.selection import pixel_format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sr_bench.jobs import Frames, WorkerSpec


class EngineRunner:
    """An engine on a bundle; see `jobs.Runner`."""

    def __init__(self, job: WorkerSpec) -> None:
        self._job = job
        by_default = job.contender == DEFAULT
        self._engine = Engine(
            job.bundle,
            backend=job.contender.backend,
            precision=job.contender.precision,
            device=_device(job, by_default=by_default),
            threads=None if by_default else job.threads,
            memory=job.memory,
        )
        spec = self._engine.spec
        ran = Configuration("sr-deploy", spec.backend, spec.precision)
        self.ran = ran if by_default else None
        self._variant = (spec.backend, spec.precision)

    def upscale(self, frames: Frames) -> NDArray[Any]:
        """Upscale a batch, frame by frame, as the engine takes it."""
        if len(frames) == 1:
            return self._engine.upscale(frames[0])[None]
        return np.stack([self._engine.upscale(frame) for frame in frames])

    def network(self, batches: Frames) -> Callable[[int], object] | None:
        """Return a call of the backend itself, without any of the engine."""
        return bare.call(Bundle.open(self._job.bundle), *self._variant, self._job, batches)

    def through(self, frames: Iterator[Frames]) -> Iterator[NDArray[Any]] | None:
        """Upscale frames that follow one another, overlapped."""
        stream = getattr(self._engine, "stream", None)
        return None if stream is None else stream(frames)

    def staged(self, frames: Frames) -> dict[str, float]:
        """Upscale a batch; return what the engine itself, its tiles and the network took."""
        spent = dict.fromkeys(("lane", "infer"), 0.0)
        with contextlib.ExitStack() as stack:
            for lane in _lanes(self._engine):
                stack.enter_context(_clocked(lane, "run", spent, "lane"))
                if (inference := getattr(lane, "_inference", None)) is not None:
                    stack.enter_context(_clocked(inference, "infer", spent, "infer"))
            whole = clocks.wall(lambda: self.upscale(frames))
        found = {"engine": whole - spent["lane"]}
        if spent["infer"]:
            return found | {"tiles": spent["lane"] - spent["infer"], "network": spent["infer"]}
        return found | {"network": spent["lane"]}

    def settle(self, frames: Frames) -> NDArray[Any]:
        """Have the network compiled for the frames' size; see `settle`."""
        settle(self._engine)
        return self.upscale(frames)

    def clock(self) -> Callable[[Callable[[], object]], float]:
        """Return the wall clock: frames are back in the host's memory when a call returns."""
        return clocks.wall

    def device_memory(self) -> int | None:
        """Return None: what a backend holds is asked of the driver, from outside."""
        return None

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


def _device(job: WorkerSpec, *, by_default: bool) -> str | None:
    """Return the device to ask for; where it is the default one, nothing is, as users do."""
    usual = meters.default_device() if by_default else "cpu"
    return None if job.device == usual else job.device


def settle(engine: Engine) -> None:
    """Have OpenVINO compile the network for the next frame's size.

    The engine does so by itself once a size has come often enough; this spares the waiting.
    """
    for lane in _lanes(engine):
        inference = getattr(lane, "_inference", None)
        if hasattr(inference, "_price"):
            inference._price = 0.0  # type: ignore[union-attr]


def _lanes(engine: Engine) -> list[Any]:
    """Return the lanes for 8-bit frames, all of them idle. Only measuring looks in here."""
    frames = pixel_format(engine.spec.channels, itemsize=1)
    return list(engine._session.pool(frames)._idle.queue)


@contextlib.contextmanager
def _clocked(owner: Any, name: str, spent: dict[str, float], key: str) -> Iterator[None]:
    """Add up the milliseconds of an object's method."""
    method = getattr(owner, name)

    def timed(*arguments: Any) -> Any:
        start = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            spent[key] += 1e3 * (time.perf_counter() - start)

    setattr(owner, name, timed)
    try:
        yield
    finally:
        delattr(owner, name)
