"""What is known of a video before all of it was read."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from sr_deploy.video.color import Color
from sr_deploy.video.hdr import Hdr

if TYPE_CHECKING:
    from collections.abc import Sequence

    import av

    from sr_deploy.video.decode import Reader
    from sr_deploy.video.filters import Crop

_PROGRESSIVE = (0, 1)
"""FFmpeg's numbers for the order of fields where there are none, or nobody said."""


@dataclass(frozen=True)
class Info:
    """What a video is, as far as it is known before all of it was read.

    Attributes:
        width: Of its frames, after cropping.
        height: Likewise.
        stream: Index of the video stream in the file.
        codec: Name of its codec (h264).
        container: Name of the file's format (mov,mp4,m4a,3gp,3g2,mj2).
        pixel_format: As it is decoded, in FFmpeg's words (yuv420p10le).
        bits: Of one sample.
        time_base: Of all timestamps.
        rate: Frames a second, on average, of those that come (see `every`); None: not known.
        aspect: Width of a sample through its height; None: not said.
        colour: The colour tags.
        hdr: The HDR10 metadata; None: it has none.
        rotation: Degrees, counter-clockwise, by which it is to be shown turned.
        interlaced: Whether its frames hold two fields.
        frames: About how many frames come; None: not known.
        duration: Seconds, of the frames that come; None: not known.
        zero: The time, in seconds, from which `start` and `end` count: where the file begins.
    """

    width: int
    height: int
    stream: int
    codec: str
    container: str
    pixel_format: str
    bits: int
    time_base: Fraction
    rate: Fraction | None
    aspect: Fraction | None
    colour: Color
    hdr: Hdr | None
    rotation: int
    interlaced: bool
    frames: int | None
    duration: Fraction | None
    zero: Fraction = Fraction(0)


def described(
    reader: Reader,
    head: Sequence[av.VideoFrame],
    zero: Fraction,
    *,
    crop: Crop | None,
    seconds: Fraction | None,
    every: int,
) -> Info:
    """Return what a video is.

    Args:
        reader: Of its file.
        head: Its first frames.
        zero: As in `Info`.
        crop: What is cut out of each frame.
        seconds: How long that is which is taken; None: not known.
        every: How many frames one is taken of.
    """
    stream, context, first = reader.stream, reader.context, head[0]
    full = first.width, first.height
    size = full if crop is None else crop[2:]
    fields = getattr(context, "field_order", _PROGRESSIVE[0])  # not in older PyAV
    rate = None if reader.rate is None else reader.rate / every
    return Info(
        *size,
        stream=stream.index,
        codec=context.codec.canonical_name,
        container=reader.container.format.name,
        pixel_format=first.format.name,
        bits=max((part.bits for part in first.format.components), default=8),
        time_base=reader.time_base,
        rate=rate,
        aspect=stream.sample_aspect_ratio or None,
        colour=Color.of(first, context).carried(first.format.name, full, size),
        hdr=Hdr.of(first),
        rotation=first.rotation,
        interlaced=fields not in _PROGRESSIVE or any(frame.interlaced_frame for frame in head),
        frames=None if seconds is None or rate is None else round(seconds * rate),
        duration=seconds,
        zero=zero,
    )
