"""A video source: every frame that can be decoded, in order, with its exact time."""

from __future__ import annotations

import itertools
import math
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av
from av.sidedata.sidedata import Type

from sr_deploy import machine
from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video.color import Color, HdrMetadata
from sr_deploy.video.decode import Reader
from sr_deploy.video.filters import checked_crop, filtered, selected, timestamped

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator, Mapping

    from av.container import InputContainer
    from av.sidedata.sidedata import SideData

_HEAD = 4
"""Frames decoded before the first is returned, to recognize interlaced video."""
_BACK = (0, 2, 10, 60)
"""Seconds before a time at which decoding starts, tried until its frame is found."""
_PROGRESSIVE = (0, 1)
"""FFmpeg's field orders "unknown" and "progressive"."""


@dataclass(frozen=True)
class VideoInfo:
    """Properties of a video that are known before all of it is read.

    Attributes:
        width: Of the frames, after cropping.
        height: Likewise.
        stream: Index of the video stream in the file.
        codec: FFmpeg's name of the codec (h264).
        container: FFmpeg's name of the format (mov,mp4,m4a,3gp,3g2,mj2).
        pixel_format: Of the decoded frames (yuv420p10le).
        bits: Of one sample.
        time_base: Of all timestamps.
        rate: Average frames per second of the selected frames; None if unknown.
        aspect: Sample aspect ratio; None if unspecified.
        color: Color tags.
        hdr: HDR10 metadata; None if missing.
        display_matrix: Rotation and mirroring for display, in FFmpeg's fixed-point numbers; None
            if missing.
        interlaced: Frames consist of two fields.
        frames: Estimated number of selected frames; None if unknown.
        duration: Of the selected part in seconds; None if unknown.
        zero: Time in seconds at which the file begins; start and end count from there.
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
    color: Color
    hdr: HdrMetadata | None
    display_matrix: tuple[int, ...] | None
    interlaced: bool
    frames: int | None
    duration: Fraction | None
    zero: Fraction = Fraction(0)


@dataclass(frozen=True)
class FrameSelection:
    """The frames of a video that are used, and how they are read.

    Attributes:
        start: Seconds from the beginning of the video; frames before are dropped.
        end: Seconds from the beginning of the video; frames from there on are dropped.
        every: One frame of so many is used.
        crop: Left, top, width and height of the used part of every frame.
        deinterlace: Interlaced video is deinterlaced, one frame for each pair of fields.
        hardware: Device for decoding ("cuda", "vaapi", "qsv", "videotoolbox", ...).

    Raises:
        InvalidInputError: A number is out of range.
    """

    start: float | None = None
    end: float | None = None
    every: int = 1
    crop: tuple[int, int, int, int] | None = None
    deinterlace: bool = False
    hardware: str | None = None

    def __post_init__(self) -> None:
        if self.start is not None and not self.start >= 0:
            raise InvalidInputError(f"start {self.start}: must be at least 0 seconds")
        if self.end is not None and not self.end > (self.start or 0):
            raise InvalidInputError(
                f"end {self.end}: must be after the start, {self.start or 0} seconds"
            )
        if self.every < 1:
            raise InvalidInputError(f"every {self.every}: must be at least 1, for every frame")


class VideoSource:
    """An open video file, whose frames are read in order, once; a context manager.

    Args:
        path: The file.
        selection: Which frames; None for all.
        threads: Of the decoder; None for the number of physical cores.

    Attributes:
        path: The file.
        info: Properties of the video.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: The selection does not fit, or the video is interlaced or too large.
        VideoError: The file has no video that can be read.
    """

    info: VideoInfo

    def __init__(
        self,
        path: str | os.PathLike[str],
        selection: FrameSelection | None = None,
        *,
        threads: int | None = None,
    ) -> None:
        self.path = path
        self._selection = selection = selection or FrameSelection()
        self._threads = threads or machine.cores()
        self._readers: list[Reader] = []
        self._reader = self._open()
        try:
            frames = self._reader.frames()
            head = list(itertools.islice(frames, _HEAD))
            if not head:
                reason = "; ".join(self.damage) or "the stream is empty"
                raise VideoError(f"{path}: no frame could be decoded: {reason}")
            self._first_pts = head[0].pts
            self._frames = itertools.chain(head, frames)
            self.info = self._described(head)
            if self.info.interlaced and not selection.deinterlace:
                raise InvalidInputError(
                    f"{path}: the video is interlaced (each frame holds two moments in alternate "
                    "rows), which upscaling would garble; add --deinterlace"
                )
            time_base, zero = self._reader.time_base, self.info.zero
            self._start, self._end = (
                None if at is None else math.ceil((zero + Fraction(str(at))) / time_base)
                for at in (selection.start, selection.end)
            )
        except BaseException:
            self.close()
            raise

    def _open(self) -> Reader:
        hardware = self._selection.hardware
        self._readers.append(Reader(self.path, threads=self._threads, hardware=hardware))
        return self._readers[-1]

    def _described(self, head: list[av.VideoFrame]) -> VideoInfo:
        reader, selection, first = self._reader, self._selection, head[0]
        stream, context = reader.stream, reader.context
        full = first.width, first.height
        size = full if selection.crop is None else checked_crop(selection.crop, first)[2:]
        field_order = getattr(context, "field_order", _PROGRESSIVE[0])  # not in older PyAV
        rate = None if reader.rate is None else reader.rate / selection.every
        begin = cast("int | None", reader.container.start_time)
        seconds = self._selected_seconds(reader.seconds)
        matrix = cast("Mapping[Type, SideData]", first.side_data).get(Type.DISPLAYMATRIX)
        return VideoInfo(
            *size,
            stream=stream.index,
            codec=context.codec.canonical_name,
            container=reader.container.format.name,
            pixel_format=first.format.name,
            bits=max((part.bits for part in first.format.components), default=8),
            time_base=reader.time_base,
            rate=rate,
            aspect=stream.sample_aspect_ratio or None,
            color=Color.from_frame(first, context).resized(first.format.name, full, size),
            hdr=HdrMetadata.from_frame(first),
            display_matrix=None if matrix is None else struct.unpack("=9i", bytes(matrix)[:36]),
            interlaced=field_order not in _PROGRESSIVE or any(f.interlaced_frame for f in head),
            frames=None if seconds is None or rate is None else round(seconds * rate),
            duration=seconds,
            zero=(
                (first.pts or 0) * reader.time_base
                if begin is None
                else Fraction(begin, av.time_base)
            ),
        )

    def _selected_seconds(self, total: Fraction | None) -> Fraction | None:
        start, end = self._selection.start, self._selection.end
        stop = total
        if end is not None and (total is None or total >= Fraction(str(end))):
            stop = Fraction(str(end))
        return None if stop is None else max(Fraction(0), stop - Fraction(str(start or 0)))

    @property
    def container(self) -> InputContainer:
        """The open file: its streams and tags; its packets belong to the decoder."""
        return self._readers[0].container

    @property
    def damage(self) -> tuple[str, ...]:
        """Problems while reading so far, one sentence each."""
        return self._reader.damage.notes

    def frames(self, after: int | None = None) -> Iterator[av.VideoFrame]:
        """Return the selected frames, with `pts`, `duration` and `time_base`; call this once.

        Timestamps increase strictly. Frames may change their size or format midway.

        Args:
            after: Timestamp of a selected frame, in the time base: only frames after it follow.
                Decoding starts at a keyframe near it.

        Raises:
            VideoError: There is no such frame.
        """
        target = self._start if after is None else after
        if target is None or self._first_pts is None or self._first_pts >= target:
            result = self._select(self._frames, after)
            if result is not None:
                return result
        else:
            for back in (*_BACK, None):
                frames = self._decode_from(target, back)
                result = None if frames is None else self._select(frames, after)
                if result is not None:
                    return result
        raise VideoError(
            f"{self.path}: no frame at {float((after or 0) * self._reader.time_base):.3f} s, "
            "where the interrupted job stopped; the file is not the same as before"
        )

    def _decode_from(self, target: int, back: int | None) -> Iterator[av.VideoFrame] | None:
        """Return the frames from a keyframe before a time; None if they would begin after it.

        Args:
            target: The time.
            back: Seconds by which the keyframe is at least earlier; None for the beginning, which
                not every container can seek to: the file is opened again.
        """
        if back is None:
            self._reader = self._open()
            return self._reader.frames()
        if not self._reader.seek(target - round(back / self._reader.time_base)):
            return None
        frames = self._reader.frames()
        first = next(frames, None)
        if first is None or first.pts is None or first.pts > target:
            return None
        return itertools.chain([first], frames)

    def _select(
        self, frames: Iterable[av.VideoFrame], after: int | None
    ) -> Iterator[av.VideoFrame] | None:
        """Return the selected frames; None if the one at `after` is missing."""
        selection, time_base = self._selection, self._reader.time_base
        step = 1 / ((self._reader.rate or 25) * time_base)
        frames = timestamped(frames, time_base, step, deinterlace=selection.deinterlace)
        frames = filtered(
            frames,
            time_base,
            crop=selection.crop,
            deinterlace=selection.deinterlace,
            threads=self._threads,
        )
        start = self._start if after is None else after
        result = selected(frames, start, self._end, selection.every, step)
        if after is None:
            return result
        first = next(result, None)
        return result if first is not None and first.pts == after else None

    def close(self) -> None:
        """Close the file; no other thread may be reading from it."""
        for reader in self._readers:
            reader.close()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
