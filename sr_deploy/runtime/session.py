"""The networks of a bundle, each loaded on a backend when frames of its format first come."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, get_args

from sr_deploy import backends, machine
from sr_deploy.backends.base import LoadRequest
from sr_deploy.bundle import tuning
from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.errors import BackendError, BundleError, InvalidInputError, OutOfMemoryError
from sr_deploy.runtime import selection
from sr_deploy.runtime.lanes import LanePool, closed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from sr_deploy.backends.base import Backend
    from sr_deploy.bundle.bundle import Bundle
    from sr_deploy.bundle.manifest import PixelFormat, Precision, Variant
    from sr_deploy.bundle.tuning import Tuning

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineOptions:
    """What the user asks for; see `Engine`."""

    backend: str
    precision: str
    device: str | None
    threads: int | None
    lanes: int | None = None
    memory: int | None = None
    build: str = "auto"
    tuning: Tuning | None = None
    streaming: bool = False


class Session:
    """The networks that one engine runs, all on one backend. Threads may share them.

    Args:
        bundle: Where they are.
        first: The format of the frames whose network is loaded at once; the backend is the best
            that takes it.
        wish: What the user asks for.

    Raises:
        InvalidInputError: there is no such backend or precision here.
        BundleError, NotFoundError: the bundle is damaged.
        BackendMissingError, BackendError: no backend can be had, or none takes the network.
        OutOfMemoryError: there is not even memory to load the network.

    Attributes:
        backend: What they run on.
        closed: Whether they were given back.
        held: Bytes that this process holds beside frames and what the running network takes.
        precision: Of the first.
        threads: Of computation on a CPU, of the first.
    """

    backend: Backend
    precision: Precision

    def __init__(self, bundle: Bundle, first: PixelFormat, wish: EngineOptions) -> None:
        self.closed = False
        self._bundle = bundle
        self._wish = wish
        self._pools: dict[PixelFormat, LanePool] = {}
        self._loading = threading.Lock()
        self._current: LanePool | None = None
        self.held = self._least = self.threads = 0
        self._start(first)
        self.held = self._least = machine.resident_memory()  # with the backend's own libraries

    def pool(self, frames: PixelFormat) -> LanePool:
        """Return the network for a pixel format, loading it when it is first needed.

        Raises:
            InvalidInputError: this is closed.
        """
        with self._loading:
            if self.closed:
                raise closed()
            if frames not in self._pools:
                before = machine.resident_memory()
                self._pools[frames] = self._loaded(frames)
                self._least += max(0, machine.resident_memory() - before)
                self.held = max(self.held, self._least)
            return self._pools[frames]

    def offers(self, frames: PixelFormat) -> bool:
        """Return whether there is a network for a pixel format, loaded or not."""
        try:
            self._choices(frames)
        except (BundleError, InvalidInputError):
            return False
        return True

    def activate(self, pool: LanePool, frame: int) -> None:
        """Have the other networks give back what they keep, and see what that leaves.

        The memory budget is for one network at a time. What others keep nevertheless (code that was
        generated for them, pieces that the C library cannot give back) counts as held.

        Args:
            pool: The network that is to run; this waits for others that do.
            frame: Bytes of the frame that is to run, which do not count. What else is in flight
                does: not all of it need be in memory yet.
        """
        if self._current is pool:
            return
        others = [each for each in list(self._pools.values()) if each is not pool]
        for other in others:
            other.release()
        if others:
            machine.trim_heap()
            self.held = max(self._least, machine.resident_memory() - frame)
        self._current = pool

    def close(self) -> None:
        """Wait for the frames in flight, then give everything back; again does nothing."""
        with self._loading:
            self.closed = True
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _start(self, frames: PixelFormat) -> None:
        """Find the best backend that takes the network; else say why the best does not."""

        def pool(backend: Backend) -> LanePool:
            self.backend = backend
            return self.pool(frames)

        found = backends.candidates(self._wish.backend, self._wish.device)
        ways = ((each.name, partial(pool, each)) for each in found)
        _first(ways, (BackendError, InvalidInputError, OutOfMemoryError))

    def _choices(self, frames: PixelFormat) -> list[Variant]:
        computed = self.backend.precisions(self._wish.device)
        wanted = self._wish.precision
        return selection.choices(self._bundle, frames, wanted, computed, self.backend.name)

    def _loaded(self, frames: PixelFormat) -> LanePool:
        """Load the best variant that the backend takes here; else say why not the best of all."""
        choices = self._choices(frames)
        ways = ((each.precision, partial(self._taken, frames, each)) for each in choices)
        # Where memory is too small for one precision, it is for those after it.
        return _first(ways, BackendError)

    def _taken(self, frames: PixelFormat, variant: Variant) -> LanePool:
        if self.backend.name in variant.unfit:
            _log.warning(
                "%s: %s is off on %s: %s",
                self._bundle.folder,
                variant.precision,
                self.backend.name,
                variant.unfit[self.backend.name],
            )
        if self._wish.precision not in ("auto", variant.precision):
            _log.debug("frames of format %s are computed in %s", frames, variant.precision)
        tuned = self._tuned(frames, variant)
        threads = self._wish.threads or tuned.threads or machine.cores()
        if not self._pools:
            self.threads, self.precision = threads, variant.precision
        job = LoadRequest(
            self._bundle.verified(variant),
            self._bundle.manifest.model,
            frames,
            variant.precision,
            self._wish.device,
            threads,
            self._wish.lanes or tuned.lanes,
            self._wish.memory,
            self._wish.build,
            self._wish.streaming,
        )
        return LanePool(self.backend.load(job), tuned)

    def _tuned(self, frames: PixelFormat, variant: Variant) -> Tuning:
        """Return how to run a network: as the user says, else by the bundle's tuning record."""
        if self._wish.tuning is not None:
            return self._wish.tuning
        folder, device = self._bundle.folder, self._wish.device
        backend = backends.name_and_version(self.backend.name)
        found = tuning.find(folder, tuning.key(backend, variant.precision, device))
        # Frames of YUV go through whole, and the tile was found with others.
        return replace(found, tile=None) if frames in get_args(YuvFormat) else found


def _first(
    ways: Iterable[tuple[str, Callable[[], LanePool]]],
    passed_over: type[Exception] | tuple[type[Exception], ...],
) -> LanePool:
    """Return what the first way gives that can be gone, warning why it is not the very first.

    Args:
        ways: By name, the best first.
        passed_over: What a way raises that cannot be gone.

    Raises:
        Exception: what the very first raised, where none can be gone.
    """
    failure: Exception | None = None
    for name, way in ways:
        try:
            pool = way()
        except passed_over as error:
            failure = failure or error
        else:
            if failure is not None:
                _log.warning("%s; going on with %s", failure, name)
            return pool
    assert failure is not None
    raise failure
