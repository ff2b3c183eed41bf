"""When each picture is decoded: computed for a whole video from when its pictures are shown."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


def reordering_depth(pts: Sequence[int]) -> int:
    """Return by how many places at most a picture is decoded later than its turn to be shown.

    Args:
        pts: when each picture is shown, in the order of decoding.
    """
    ranks = {time: rank for rank, time in enumerate(sorted(pts))}
    return max((place - ranks[time] for place, time in enumerate(pts)), default=0)


def decoding_times(segments: Iterable[Sequence[int]], depth: int) -> Iterator[int]:
    """Yield when each picture of a video is decoded.

    The times at which pictures are shown, in order, are taken `depth` places later: so every
    picture is decoded in time, however uneven the times are. Before the first of them the
    distance between the first two is kept up.

    Args:
        segments: when pictures are shown, of one segment after the other. Every time is there
            once, and segments do not overlap.
        depth: the largest `reordering_depth` of any segment.
    """
    waiting: deque[int] = deque()
    started = False
    for segment in segments:
        shown = sorted(segment)
        if not started:
            waiting.extend(_before(shown, depth))
            started = True
        waiting.extend(shown)
        for _ in shown:
            yield waiting.popleft()


def _before(shown: Sequence[int], count: int) -> Iterator[int]:
    step = shown[1] - shown[0] if len(shown) > 1 else 1
    return (shown[0] - step * place for place in range(count, 0, -1))
