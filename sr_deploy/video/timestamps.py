"""When each frame is shown and for how long, and which frames are taken."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from fractions import Fraction

    import av

_log = logging.getLogger(__name__)


def timed(
    frames: Iterable[av.VideoFrame], time_base: Fraction, step: Fraction
) -> Iterator[av.VideoFrame]:
    """Yield each frame with a `pts`, later than that of the one before.

    Args:
        frames: In the order in which they are shown.
        time_base: Of their times.
        step: From one frame to the next, in the time base, where they say nothing.
    """
    known, since, previous = 0, 0, None
    told = False
    for frame in frames:
        if frame.pts is None:
            pts = known + round(since * step)
        else:
            pts = known = frame.pts
            since = 0
        since += 1
        if previous is not None and pts <= previous:
            if not told:
                _log.warning(
                    "at %.3f s a frame is to be shown no later than the one before; it and others "
                    "like it are moved to just after",
                    float(pts * time_base),
                )
            told, pts = True, previous + 1
        frame.pts = previous = pts
        frame.time_base = time_base
        yield frame


def lasting(frames: Iterable[av.VideoFrame], step: Fraction) -> Iterator[av.VideoFrame]:
    """Yield each frame with the time until the next as its `duration`.

    The last one keeps its own, or takes `step` where it has none. What containers say of the others
    is often nominal, and in the order of decoding.
    """
    held: av.VideoFrame | None = None
    for frame in frames:
        if held is not None:
            assert held.pts is not None
            assert frame.pts is not None
            held.duration = frame.pts - held.pts
            yield held
        held = frame
    if held is not None:
        held.duration = held.duration or max(1, round(step))
        yield held


def chosen(
    frames: Iterable[av.VideoFrame], start: int | None, end: int | None, every: int
) -> Iterator[av.VideoFrame]:
    """Yield one of so many frames; it lasts as long as they do together.

    Args:
        frames: In order, each with `pts` and `duration`.
        start: Those before that time are left out.
        end: Those from that time on are left out.
        every: How many frames one is taken of, the first.
    """
    held: av.VideoFrame | None = None
    count = 0
    for frame in frames:
        assert frame.pts is not None
        if start is not None and frame.pts < start:
            continue
        if end is not None and frame.pts >= end:
            break
        if count % every == 0:
            if held is not None:
                yield held
            held = frame
        elif held is not None:
            held.duration += frame.duration
        count += 1
    if held is not None:
        yield held
