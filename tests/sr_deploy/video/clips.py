"""Synthetic videos for tests, made with PyAV: any codec, pixel format, size, rate and tags."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

Planes = list[NDArray[Any]]

LOSSLESS: Mapping[str, str] = {"qp": "0", "preset": "ultrafast"}
"""Options for lossless libx264."""

INTERLACED: Mapping[str, str] = {"flags": "+ildct+ilme", "x264-params": "tff=1"}
"""Options for interlaced libx264, top field first."""

HDR10: Mapping[str, str] = {
    "preset": "ultrafast",
    "x265-params": (
        "log-level=none:hdr10=1:repeat-headers=1:max-cll=1000,400:"
        "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    ),
}
"""Options for libx265 with a mastering display (1000 cd/m2) and content light levels."""


@dataclass(frozen=True)
class Tags:
    """Color tags in FFmpeg's numbers; 2, or 0 for the range, is unspecified."""

    matrix: int = 2
    range: int = 0
    primaries: int = 2
    transfer: int = 2


PQ = Tags(matrix=9, range=1, primaries=9, transfer=16)
"""BT.2020 with the transfer of HDR10."""
FULL_BT709 = Tags(matrix=1, range=2, primaries=1, transfer=1)


@dataclass(frozen=True)
class Clip:
    """A video; `write` encodes it.

    Attributes:
        count: Frames.
        codec: An encoder's name.
        pixel_format: Of the encoded frames.
        size: Width and height.
        rate: Frames a second, as the container says it.
        pts: When each frame is shown, in `time_base`; none: one after the other at `rate`.
        start: Is added to every `pts`.
        time_base: None: one frame at `rate` is one unit.
        aspect: Of one sample.
        options: Of the encoder.
    """

    count: int = 10
    codec: str = "libx264"
    pixel_format: str = "yuv420p"
    size: tuple[int, int] = (64, 48)
    rate: Fraction = Fraction(25)
    pts: Sequence[int] = ()
    start: int = 0
    time_base: Fraction | None = None
    tags: Tags = Tags()
    aspect: Fraction | None = None
    options: Mapping[str, str] = field(default_factory=dict)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield the frames as they go into the encoder."""
        for index in range(self.count):
            frame = picture(self.pixel_format, *self.size, index)
            frame.pts = self.start + (self.pts[index] if self.pts else index)
            frame.time_base = self._time_base()
            yield frame

    def write(self, path: Path, frames: Iterable[av.VideoFrame] | None = None) -> Path:
        """Encode the clip's frames, or the given ones with its settings, and return the path."""
        with av.open(str(path), "w") as container:
            stream = container.add_stream(self.codec, rate=self.rate, options=dict(self.options))
            assert isinstance(stream, av.VideoStream)
            self.configure(stream.codec_context)
            stream.time_base = self._time_base()
            for frame in self.frames() if frames is None else frames:
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    def configure(self, context: av.VideoCodecContext) -> None:
        """Put the clip's settings on an encoder."""
        context.width, context.height = self.size
        context.pix_fmt = self.pixel_format
        context.time_base = self._time_base()
        context.colorspace = self.tags.matrix
        context.color_range = self.tags.range
        context.color_primaries = self.tags.primaries
        context.color_trc = self.tags.transfer
        context.thread_count = 1
        if self.aspect is not None:
            context.sample_aspect_ratio = self.aspect

    def _time_base(self) -> Fraction:
        return self.time_base or 1 / self.rate


# As cameras and encoders deliver videos: with B-frames, of common codecs, ranges and depths.
DELIVERED: Mapping[str, Clip] = {
    "h264 of full range": Clip(45, tags=FULL_BT709),
    "h264 of 10 bits": Clip(45, pixel_format="yuv420p10le", rate=Fraction(30)),
    "hevc": Clip(20, codec="libx265", rate=Fraction(10), options={"x265-params": "log-level=none"}),
}


def picture(pixel_format: str, width: int, height: int, index: int = 0) -> av.VideoFrame:
    """Return a frame that differs for each index: moving waves with a little noise."""
    random = np.random.default_rng([index, width, height])
    frame = av.VideoFrame(width, height, pixel_format)
    bits = max(component.bits for component in frame.format.components)
    planes = []
    for number, plane in enumerate(empty_planes(frame)):
        y, x = np.mgrid[: plane.shape[0], : plane.shape[1]]
        wave = np.sin(x / 9 + index / 3 + number) + np.cos(y / 7 - index / 5)
        wave += random.uniform(-0.2, 0.2, plane.shape)
        # Small amplitudes: every color is within RGB for all matrices and ranges.
        values = (0.5 + (0.1 if number == 0 else 0.04) * wave) * ((1 << bits) - 1)
        planes.append(values.astype(plane.dtype) << _shift(pixel_format))
    return put(frame, planes)


def put(frame: av.VideoFrame, planes: Planes) -> av.VideoFrame:
    """Fill a frame's planes with samples, and return it."""
    for target, samples in zip(_views(frame), planes, strict=True):
        target[...] = samples
    return frame


def planes(frame: av.VideoFrame) -> Planes:
    """Return a copy of each plane's samples; several components of one plane lie side by side."""
    return [view.copy() for view in _views(frame)]


def empty_planes(frame: av.VideoFrame) -> Planes:
    """Return an array of the shape and dtype of each of a frame's planes."""
    return [np.empty_like(view) for view in _views(frame)]


def decoded(path: Path) -> list[av.VideoFrame]:
    """Return all frames of a video's first video stream."""
    with av.open(str(path)) as container:
        return list(container.decode(video=0))


def truncated(path: Path, share: float) -> Path:
    """Truncate a file to a share of its bytes, and return its path.

    Files of which more than the end is then lost (MP4 with its index at the end) cannot be read
    at all; Matroska and transport streams can.
    """
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def _views(frame: av.VideoFrame) -> Iterator[NDArray[Any]]:
    """Yield each plane as an array (rows, samples) that shares the frame's memory."""
    deep = max(component.bits for component in frame.format.components) > 8
    dtype = np.dtype("<u2" if deep else "u1")
    for number, plane in enumerate(frame.planes):
        components = [part for part in frame.format.components if part.plane == number]
        rows = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
        yield rows[:, : plane.width * len(components)]


def _shift(pixel_format: str) -> int:
    """Return by how many bits samples are moved up (P010 has its ten at the top)."""
    return {"p010le": 6, "p012le": 4}.get(pixel_format, 0)
