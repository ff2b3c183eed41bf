"""The pool of lanes of a loaded network."""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

from sr_deploy.bundle.tuning import Tuning
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sr_deploy.backends.base import Lane, LoadedNetwork


class LanePool:
    """A loaded network with its lanes, which threads borrow to compute one frame each.

    Attributes:
        network: The network.
        tuning: Its tuned tile and batch.
        footprint: Host memory of all lanes together.
    """

    def __init__(self, network: LoadedNetwork, tuning: Tuning | None = None) -> None:
        self.network = network
        self.tuning = tuning or Tuning()
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
            raise closed()
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


def closed() -> InvalidInputError:
    """Return the error for using a closed engine."""
    return InvalidInputError("this engine is closed; open another with Engine(bundle)")
