"""The session: a bundle's networks on one backend, each loaded when its pixel format first occurs.

`Session` chooses the backend, the variant and the tuning, and falls back to the next best choice
where loading fails. Threads borrow the lanes of a network from its `LanePool`.
"""

from __future__ import annotations

import contextlib
import logging
import queue
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sr_deploy.backends.base import Backend, Lane, LoadedNetwork
    from sr_deploy.bundle.bundle import Bundle
    from sr_deploy.bundle.manifest import PixelFormat, Precision, Variant
    from sr_deploy.bundle.tuning import Tuning

_log = logging.getLogger(__name__)

_CLOSED = "this engine is closed; open another with Engine(bundle)"


@dataclass(frozen=True)
class EngineOptions:
    """The user's choices; see `Engine`."""

    backend: str
    precision: str
    device: str | None
    threads: int | None
    lanes: int | None = None
    memory: int | None = None
    build: str = "auto"
    tuning: Tuning | None = None
    streaming: bool = False


class LanePool:
    """A loaded network with its lanes, which threads borrow to compute one frame each.

    Attributes:
        network: The network.
        tuning: Its tuned tile and batch.
        footprint: Host memory of all lanes together.
    """

    def __init__(self, network: LoadedNetwork, tuned: Tuning) -> None:
        self.network = network
        self.tuning = tuned
        self.footprint = network.footprint.times(network.lanes)
        self._idle: queue.LifoQueue[Lane | None] = queue.LifoQueue()
        self._count = 0
        self._releasing = threading.Lock()
        try:
            while self._count < network.lanes:
                self._idle.put(network.open_lane())
                self._count += 1
        except BaseException:
            self.close()
            raise

    @contextlib.contextmanager
    def lane(self) -> Iterator[Lane]:
        """Lend a lane, waiting until one is idle.

        Raises:
            InvalidInputError: the pool is closed.
        """
        lane = self._idle.get()
        if lane is None:
            self._idle.put(None)  # for the next waiting thread
            raise InvalidInputError(_CLOSED)
        try:
            yield lane
        finally:
            self._idle.put(lane)

    def release(self) -> None:
        """Free the caches of all lanes, waiting for those in use.

        Raises:
            InvalidInputError: the pool is closed.
        """
        # One thread at a time: two would each hold lanes that the other waits for.
        with self._releasing, contextlib.ExitStack() as borrowed:
            for _ in range(self._count):
                borrowed.enter_context(self.lane()).release()

    def close(self) -> None:
        """Close all lanes, waiting for those in use, then the network."""
        for _ in range(self._count):
            lane = self._idle.get()
            assert lane is not None
            lane.close()
        self._count = 0
        self._idle.put(None)
        self.network.close()


class Session:
    """The networks of one engine; threads may share them.

    Args:
        bundle: The bundle.
        first: Pixel format of the network that is loaded immediately, on the best backend that can
            run it.
        options: The user's choices.

    Raises:
        InvalidInputError: the backend or the precision is not available.
        BundleError, NotFoundError: the bundle is damaged.
        BackendMissingError, BackendError: no backend works, or none can run the network.
        OutOfMemoryError: the network does not fit into memory.

    Attributes:
        backend: The backend of all networks.
        closed: Whether `close` was called.
        held: Resident memory of this process without frames and the running network, in bytes.
        precision: Precision of the first network.
        threads: CPU threads of the first network.
    """

    backend: Backend
    precision: Precision

    def __init__(self, bundle: Bundle, first: PixelFormat, options: EngineOptions) -> None:
        self.closed = False
        self._bundle = bundle
        self._options = options
        self._build = options.build
        self._pools: dict[PixelFormat, LanePool] = {}
        self._loading = threading.Lock()
        self._current: LanePool | None = None
        self.held = self._least = self.threads = 0
        self._open_first(first)
        self.held = self._least = machine.resident_memory()  # with the backend's own libraries

    def pool(self, frames: PixelFormat) -> LanePool:
        """Return the network for a pixel format, loading it on first use.

        Raises:
            InvalidInputError: the session is closed.
        """
        with self._loading:
            if self.closed:
                raise InvalidInputError(_CLOSED)
            if frames not in self._pools:
                before = machine.resident_memory()
                self._pools[frames] = self._load(frames)
                self._least += max(0, machine.resident_memory() - before)
                self.held = max(self.held, self._least)
            return self._pools[frames]

    def activate(self, frames: PixelFormat, frame_bytes: int) -> LanePool:
        """Return the network for a pixel format after freeing the caches of the others.

        The memory budget is for one network at a time. What the others still take afterwards (code
        generated for them, heap fragments) counts as held. Waits for frames in the others.

        Args:
            frames: The pixel format.
            frame_bytes: Bytes of the frame to be upscaled, which do not count as held. Other
                frames in flight do count: they need not all be in memory yet.
        """
        pool = self._pools.get(frames) or self.pool(frames)
        if pool is self._current:
            return pool
        others = [each for each in list(self._pools.values()) if each is not pool]
        for other in others:
            other.release()
        if others:
            machine.trim_heap()
            self.held = max(self._least, machine.resident_memory() - frame_bytes)
        self._current = pool
        return pool

    def offers(self, frames: PixelFormat) -> bool:
        """Return whether the bundle has a network for a pixel format, loaded or not."""
        try:
            self._choices(frames)
        except (BundleError, InvalidInputError):
            return False
        return True

    def close(self) -> None:
        """Close all networks after the frames in flight; repeated calls do nothing."""
        with self._loading:
            self.closed = True
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _open_first(self, frames: PixelFormat) -> None:
        """Choose the best backend that can run the network, and load it."""

        def pool(backend: Backend, build: str) -> LanePool:
            self.backend, self._build = backend, build
            return self.pool(frames)

        found = backends.candidates(self._options.backend, self._options.device)
        attempts = (
            ("" if build == "existing" else each.name, partial(pool, each, build))
            for each, build in self._builds(found)
        )
        _first_working(attempts, (BackendError, InvalidInputError, OutOfMemoryError))
        self._build = self._options.build

    def _builds(self, found: Iterable[Backend]) -> Iterator[tuple[Backend, str]]:
        """Yield backends with what each may build: first what is there, or takes seconds.

        TensorRT builds a plan in minutes. A plan that it has for this GPU is best; without one, a
        portable plan of TensorRT for RTX is used at once.
        """
        wanted = self._options.build
        portable = self._options.backend == "auto" and "tensorrt_rtx" in backends.available()
        later: list[Backend] = []
        for each in found:
            if each.name == "tensorrt" and portable and wanted == "auto":
                later.append(each)
                yield each, "existing"
                continue
            if each.name != "tensorrt_rtx":
                yield from ((slow, wanted) for slow in later)
                later.clear()
            yield each, wanted
        yield from ((slow, wanted) for slow in later)

    def _choices(self, frames: PixelFormat) -> list[Variant]:
        computed = self.backend.precisions(self._options.device)
        wanted = self._options.precision
        return selection.choices(self._bundle, frames, wanted, computed, self.backend.name)

    def _load(self, frames: PixelFormat) -> LanePool:
        """Load the best variant that the backend can run."""
        choices = self._choices(frames)
        attempts = ((each.precision, partial(self._load_variant, frames, each)) for each in choices)
        # OutOfMemoryError is final: the other precisions need no less memory.
        return _first_working(attempts, BackendError)

    def _load_variant(self, frames: PixelFormat, variant: Variant) -> LanePool:
        if self.backend.name in variant.unfit:
            _log.warning(
                "%s: %s is off on %s: %s",
                self._bundle.folder,
                variant.precision,
                self.backend.name,
                variant.unfit[self.backend.name],
            )
        if self._options.precision not in ("auto", variant.precision):
            _log.debug("frames of format %s are computed in %s", frames, variant.precision)
        tuned = self._tuning(frames, variant)
        threads = self._options.threads or tuned.threads or machine.cores()
        if not self._pools:
            self.threads, self.precision = threads, variant.precision
        request = LoadRequest(
            self._bundle.network(variant),
            self._bundle.manifest.model,
            frames,
            variant.precision,
            self._options.device,
            threads,
            self._options.lanes or tuned.lanes,
            self._options.memory,
            self._build,
            self._options.streaming,
        )
        return LanePool(self.backend.load(request), tuned)

    def _tuning(self, frames: PixelFormat, variant: Variant) -> Tuning:
        """Return the user's tuning, else that of the bundle's tuning record."""
        if self._options.tuning is not None:
            return self._options.tuning
        backend = backends.name_and_version(self.backend.name)
        key = tuning.key(backend, variant.precision, self._options.device)
        found = tuning.find(self._bundle.folder, key)
        # YUV frames cannot be tiled, and the tile was tuned with other frames.
        return replace(found, tile=None) if frames in get_args(YuvFormat) else found


def _first_working(
    attempts: Iterable[tuple[str, Callable[[], LanePool]]],
    failures: type[Exception] | tuple[type[Exception], ...],
) -> LanePool:
    """Return the pool of the first attempt that succeeds, with a warning if others failed before.

    Args:
        attempts: Functions by name, the best first; without a name: no warning if it fails.
        failures: Errors after which the next attempt follows.

    Raises:
        Exception: the error of the first attempt, if all fail.
    """
    failure: Exception | None = None
    for name, attempt in attempts:
        try:
            pool = attempt()
        except failures as error:
            failure = failure or (error if name else None)
        else:
            if failure is not None:
                _log.warning("%s; falling back to %s", failure, name)
            return pool
    assert failure is not None
    raise failure
