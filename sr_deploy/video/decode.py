"""Decoding one video stream of a file: all that can be decoded, and notes of what cannot."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.stream import Disposition

from sr_deploy.errors import InvalidInputError, NotFoundError, VideoError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.packet import Packet

LARGEST_PIXELS = 1 << 28
"""The largest frames that are decoded, in pixels: a header that states more is refused."""

_STATED = ("matroska", "mov", "avi", "asf")
"""Containers whose header says how long they are; of others, FFmpeg estimates it."""
_SHORT = Fraction(1, 2)
"""Seconds that may be missing at the end: headers are often rounded, or mean the sound."""


class Damage:
    """Notes of what could not be read, like ones taken together."""

    def __init__(self) -> None:
        self._found: dict[str, list[float | None]] = {}

    def note(self, what: str, seconds: float | None) -> None:
        """Note that something happened after a time; None: at the beginning."""
        self._found.setdefault(what, []).append(seconds)

    @property
    def notes(self) -> tuple[str, ...]:
        """A sentence for each kind."""
        return tuple(_sentence(what, times) for what, times in self._found.items())


def _sentence(what: str, times: list[float | None]) -> str:
    first, last = (
        "at the beginning" if time is None else f"after {time:.3f} s"
        for time in (times[0], times[-1])
    )
    return f"{first}: {what}" + (f" ({len(times)} times, last {last})" if len(times) > 1 else "")


class Reader:
    """An open file, of which one video stream is decoded from the beginning or from a keyframe.

    Args:
        path: The file.
        threads: Of the decoder.
        hardware: The device that decodes; None: the processor.
        shift: Of an earlier reader of the same file.

    Attributes:
        container: The open file.
        stream: Its main video stream.
        context: The stream's decoder.
        damage: Notes of what could not be read.
        shift: From when a frame was decoded to when it is shown, in containers that only say the
            former (AVI); None: not met yet.

    Raises:
        NotFoundError, InvalidInputError, VideoError: as `Source` says.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        threads: int,
        hardware: str | None,
        shift: int | None = None,
    ) -> None:
        self._path = os.fspath(path)
        self._hardware = hardware
        self.damage = Damage()
        self.shift = shift
        self.container = self._opened()
        try:
            self.stream = self._chosen()
            self.context = self.stream.codec_context
            self._check_size(self.context.width, self.context.height)
            self.context.thread_count = threads
            self.context.thread_type = "AUTO"
            self.context.options = {"max_pixels": str(LARGEST_PIXELS)}
        except BaseException:
            self.close()
            raise
        self._last: float | None = None

    def _opened(self) -> av.container.InputContainer:
        try:
            return av.open(self._path, hwaccel=_accelerator(self._hardware))
        except FileNotFoundError:
            raise NotFoundError(f"{self._path}: no such file") from None
        except (av.error.FFmpegError, OSError) as error:
            reason = error.strerror or error
            if isinstance(error, av.error.InvalidDataError):
                reason = "not a video, or its index is missing because it was cut off"
            elif self._hardware is not None:
                raise self._no_hardware(reason) from error
            raise VideoError(f"{self._path}: cannot be read: {reason}") from error
        except RuntimeError as error:
            if self._hardware is None:
                raise
            # What PyAV says of a device that is not there, or that it was built without.
            raise self._no_hardware(error) from error

    def _no_hardware(self, reason: object) -> InvalidInputError:
        return InvalidInputError(
            f"{self._path}: cannot be decoded with {self._hardware!r} on this machine ({reason}); "
            "leave it out to decode on the processor"
        )

    def _chosen(self) -> av.VideoStream:
        """Return the main video stream: no cover picture; the default one, then the largest."""
        streams = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & Disposition.attached_pic and stream.codec_context
        ]
        if not streams:
            raise VideoError(f"{self._path}: holds no video that can be decoded")

        def rank(stream: av.VideoStream) -> tuple[bool, int, int]:
            default = bool(stream.disposition & Disposition.default)
            return default, stream.width * stream.height, -stream.index

        return max(streams, key=rank)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > LARGEST_PIXELS:
            raise InvalidInputError(
                f"{self._path}: its header states {width}x{height} pixels; at most "
                f"{LARGEST_PIXELS / 1e6:.0f} million are decoded"
            )

    @property
    def time_base(self) -> Fraction:
        """Of the stream's times."""
        return self.stream.time_base or Fraction(1, av.time_base)

    @property
    def rate(self) -> Fraction | None:
        """Frames a second, on average; None: not known."""
        return self.stream.average_rate or self.stream.guessed_rate or None

    @property
    def seconds(self) -> Fraction | None:
        """How long the video is; None: not known."""
        if self.stream.duration is not None:
            return self.stream.duration * self.time_base
        if self.container.duration is not None:
            return Fraction(self.container.duration, av.time_base)
        return None

    def seek(self, pts: int) -> bool:
        """Go to a keyframe at or before a time, before any frame is decoded.

        Afterwards frames may all the same begin later, or at a damaged one; see `frames`.

        Returns:
            Whether the file can do that.
        """
        try:
            self.container.seek(pts, stream=self.stream)
        except (av.error.FFmpegError, OSError):
            return False
        return True

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield what can be decoded, in the order in which it is shown; note what cannot."""
        for packet in self._packets():
            try:
                frames = self.context.decode(packet)
            except (av.error.FFmpegError, OSError) as error:
                self.damage.note(f"a frame could not be decoded ({error.strerror})", self._last)
                continue
            for frame in frames:
                if frame.is_corrupt:
                    self.damage.note("a frame was decoded only in part", self._last)
                if self.container.format.name == "avi":
                    frame.pts = self._shown(frame)
                if frame.pts is not None:
                    self._last = float(frame.pts * self.time_base)
                yield frame

    def _shown(self, frame: av.VideoFrame) -> int | None:
        """Return when a frame is shown, of a container that says when it is decoded."""
        if frame.dts is None:
            return None
        if self.shift is None:
            self.shift = (self.stream.start_time or 0) - frame.dts
        return frame.dts + self.shift

    def _packets(self) -> Iterator[Packet[Any] | None]:
        """Yield the stream's packets, and None at the end, for what the decoder still holds."""
        ends: dict[int, Fraction] = {}
        failures = 0
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                self.damage.note(f"the file could not be read ({error.strerror})", self._last)
                failures += 1
                if failures > 1:  # nothing came since
                    break
                packets = self.container.demux()
                continue
            if packet is None:
                break
            failures = 0
            if packet.pts is not None and packet.size:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
            if packet.stream_index == self.stream.index and packet.size:
                yield packet
        yield None
        self._note_missing_end(ends)

    def _note_missing_end(self, ends: dict[int, Fraction]) -> None:
        """Compare what was read with how long the header says that it is."""
        if not ends or not self.container.format.name.startswith(_STATED):
            return
        if self.stream.duration is not None and self.stream.index in ends:
            start, end = self.stream.start_time or 0, ends[self.stream.index]
            stated = (start + self.stream.duration) * self.time_base
        elif self.container.duration is not None:
            # Matroska counts from 0, others from their first frame: what is less is sure.
            end = max(ends.values())
            stated = Fraction(self.container.duration, av.time_base)
        else:
            return
        if end + _SHORT < stated:
            self.damage.note(
                f"the file ends, though it says that it is {float(stated):.3f} s long: it was cut "
                "off",
                float(end),
            )

    def close(self) -> None:
        """Close the file."""
        self.container.close()


def _accelerator(hardware: str | None) -> HWAccel | None:
    if hardware is None:
        return None
    known = hwdevices_available()
    if hardware not in known:
        raise InvalidInputError(
            f"hardware {hardware!r}: FFmpeg knows {', '.join(sorted(known)) or 'none'} here"
        )
    return HWAccel(hardware, allow_software_fallback=False)
