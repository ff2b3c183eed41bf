"""The networks of a bundle, each loaded on a backend when frames of its format first come."""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy import backends, selection
from sr_deploy.backends.base import Job
from sr_deploy.errors import BackendError, InvalidInputError
from sr_deploy.memory import resident
from sr_deploy.pool import Pool, closed

if TYPE_CHECKING:
    from sr_deploy.backends.base import Backend
    from sr_deploy.bundle import Bundle
    from sr_deploy.manifest import PixelFormat, Precision, Variant

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Wish:
    """What the user asks for; see `Engine`."""

    backend: str
    precision: str
    device: str | None
    threads: int
    lanes: int = 1


class Networks:
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
        held: Bytes that this process held when the first was loaded, and what the others took.
    """

    backend: Backend

    def __init__(self, bundle: Bundle, first: PixelFormat, wish: Wish) -> None:
        self.closed = False
        self._bundle = bundle
        self._wish = wish
        self._pools: dict[PixelFormat, Pool] = {}
        self._loading = threading.Lock()
        self.held = 0
        self._start(first)
        self.held = resident()  # now the backend's own libraries are there, too

    def pool(self, frames: PixelFormat) -> Pool:
        """Return the network for a pixel format, loading it when it is first needed.

        Raises:
            InvalidInputError: this is closed.
        """
        with self._loading:
            if self.closed:
                raise closed()
            if frames not in self._pools:
                before = resident()
                self._pools[frames] = self._loaded(frames)
                self.held += max(0, resident() - before)
            return self._pools[frames]

    def precision(self, frames: PixelFormat) -> Precision:
        """Return the precision in which frames of a format are computed."""
        return self._choice(frames).precision

    def release_all_but(self, pool: Pool) -> None:
        """Have the other networks give back what they keep; waits for those that run."""
        for other in list(self._pools.values()):
            if other is not pool:
                other.release()

    def close(self) -> None:
        """Wait for the frames in flight, then give everything back; again does nothing."""
        with self._loading:
            self.closed = True
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.close()

    def _start(self, frames: PixelFormat) -> None:
        """Find the best backend that takes the network; else say why the best does not."""
        failure: BackendError | InvalidInputError | None = None
        for candidate in backends.candidates(self._wish.backend, self._wish.device):
            self.backend = candidate
            try:
                self.pool(frames)
            except (BackendError, InvalidInputError) as error:
                failure = failure or error
            else:
                if failure is not None:
                    _log.warning("%s; going on with %s", failure, self.backend.name)
                return
        assert failure is not None
        raise failure

    def _choice(self, frames: PixelFormat) -> Variant:
        computed = self.backend.precisions(self._wish.device)
        wanted = self._wish.precision
        return selection.choose(self._bundle, frames, wanted, computed, self.backend.name)

    def _loaded(self, frames: PixelFormat) -> Pool:
        variant = self._choice(frames)
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
        job = Job(
            self._bundle.verified(variant),
            self._bundle.manifest.model,
            frames,
            variant.precision,
            self._wish.device,
            self._wish.threads,
            self._wish.lanes,
        )
        return Pool(self.backend.load(job))
