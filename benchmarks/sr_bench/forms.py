"""What is timed: calls one after the other, frames that overlap, and a whole video."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sr_export import photos as samples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sr_bench.jobs import Frames, Runner

_CACHE = 64 << 20
"""More bytes than the last cache of most processors; a frame has left it when its turn comes."""
_FEWEST, _MOST = 4, 512
_FEWEST_OF_A_STREAM = 3


def inputs(width: int, height: int, channels: int, batch: int) -> Frames:
    """Return batches (M, N, H, W, C) of photos, so many that they do not sit in a cache."""
    frame = height * width * channels
    count = min(max(-(-_CACHE // (frame * batch)), _FEWEST), _MOST)
    photos = samples.batch(_FEWEST, height, width, channels)
    batches = np.empty((count, batch, height, width, channels), np.uint8)
    for i in range(count * batch):
        # Moved against each other, no two are equal.
        place = batches[i // batch, i % batch]
        place[...] = np.roll(photos[i % _FEWEST], (7 * (i // _FEWEST), 13 * (i // _FEWEST)), (0, 1))
    return batches


class Form(Protocol):
    """One thing that is timed."""

    def turn(self, seconds: float) -> list[float]:
        """Return milliseconds of as many calls as fit, one at least."""


class CallTimer:
    """One call after the other, each with the next batch.

    Args:
        call: takes a batch's index.
        count: of batches.
        clock: runs a call and says how many milliseconds it took.
    """

    def __init__(
        self,
        call: Callable[[int], object],
        count: int,
        clock: Callable[[Callable[[], object]], float],
    ) -> None:
        self._call = call
        self._count = count
        self._clock = clock
        self._next = 0

    def one(self) -> float:
        """Return the milliseconds of one call."""
        index = self._next
        self._next = (index + 1) % self._count
        return self._clock(lambda: self._call(index))

    def turn(self, seconds: float) -> list[float]:
        """Return milliseconds; one call goes before, since caches are full of what others did."""
        self.one()
        end = time.monotonic() + seconds
        found = [self.one()]
        while time.monotonic() < end:
            found.append(self.one())
        return found


class Stream:
    """Frames that follow one another, overlapped; timed from one's end to the next one's."""

    def __init__(self, opened: Runner, batches: Frames) -> None:
        self._opened = opened
        self._frames = batches.reshape(-1, *batches.shape[2:])
        self._next = 0

    def turn(self, seconds: float) -> list[float]:
        """Return milliseconds; the first frame, for which nothing was under way, does not count."""
        results = self._opened.through(self._coming(time.monotonic() + seconds))
        assert results is not None
        ends = [time.perf_counter() for _ in results]
        return [1e3 * (end - start) for start, end in itertools.pairwise(ends)]

    def _coming(self, end: float) -> Iterator[Frames]:
        count = 0
        while count < _FEWEST_OF_A_STREAM or time.monotonic() < end:
            yield self._frames[self._next]
            self._next = (self._next + 1) % len(self._frames)
            count += 1
