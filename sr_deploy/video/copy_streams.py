"""Packets of the source's other streams for the output: cut, shifted, in order."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from sr_deploy.video.source_streams import is_cover, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import InputContainer

    from sr_deploy.video.source_streams import StreamReader
    from sr_deploy.video.streams import StreamCopy

_log = logging.getLogger(__name__)

_MILLISECOND = Fraction(1, 1000)
# The empty text by which MP4 ends another; FFmpeg writes it by itself.
_END_OF_TEXT = b"\0\0"
_NEGLIGIBLE = Fraction(1, 10)
"""Seconds that may be missing without a note: two videos never have equal picture times."""


@dataclass(frozen=True)
class TimeWindow:
    """The copied part of the source, in seconds of its timestamps.

    Attributes:
        origin: Becomes 0.
        begin: Packets that start before are dropped; None for the beginning.
        end: Packets that start here or later are dropped; None for the end.
    """

    origin: Fraction = Fraction(0)
    begin: Fraction | None = None
    end: Fraction | None = None


@dataclass
class StreamCopier:
    """Copies packets.

    Attributes:
        reader: Of the source.
        copies: The copied streams.
        window: The copied part.
        needs_delay: Target streams of Matroska whose decoder delay must be added to the header
            where their times begin below 0.
        damage: Why reading ended early; None if it did not.
        delays: Seconds by index of the target stream.
        notes: Videos that begin later than the window, at a keyframe.
    """

    reader: StreamReader
    copies: list[StreamCopy]
    window: TimeWindow
    needs_delay: frozenset[int] = frozenset()
    damage: str | None = None
    delays: dict[int, Fraction] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def packets(self) -> Iterator[tuple[Fraction, av.Packet[Any]]]:
        """Yield each packet for the target, and the decoding time before which it belongs."""
        if not self.copies:
            return
        tracks = {each.source.index: _Track(each, self.window) for each in self.copies}
        last = Fraction(0)
        try:
            for packet in self.reader.packets([each.source for each in self.copies]):
                track = tracks[packet.stream_index]
                if not track.takes(packet):
                    continue
                copied = track.placed(packet)
                if copied is None:
                    continue
                index = track.copy.target.index
                if index in self.needs_delay:
                    self._delay(index, copied)
                time = copied.dts if copied.dts is not None else copied.pts
                if time is not None and not track.is_cover:
                    last = time * copied.time_base
                yield last, copied
        except av.FFmpegError as error:
            self.damage = f"audio and other streams end early: {error.strerror or error}"
            _log.warning("%s", self.damage)
        self.notes += [note for each in tracks.values() if (note := each.late_note())]

    def _delay(self, index: int, packet: Any) -> None:
        """Shift the packets of a stream whose times begin below 0 by the delay."""
        if index not in self.delays:
            self.delays[index] = max(Fraction(0), -(packet.pts or 0) * packet.time_base)
        if not self.delays[index]:
            return
        # A demuxer subtracts the delay in whole milliseconds; so they are added here.
        milliseconds = round(self.delays[index] / _MILLISECOND)
        ratio = packet.time_base / _MILLISECOND
        packet.pts = round((packet.pts or 0) * ratio) + milliseconds
        packet.dts = packet.pts
        packet.duration = round((packet.duration or 0) * ratio)
        packet.time_base = _MILLISECOND


class _Track:
    """One copied stream and its state."""

    def __init__(self, copy: StreamCopy, window: TimeWindow) -> None:
        self.copy = copy
        self.is_cover = is_cover(copy.source)
        self._window = window
        self._first: Fraction | None = None
        self._last_dts: int | None = None

    def takes(self, packet: Any) -> bool:
        """Return whether a packet is in the window and decodable without those before."""
        if self.is_cover:
            return packet.size > 0 and self.copy.target.type == "video"
        if packet.pts is None and packet.dts is None:
            return False  # PyAV's signs of the end
        begin, end = self._window.begin, self._window.end
        start = (packet.pts if packet.pts is not None else packet.dts) * packet.time_base
        if end is not None and start >= end:
            return False
        if begin is None:
            return True
        if self.copy.source.type == "subtitle":
            return start + (packet.duration or 0) * packet.time_base > begin
        if self._first is None and packet.is_keyframe and start >= begin:
            self._first = start
        return self._first is not None and start >= self._first

    def late_note(self) -> str | None:
        """Return a note on a video that could not begin with the window."""
        begin = self._window.begin
        if begin is None or self.copy.source.type != "video" or self.is_cover:
            return None
        name = name_of(self.copy.source)
        if self._first is None:
            return f"{name}: has no keyframe in this part; dropped"
        if self._first - begin < _NEGLIGIBLE:
            return None
        return f"{name}: begins {float(self._first - begin):.3f} s later, at a keyframe"

    def placed(self, packet: Any) -> Any | None:
        """Return a packet for the target's stream, on its time scale; None to skip it."""
        if self.copy.convert is not None:
            text = self.copy.convert(bytes(packet))
            if not text:
                return None  # MP4 shows nothing by an empty text
            converted: Any = av.Packet(text.encode())
            converted.pts, converted.dts = packet.pts, packet.dts
            converted.duration, converted.time_base = packet.duration, packet.time_base
            converted.is_keyframe = packet.is_keyframe
            packet = converted
        elif self.copy.source.type == "subtitle" and bytes(packet) == _END_OF_TEXT:
            return None  # a second one at the same time would delay the next text
        packet.stream = self.copy.target
        if self.is_cover:
            packet.pts = packet.dts = 0
            return packet
        shift = round(self._window.origin / packet.time_base)
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
            # Damaged sources have decoding times that do not increase.
            if self._last_dts is not None and packet.dts <= self._last_dts:
                packet.dts = self._last_dts + 1
                if packet.pts is not None:
                    packet.pts = max(packet.pts, packet.dts)
            self._last_dts = packet.dts
        if self.copy.source.type == "subtitle":
            self._trim(packet)
        return packet

    def _trim(self, packet: Any) -> None:
        """Cut a subtitle that reaches over an edge of the window."""
        begin, end = self._window.begin, self._window.end
        start, stop = packet.pts, packet.pts + (packet.duration or 0)
        if begin is not None:
            start = max(0, start)
        if end is not None:
            stop = min(stop, round((end - self._window.origin) / packet.time_base))
        if begin is not None or end is not None:
            packet.pts = packet.dts = start
            packet.duration = max(0, stop - start)


def chapters(source: InputContainer, window: TimeWindow) -> list[Any]:
    """Return the chapters of a source, cut and shifted likewise."""
    found = []
    for chapter in source.chapters():
        base = Fraction(chapter["time_base"] or 1)
        start, end = chapter["start"] * base, chapter["end"] * base
        if window.begin is not None:
            start = max(start, window.begin)
        if window.end is not None:
            end = min(end, window.end)
        if start >= end and (window.begin is not None or window.end is not None):
            continue
        entry: dict[str, Any] = dict(chapter)
        entry["start"] = max(0, round((start - window.origin) / base))
        entry["end"] = max(0, round((end - window.origin) / base))
        found.append(entry)
    return found
