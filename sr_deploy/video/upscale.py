"""Decoded frames through an engine: read, computed and taken at the same time."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sr_deploy.video import native_yuv
from sr_deploy.video.convert import ToFrames, ToPixels

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from typing import Any

    import av

    from sr_deploy.engine import Engine
    from sr_deploy.video.color import Color

_log = logging.getLogger(__name__)

_MOST_OF_THE_TIME = 0.9


@dataclass(frozen=True)
class ColorSpec:
    """How frames are to be understood, and what those that come out are to be like.

    Attributes:
        colour: Of the frames that go in.
        colour_out: Of those that come out.
        pixel_format: Of those that come out, in FFmpeg's words.
    """

    colour: Color
    colour_out: Color
    pixel_format: str


class StageMeter:
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
    engine: Engine, frames: Iterable[av.VideoFrame], look: ColorSpec, meter: StageMeter
) -> Generator[av.VideoFrame, None, None]:
    """Yield each frame upscaled, with its own time.

    The source is read in a thread of its own, and so is the network run; what the caller does with
    a frame before it takes the next goes on meanwhile. All frames come out in one size: where that
    of the source changes midway, those that differ are first resized.
    """
    for result, (finish, pts, duration, time_base) in engine.stream(
        _pixels(engine, frames, look, meter), reuse=True
    ):
        got = time.monotonic()
        frame = finish(result)
        frame.pts, frame.duration, frame.time_base = pts, duration, time_base
        yield frame
        meter.writing += time.monotonic() - got


def _pixels(
    engine: Engine, frames: Iterable[av.VideoFrame], look: ColorSpec, meter: StageMeter
) -> Iterator[tuple[Any, Any]]:
    """Yield what the engine takes of each frame; with it, what makes frames again, and its time."""
    first: tuple[int, int, str] | None = None
    changed = False
    start = time.monotonic()
    for frame in frames:
        kind = (frame.width, frame.height, frame.format.name)
        if first is None:
            first = kind
            take, finish = _conversions(engine, frame, look)
        if kind != first:
            if not changed:
                _log.warning("%s", _change(frame, first))
            changed = True
            width, height, name = first
            frame = frame.reformat(width, height, name, interpolation="BICUBIC")
        item = take(frame), (finish, frame.pts, frame.duration, frame.time_base)
        meter.reading += time.monotonic() - start
        yield item
        start = time.monotonic()


def _conversions(
    engine: Engine, frame: av.VideoFrame, look: ColorSpec
) -> tuple[Callable[[av.VideoFrame], Any], Callable[[Any], av.VideoFrame]]:
    """Return what makes pixels of frames like this one, and frames of pixels."""
    colour = look.colour.meant(frame.format.name, frame.width, frame.height)
    if native_yuv.fit(engine, frame, colour, look.pixel_format):
        return (
            lambda each: native_yuv.from_frame(each, colour),
            lambda result: native_yuv.to_frame(result, look.pixel_format),
        )
    return ToPixels(colour), ToFrames(look.pixel_format, look.colour_out)


def _change(frame: av.VideoFrame, first: tuple[int, int, str]) -> str:
    width, height, name = first
    return (
        f"from {frame.time or 0.0:.3f} s on, frames are {frame.width}x{frame.height} in "
        f"{frame.format.name} in place of {width}x{height} in {name}; those that differ are "
        "converted to what the first were"
    )
