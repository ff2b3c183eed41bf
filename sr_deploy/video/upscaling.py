"""Decoded frames through an engine: read, computed and taken at the same time."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.video.conversion import ToFrames, ToPixels

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator
    from typing import Any

    import av

    from sr_deploy.engine import Engine
    from sr_deploy.video.colour import Colour

_log = logging.getLogger(__name__)

_MOST_OF_THE_TIME = 0.9


@dataclass(frozen=True)
class Look:
    """How frames are to be understood, and what those that come out are to be like.

    Attributes:
        colour: Of the frames that go in.
        colour_out: Of those that come out.
        pixel_format: Of those that come out, in FFmpeg's words.
    """

    colour: Colour
    colour_out: Colour
    pixel_format: str


class Meter:
    """Tells which stage holds the others up."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.reading = 0.0
        self.writing = 0.0

    @property
    def slowest(self) -> str:
        """What the others wait for: "reading", "writing" or "network"."""
        seconds = time.monotonic() - self._start
        for name in ("writing", "reading"):
            if getattr(self, name) > _MOST_OF_THE_TIME * seconds:
                return name
        return "network"


def upscaled(
    engine: Engine, frames: Iterable[av.VideoFrame], look: Look, meter: Meter
) -> Generator[av.VideoFrame, None, None]:
    """Yield each frame upscaled, with its own time.

    The source is read in a thread of its own, and so is the network run; what the caller does with
    a frame before it takes the next goes on meanwhile. All frames come out in one size: where that
    of the source changes midway, those that follow are first resized.
    """
    to_frames = ToFrames(look.pixel_format, look.colour_out)
    for pixels, (pts, duration, time_base) in engine.stream(
        _pixels(frames, look.colour, meter), reuse=True
    ):
        got = time.monotonic()
        frame = to_frames(pixels)
        frame.pts, frame.duration, frame.time_base = pts, duration, time_base
        yield frame
        meter.writing += time.monotonic() - got


def _pixels(
    frames: Iterable[av.VideoFrame], colour: Colour, meter: Meter
) -> Iterator[tuple[Any, Any]]:
    """Yield the pixels of each frame, and its time."""
    to_pixels = ToPixels(colour)
    size: tuple[int, int] | None = None
    resizing = False
    start = time.monotonic()
    for frame in frames:
        size = size or (frame.width, frame.height)
        if (frame.width, frame.height) != size:
            if not resizing:
                _log.warning("%s", _change_of_size(frame, size))
            resizing = True
            frame = frame.reformat(width=size[0], height=size[1], interpolation="BICUBIC")
        item = to_pixels(frame), (frame.pts, frame.duration, frame.time_base)
        meter.reading += time.monotonic() - start
        yield item
        start = time.monotonic()


def _change_of_size(frame: av.VideoFrame, size: tuple[int, int]) -> str:
    return (
        f"from {frame.time or 0.0:.3f} s on, frames are {frame.width}x{frame.height} pixels in "
        f"place of {size[0]}x{size[1]}; those that differ are resized to what the first were"
    )
