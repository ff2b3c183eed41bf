"""Decoding of one video stream: every frame that can be decoded, and notes on the damage."""

from __future__ import annotations

import os
import stat
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.stream import Disposition

from sr_deploy.errors import InvalidInputError, NotFoundError, VideoError
from sr_deploy.video import matroska

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer

LARGEST_PIXELS = 1 << 28
"""Largest frame size in pixels; a header with a larger one is refused."""

_HAS_DURATION = ("matroska", "mov", "avi", "asf")
"""Containers with a duration in the header; for others, FFmpeg estimates it."""
_TOLERANCE = Fraction(1, 2)
"""Seconds that may be missing at the end: header durations are rounded, or those of the audio."""
_TS_PACKETS = (188, 192, 204)
"""Sizes of the packets of a transport stream."""
# PyAV 19 replaces bytes that are not UTF-8 itself and no longer has this option.
_METADATA = {"metadata_errors": "replace"} if int(av.__version__.partition(".")[0]) < 19 else {}


def open_container(path: str | os.PathLike[str], hardware: str | None = None) -> InputContainer:
    """Open a file for reading; metadata that is not UTF-8 is replaced, not refused."""
    options: dict[str, Any] = dict(_METADATA)
    if hardware is not None:
        options["hwaccel"] = HWAccel(hardware, allow_software_fallback=False)
    return av.open(os.fspath(path), **options)


class Damage:
    """Notes on what could not be read; equal ones are counted."""

    def __init__(self) -> None:
        self._times: dict[str, list[float | None]] = {}

    def note(self, problem: str, seconds: float | None) -> None:
        """Add a problem and the time after which it occurred; None for the beginning."""
        self._times.setdefault(problem, []).append(seconds)

    @property
    def notes(self) -> tuple[str, ...]:
        """One sentence for each kind of problem."""
        sentences = []
        for problem, times in self._times.items():
            first, last = (
                "at the beginning" if time is None else f"after {time:.3f} s"
                for time in (times[0], times[-1])
            )
            count = f" ({len(times)} times, last {last})" if len(times) > 1 else ""
            sentences.append(f"{first}: {problem}{count}")
        return tuple(sentences)


class Reader:
    """Decodes the main video stream of a file, from its beginning or from a keyframe.

    Args:
        path: The file.
        threads: Of the decoder.
        hardware: Device for decoding; None for the CPU.

    Attributes:
        container: The open file.
        stream: Its main video stream: no cover picture; the default one, then the largest.
        context: The stream's decoder.
        damage: Notes on what could not be read since the beginning or the last `seek`.

    Raises:
        NotFoundError: There is no such file.
        InvalidInputError: The device is not available, or the frames are too large.
        VideoError: The file has no video that can be read.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, threads: int, hardware: str | None = None
    ) -> None:
        self._path = os.fspath(path)
        self._hardware = hardware
        self._last: float | None = None
        # AVI has decoding times only; this is added to them for presentation times.
        self._avi_shift: int | None = None
        self.damage = Damage()
        self.container = self._opened()
        try:
            self.stream = self._main_stream()
            self.context = self.stream.codec_context
            width, height = self.context.width, self.context.height
            if width * height > LARGEST_PIXELS:
                raise InvalidInputError(
                    f"{self._path}: the header has a frame size of {width}x{height} pixels; the "
                    f"maximum is {LARGEST_PIXELS / 1e6:.0f} million pixels"
                )
            self.context.thread_count = threads
            self.context.thread_type = "AUTO"
            self.context.options = {"max_pixels": str(LARGEST_PIXELS)}
        except BaseException:
            self.close()
            raise

    def _opened(self) -> InputContainer:
        if self._hardware is not None and self._hardware not in (known := hwdevices_available()):
            raise InvalidInputError(
                f"hardware {self._hardware!r}: this FFmpeg supports "
                f"{', '.join(sorted(known)) or 'none'}"
            )
        try:
            return open_container(self._path, self._hardware)
        except FileNotFoundError:
            raise NotFoundError(f"{self._path}: no such file") from None
        except (av.error.FFmpegError, OSError) as error:
            reason = error.strerror or error
            if isinstance(error, av.error.InvalidDataError):
                reason = "not a video, or truncated before its index"
            elif self._hardware is not None:
                raise self._no_hardware(reason) from error
            raise VideoError(f"{self._path}: cannot be read: {reason}") from error
        except RuntimeError as error:  # PyAV: no such device, or built without support for it
            if self._hardware is None:
                raise
            raise self._no_hardware(error) from error

    def _no_hardware(self, reason: object) -> InvalidInputError:
        return InvalidInputError(
            f"{self._path}: cannot be decoded with {self._hardware!r} on this machine ({reason}); "
            "leave out the option to decode on the CPU"
        )

    def _main_stream(self) -> av.VideoStream:
        streams = [
            stream
            for stream in self.container.streams.video
            if not stream.disposition & Disposition.attached_pic and stream.codec_context
        ]
        if not streams:
            raise VideoError(f"{self._path}: no video stream that can be decoded")

        def rank(stream: av.VideoStream) -> tuple[bool, int, int]:
            default = bool(stream.disposition & Disposition.default)
            return default, stream.width * stream.height, -stream.index

        return max(streams, key=rank)

    @property
    def time_base(self) -> Fraction:
        """Of the stream's timestamps."""
        return self.stream.time_base or Fraction(1, av.time_base)

    @property
    def rate(self) -> Fraction | None:
        """Frames per second, on average; None if unknown."""
        return self.stream.average_rate or self.stream.guessed_rate or None

    @property
    def seconds(self) -> Fraction | None:
        """Duration of the video; None if unknown."""
        if self.stream.duration is not None:
            return self.stream.duration * self.time_base
        if self.container.duration is not None:
            return Fraction(self.container.duration, av.time_base)
        return None

    def seek(self, pts: int) -> bool:
        """Go to a keyframe at or before a time; return whether the file can do that.

        Afterwards `frames` may still begin later, or with a damaged frame.
        """
        try:
            self.container.seek(pts, stream=self.stream)
        except (av.error.FFmpegError, OSError):
            return False
        self.context.flush_buffers()
        self.damage, self._last = Damage(), None
        return True

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield every frame that can be decoded, in display order; note the damage."""
        ends: dict[int, Fraction] = {}
        failed = False
        packets = self.container.demux()
        while True:
            try:
                packet = next(packets, None)
            except (av.error.FFmpegError, OSError) as error:
                self.damage.note(f"the file could not be read ({error.strerror})", self._last)
                if failed:  # twice in a row
                    break
                failed = True
                packets = self.container.demux()
                continue
            if packet is None:
                break
            failed = False
            if not packet.size:
                continue  # PyAV's signs of the end
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                ends[packet.stream_index] = max(end, ends.get(packet.stream_index, end))
            if packet.stream_index == self.stream.index:
                yield from self._decode(packet)
        yield from self._decode(None)
        self._note_truncation(ends)

    def _decode(self, packet: av.Packet[Any] | None) -> list[av.VideoFrame]:
        """Return the frames that a packet completes; None, after the last, for the rest."""
        try:
            frames = self.context.decode(packet)
        except (av.error.FFmpegError, OSError) as error:
            self.damage.note(f"a frame could not be decoded ({error.strerror})", self._last)
            return []
        for frame in frames:
            if frame.is_corrupt:
                self.damage.note("a frame was decoded only in part", self._last)
            if self.container.format.name == "avi":
                if self._avi_shift is None and frame.dts is not None:
                    self._avi_shift = (self.stream.start_time or 0) - frame.dts
                frame.pts = None if frame.dts is None else frame.dts + (self._avi_shift or 0)
            if frame.pts is not None:
                self._last = float(frame.pts * self.time_base)
        return frames

    def _note_truncation(self, ends: dict[int, Fraction]) -> None:
        """Compare the ends of the streams with the announced duration, the file with its size."""
        announced = end = Fraction(0)
        if ends and self.container.format.name.startswith(_HAS_DURATION):
            if self.stream.duration is not None and self.stream.index in ends:
                start, end = self.stream.start_time or 0, ends[self.stream.index]
                announced = (start + self.stream.duration) * self.time_base
            elif self.container.duration is not None:
                # Matroska counts from 0, others from their first frame: the smaller is certain.
                end = max(ends.values())
                announced = Fraction(self.container.duration, av.time_base)
        if end + _TOLERANCE < announced:
            self.damage.note(
                f"the file is truncated: its header announces {float(announced):.3f} s", float(end)
            )
        elif size := truncated_size(Path(self._path), self.container.format.name):
            self.damage.note(f"the file is truncated: {size}", self._last)

    def close(self) -> None:
        """Close the file; no other thread may be reading from it."""
        self.container.close()


def truncated_size(path: Path, container: str) -> str | None:
    """Return how the size of a file contradicts its structure; None if it does not.

    Args:
        path: The file; only regular ones are checked.
        container: FFmpeg's name of its format.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            return None
        with path.open("rb") as file:
            if container.startswith("matroska"):
                announced = matroska.announced_size(file.read(4096))
            elif container == "avi":  # 0 and all ones: written to a pipe
                size = int.from_bytes(file.read(8)[4:], "little")
                announced = None if size == 0xFFFFFFFF else 8 + size
            elif container.startswith("mov"):
                announced = _announced_mp4_size(file, status.st_size)
            elif container.startswith("mpegts"):
                return _partial_ts_packet(file.read(4096), status.st_size)
            else:
                return None
    except OSError:
        return None
    if announced is None or announced <= status.st_size:
        return None
    return f"it announces {announced} bytes and has {status.st_size}"


def _announced_mp4_size(file: Any, size: int) -> int | None:
    """Return the end of the box of MP4 that crosses the end of the file; None if none does."""
    start = 0
    while start + 8 <= size:
        file.seek(start)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # up to the end of the file, or no box
            return None
        start += length
        if start > size:
            # Whatever a camera appends to the boxes is not taken for one.
            return start if head[4:8] in (b"mdat", b"moov", b"moof") else None
    return None


def _partial_ts_packet(head: bytes, size: int) -> str | None:
    for length in _TS_PACKETS:
        offset = 4 if length == 192 else 0
        if all(byte == 0x47 for byte in head[offset::length]) and len(head) > 2 * length:
            rest = size % length
            return f"its last packet has {rest} of {length} bytes" if rest else None
    return None
