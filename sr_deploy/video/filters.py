"""Generators over decoded frames: timestamps, deinterlacing and cropping, selection."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import av
from av.filter import Graph

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from fractions import Fraction

    Crop = tuple[int, int, int, int]

_log = logging.getLogger(__name__)


def timestamped(
    frames: Iterable[av.VideoFrame], time_base: Fraction, step: Fraction, *, deinterlace: bool
) -> Iterator[av.VideoFrame]:
    """Yield each frame with a `pts` later than that of the one before.

    Args:
        frames: In display order.
        time_base: Of their timestamps.
        step: Usual distance of two frames in the time base, for frames without a timestamp.
        deinterlace: Frames will be deinterlaced; otherwise interlaced ones cause a warning.
    """
    known, since, previous = 0, 0, None
    warned_interlaced, warned_order = deinterlace, False
    for frame in frames:
        if frame.interlaced_frame and not warned_interlaced:
            warned_interlaced = True
            _log.warning(
                "interlaced frames from %.3f s on are upscaled as they are (--deinterlace would "
                "deinterlace them)",
                frame.time or 0.0,
            )
        if frame.pts is None:
            pts = known + round(since * step)
        else:
            pts = known = frame.pts
            since = 0
        since += 1
        if previous is not None and pts <= previous:
            if not warned_order:
                _log.warning(
                    "the frame at %.3f s is no later than the one before; it and others like it "
                    "are moved to just after",
                    float(pts * time_base),
                )
            warned_order, pts = True, previous + 1
        frame.pts = previous = pts
        frame.time_base = time_base
        yield frame


def selected(
    frames: Iterable[av.VideoFrame], start: int | None, end: int | None, every: int, step: Fraction
) -> Iterator[av.VideoFrame]:
    """Yield one frame of every `every`, with the time until the next one as its `duration`.

    Durations in containers are often nominal, or in decoding order; only that of the last frame
    is used.

    Args:
        frames: With increasing `pts`.
        start: Frames before are dropped.
        end: Frames from here on are dropped.
        every: The first of so many frames is kept.
        step: Duration of the last frame if it has none.
    """
    held: av.VideoFrame | None = None
    held_pts = stop = count = 0
    for frame in frames:
        assert frame.pts is not None
        pts = frame.pts
        if start is not None and pts < start:
            continue
        ended = end is not None and pts >= end
        if held is not None and (ended or count % every == 0):
            held.duration = pts - held_pts
            yield held
            held = None
        if ended:
            return
        if count % every == 0:
            held, held_pts = frame, pts
        stop = pts + (frame.duration or max(1, round(step)))
        count += 1
    if held is not None:
        held.duration = stop - held_pts
        yield held


def checked_crop(crop: Crop, frame: av.VideoFrame) -> Crop:
    """Return a crop (left, top, width, height) that fits a frame.

    Raises:
        InvalidInputError: It reaches beyond the frame, or begins within a chroma sample.
    """
    left, top, width, height = crop
    name = frame.format.name
    across = 16 // av.VideoFormat(name, 16, 16).chroma_width()
    down = 16 // av.VideoFormat(name, 16, 16).chroma_height()
    if min(left, top) < 0 or min(width, height) < 1:
        raise InvalidInputError(
            f"crop {crop}: left and top must be at least 0, width and height at least 1"
        )
    if left + width > frame.width or top + height > frame.height:
        raise InvalidInputError(
            f"crop {crop} (left, top, width, height) reaches beyond the frame of "
            f"{frame.width}x{frame.height}"
        )
    if left % across or top % down:
        raise InvalidInputError(
            f"crop {crop}: in {name}, left must be a multiple of {across} and top of {down}; "
            f"the nearest is {left - left % across} and {top - top % down}"
        )
    return crop


def filtered(
    frames: Iterable[av.VideoFrame],
    time_base: Fraction,
    *,
    crop: Crop | None,
    deinterlace: bool,
    threads: int,
) -> Iterable[av.VideoFrame]:
    """Return the frames deinterlaced and cropped; without either, `frames` itself."""
    steps = []
    if deinterlace:
        steps.append(("bwdif", f"mode=send_frame:parity=auto:deint=all:threads={threads}"))
    if crop is not None:
        left, top, width, height = crop
        steps.append(("crop", f"w={width}:h={height}:x={left}:y={top}:exact=1"))
    return _through_graphs(frames, time_base, steps) if steps else frames


def _through_graphs(
    frames: Iterable[av.VideoFrame], time_base: Fraction, steps: list[tuple[str, str]]
) -> Iterator[av.VideoFrame]:
    """Filter frames; a change of their size or format starts a new graph."""
    graph, shape = None, None
    for frame in frames:
        found = frame.width, frame.height, frame.format.name
        if graph is None or found != shape:
            if graph is not None:
                yield from _pushed(graph, None, time_base)
            graph, shape = Graph(), found
            nodes = [
                graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format, time_base=time_base
                ),
                *(graph.add(name, arguments) for name, arguments in steps),
                graph.add("buffersink"),
            ]
            graph.link_nodes(*nodes).configure()
        yield from _pushed(graph, frame, time_base)
    if graph is not None:
        yield from _pushed(graph, None, time_base)


def _pushed(
    graph: Graph, frame: av.VideoFrame | None, time_base: Fraction
) -> Iterator[av.VideoFrame]:
    """Push a frame (None for the end) and yield the frames that are ready."""
    graph.vpush(frame)
    while True:
        try:
            result = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        # Deinterlacing counts in halves of the time base, for its mode with two frames of each.
        scale = result.time_base / time_base if result.time_base else 1
        if result.pts is not None:
            result.pts = round(result.pts * scale)
        result.duration = round(result.duration * scale)
        result.time_base = time_base
        yield result
