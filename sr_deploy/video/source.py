"""Reading a video: every frame that can be decoded, in order, with its exact time."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from fractions import Fraction
from typing import TYPE_CHECKING, cast

import av

from sr_deploy import machine
from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video.decode import Reader
from sr_deploy.video.filters import checked_crop, filtered
from sr_deploy.video.info import described
from sr_deploy.video.timestamps import chosen, lasting, timed

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable, Iterator

    from sr_deploy.video.info import Info

_log = logging.getLogger(__name__)

_AHEAD = 4
"""Frames that are looked at before the first is given out: are they interlaced?"""
_BACK = (0, 2, 10, 60)
"""Seconds further back from where decoding is begun, until the frame wanted is met."""


class VideoSource:
    """A video file whose frames are read in order; use it with `with`.

    Args:
        path: The file.
        threads: Of the decoder; None: as many as this process has real cores.
        hardware: Decode on such a device ("cuda", "vaapi", "qsv", "videotoolbox", ...).
        start: Seconds from the beginning of the video: frames before that are left out.
        end: Seconds from the beginning of the video: frames from there on are left out.
        every: Take one frame of so many.
        crop: Left, top, width and height of what is cut out of every frame.
        deinterlace: Make frames of the fields of interlaced video, one of each two.
        start_after: A timestamp, in the stream's time base: of the frames that would come, those
            up to this one are left out. They are not all decoded again.

    Raises:
        NotFoundError: there is no such file.
        InvalidInputError: an argument does not fit the video, it is interlaced, or too large.
        VideoError: the file holds no video that can be read.

    Attributes:
        info: What the video is.
    """

    info: Info

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int | None = None,
        hardware: str | None = None,
        start: float | None = None,
        end: float | None = None,
        every: int = 1,
        crop: tuple[int, int, int, int] | None = None,
        deinterlace: bool = False,
        start_after: int | None = None,
    ) -> None:
        _check_cut(start, end, every)
        self._path, self._every, self._deinterlace = path, every, deinterlace
        self._threads = threads or machine.cores()
        self._open = functools.partial(Reader, path, threads=self._threads, hardware=hardware)
        self._reader = self._open()
        try:
            frames = self._reader.frames()
            head = list(itertools.islice(frames, _AHEAD))
            if not head:
                reason = "; ".join(self.damage) or "it has none"
                raise VideoError(f"{path}: no frame could be decoded: {reason}")
            self._crop = None if crop is None else checked_crop(crop, head[0])
            zero = _zero(self._reader, head[0])
            self._start, self._end = (
                None if at is None else math.ceil((zero + _exact(at)) / self._reader.time_base)
                for at in (start, end)
            )
            self.info = described(
                self._reader, head, zero, crop=self._crop, seconds=self._seconds(zero), every=every
            )
            if self.info.interlaced and not deinterlace:
                raise InvalidInputError(
                    f"{path}: it is interlaced (each frame holds two moments, in alternate rows), "
                    "which would be upscaled wrongly; have it deinterlaced (--deinterlace)"
                )
            self._frames = self._begun(itertools.chain(head, frames), head[0], start_after)
        except BaseException:
            self.close()
            raise

    @property
    def damage(self) -> tuple[str, ...]:
        """What could not be read so far, and where, in plain words; empty: nothing."""
        return self._reader.damage.notes

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield each frame with its `pts`, `duration` and `time_base`; once.

        Timestamps increase strictly. A file may change its frames' size or format midway.
        """
        return self._frames

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def __enter__(self) -> VideoSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begun(
        self, frames: Iterator[av.VideoFrame], first: av.VideoFrame, after: int | None
    ) -> Iterator[av.VideoFrame]:
        """Return the frames that are wanted, decoded from a keyframe near where they begin.

        Args:
            frames: All of them, from the beginning.
            first: The first of those.
            after: As `start_after` of this class.
        """
        target = self._start if after is None else after
        if target is None or first.pts is None or first.pts >= target:
            target = first.pts if target is None else target
            tries: Iterable[Iterator[av.VideoFrame] | None] = iter([frames])
        else:
            tries = (self._from(target, back) for back in (*_BACK, None))
        for found in tries:
            wanted = None if found is None else self._wanted(found, after)
            if wanted is not None:
                return wanted
        raise VideoError(
            f"{self._path}: no frame is at {float((after or 0) * self._reader.time_base):.3f} s, "
            "where the work was to go on; it is not the file that was read before"
        )

    def _from(self, target: int, back: int | None) -> Iterator[av.VideoFrame] | None:
        """Decode again from a keyframe before a time; None: what is decoded begins too late.

        Args:
            target: The time.
            back: So many seconds before it; None: from the beginning.
        """
        self._reader.close()
        self._reader = self._open(shift=self._reader.shift)
        frames = self._reader.frames()
        if back is None:
            return frames
        if not self._reader.seek(target - round(back / self._reader.time_base)):
            return None
        first = next(frames, None)
        if first is None or first.pts is None or first.pts > target:
            return None
        return itertools.chain([first], frames)

    def _wanted(
        self, frames: Iterator[av.VideoFrame], after: int | None
    ) -> Iterator[av.VideoFrame] | None:
        """Return those of the frames that are to come; None: the one `after` is not there."""
        time_base, step = self._reader.time_base, self._step()
        ready = filtered(
            self._watched(timed(frames, time_base, step)),
            time_base,
            crop=self._crop,
            deinterlace=self._deinterlace,
            threads=self._threads,
        )
        start = self._start if after is None else after
        result = chosen(lasting(ready, step), start, self._end, self._every)
        if after is None:
            return result
        last = next(result, None)
        return result if last is not None and last.pts == after else None

    def _watched(self, frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Warn of interlaced frames that begin midway."""
        told = self._deinterlace
        for frame in frames:
            if frame.interlaced_frame and not told:
                told = True
                _log.warning(
                    "from %.3f s on, frames are interlaced; they are upscaled as they are "
                    "(--deinterlace would deinterlace them)",
                    frame.time or 0.0,
                )
            yield frame

    def _step(self) -> Fraction:
        """Return the usual time from one frame to the next, in the time base."""
        rate = self._reader.rate or Fraction(25)
        return 1 / (rate * self._reader.time_base)

    def _seconds(self, zero: Fraction) -> Fraction | None:
        """Return how long that is which is taken."""
        total = self._reader.seconds
        start, end = (
            None if at is None else at * self._reader.time_base - zero
            for at in (self._start, self._end)
        )
        if end is None or (total is not None and total < end):
            end = total
        return None if end is None else max(Fraction(0), end - (start or 0))


def _check_cut(start: float | None, end: float | None, every: int) -> None:
    if start is not None and start < 0:
        raise InvalidInputError(f"start {start}: at least 0 seconds")
    if end is not None and end <= (start or 0):
        raise InvalidInputError(f"end {end}: must come after the start, {start or 0} seconds")
    if every < 1:
        raise InvalidInputError(f"every {every}: at least 1, which takes every frame")


def _exact(seconds: float) -> Fraction:
    """Return the number as it was written: 0.1 is a tenth."""
    return Fraction(str(seconds))


def _zero(reader: Reader, first: av.VideoFrame) -> Fraction:
    """Return when the file begins."""
    begin = cast("int | None", reader.container.start_time)
    if begin is not None:
        return Fraction(begin, av.time_base)
    return (first.pts or 0) * reader.time_base
