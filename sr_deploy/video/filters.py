"""What is done to decoded frames before they are taken: deinterlacing and cropping."""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
from av.filter import Graph

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from fractions import Fraction

    Crop = tuple[int, int, int, int]


def checked_crop(crop: Crop, frame: av.VideoFrame) -> Crop:
    """Return a crop that fits a frame.

    Raises:
        InvalidInputError: it lies beyond the frame, or between two samples of chroma.
    """
    left, top, width, height = crop
    name = frame.format.name
    across = 16 // av.VideoFormat(name, 16, 16).chroma_width()
    down = 16 // av.VideoFormat(name, 16, 16).chroma_height()
    if min(left, top) < 0 or min(width, height) < 1:
        raise InvalidInputError(f"crop {crop}: left and top start at 0, width and height at 1")
    if left + width > frame.width or top + height > frame.height:
        raise InvalidInputError(
            f"crop {crop} (left, top, width, height) reaches beyond the video, which is "
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
) -> Iterator[av.VideoFrame]:
    """Yield every frame, deinterlaced or cropped; with neither, as it came."""
    steps = []
    if deinterlace:
        steps.append(("bwdif", f"mode=send_frame:parity=auto:deint=all:threads={threads}"))
    if crop is not None:
        left, top, width, height = crop
        steps.append(("crop", f"w={width}:h={height}:x={left}:y={top}:exact=1"))
    if not steps:
        yield from frames
        return
    graph, shape = None, None
    for frame in frames:
        found = frame.width, frame.height, frame.format.name
        if graph is None or found != shape:
            if graph is not None:
                yield from _through(graph, None, time_base)
            graph, shape = _graph(frame, steps, time_base), found
        yield from _through(graph, frame, time_base)
    if graph is not None:
        yield from _through(graph, None, time_base)


def _graph(frame: av.VideoFrame, steps: list[tuple[str, str]], time_base: Fraction) -> Graph:
    graph = Graph()
    nodes = [
        graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=time_base
        ),
        *(graph.add(name, arguments) for name, arguments in steps),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*nodes).configure()
    return graph


def _through(
    graph: Graph, frame: av.VideoFrame | None, time_base: Fraction
) -> Iterator[av.VideoFrame]:
    """Push a frame (None: the end) and yield what is ready."""
    graph.vpush(frame)
    while True:
        try:
            result = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        # Deinterlacing counts in halves of the time base, in case it makes two frames of each.
        scale = result.time_base / time_base if result.time_base else 1
        if result.pts is not None:
            result.pts = round(result.pts * scale)
        result.duration = round(result.duration * scale)
        result.time_base = time_base
        yield result
