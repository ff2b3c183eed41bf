"""Packets of the source's other streams, on their way into the new file: cut, shifted, in order."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from sr_deploy.video import compatibility, stream_templates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from av.container import InputContainer

_log = logging.getLogger(__name__)

_MILLISECOND = Fraction(1, 1000)
_SOON = Fraction(1, 10)
"""Seconds that nobody misses: two videos never have their pictures at the same times."""


@dataclass(frozen=True)
class TimeWindow:
    """Which part of the source is copied, in seconds as its timestamps count."""

    origin: Fraction = Fraction(0)
    """What becomes 0."""
    begin: Fraction | None = None
    """Nothing that starts before is copied; None: from the beginning."""
    end: Fraction | None = None
    """Nothing that starts here or later is copied; None: to the end."""


@dataclass
class Copying:
    """Reads the streams that are copied, once.

    Attributes:
        source: The source, at its beginning.
        copies: The streams, and what they become.
        window: What part of them.
        with_delay: Indices of the target's streams of which Matroska is to be told how much their
            decoder gives before the sound begins, where their times begin below 0.
    """

    source: InputContainer
    copies: list[stream_templates.Copied]
    window: TimeWindow
    with_delay: frozenset[int] = frozenset()
    damage: str | None = None
    """Where reading broke off, in words; None: nowhere so far."""
    delays: dict[int, Fraction] = field(default_factory=dict)
    """Seconds, by the index of the target's stream."""
    late: list[str] = field(default_factory=list)
    """Videos that begin later than the window, since only a keyframe can be the first: in words."""

    def packets(self) -> Iterator[tuple[Fraction, av.Packet[Any]]]:
        """Yield each packet for the target, and before which picture's decoding it belongs."""
        if not self.copies:
            return
        tracks = {each.source.index: _Track(each, self.window) for each in self.copies}
        last = Fraction(0)
        for packet in self._read():
            track = tracks[packet.stream.index]
            if not track.takes(packet):
                continue
            if track.copy.convert is not None:
                packet = _converted(packet, track.copy.convert)
            if packet is None:
                continue
            track.place(packet)
            index = track.copy.target.index
            if index in self.with_delay:
                self._delay(index, packet)
            time = packet.dts if packet.dts is not None else packet.pts
            if time is not None and not stream_templates.is_cover(track.copy.source):
                last = time * packet.time_base
            yield last, packet
        self.late += [each.late for each in tracks.values() if each.late]

    def _read(self) -> Iterator[Any]:
        try:
            yield from self.source.demux([each.source for each in self.copies])
        except av.FFmpegError as error:
            self.damage = f"sound and other streams end early: {error.strerror or error}"
            _log.warning("%s", self.damage)

    def _delay(self, index: int, packet: Any) -> None:
        """Shift the packets of a stream whose times begin below 0, by as much."""
        if index not in self.delays:
            start = (packet.pts or 0) * packet.time_base
            self.delays[index] = max(Fraction(0), -start)
        if not self.delays[index]:
            return
        # A reader takes the delay off again in whole milliseconds; so it is added in these.
        milliseconds = round(self.delays[index] / _MILLISECOND)
        ratio = packet.time_base / _MILLISECOND
        packet.pts = round((packet.pts or 0) * ratio) + milliseconds
        packet.dts = packet.pts
        packet.duration = round((packet.duration or 0) * ratio)
        packet.time_base = _MILLISECOND


class _Track:
    """One copied stream: what of it was taken so far."""

    def __init__(self, copy: stream_templates.Copied, window: TimeWindow) -> None:
        self.copy = copy
        self._window = window
        self._first: Fraction | None = None
        self._last_dts: int | None = None

    def takes(self, packet: Any) -> bool:
        """Return whether a packet is in the window, and can be decoded without those before."""
        if stream_templates.is_cover(self.copy.source):
            return packet.size > 0 and self.copy.target.type == "video"
        if packet.pts is None and packet.dts is None:
            return False  # PyAV's signs of the end
        begin, end = self._window.begin, self._window.end
        start = _seconds(packet.pts if packet.pts is not None else packet.dts, packet)
        if end is not None and start >= end:
            return False
        if begin is None:
            return True
        if self.copy.source.type == "subtitle":
            return start + _seconds(packet.duration or 0, packet) > begin
        if self._first is None and packet.is_keyframe and start >= begin:
            self._first = start
        return self._first is not None and start >= self._first

    @property
    def late(self) -> str | None:
        """What is missing of a video that could not begin with the window, in words."""
        begin = self._window.begin
        if (
            begin is None
            or self.copy.source.type != "video"
            or stream_templates.is_cover(self.copy.source)
        ):
            return None
        if self._first is None:
            return (
                f"{compatibility.name_of(self.copy.source)}: has no keyframe in this part; left out"
            )
        if self._first - begin < _SOON:
            return None
        seconds = float(self._first - begin)
        name = compatibility.name_of(self.copy.source)
        return f"{name}: begins {seconds:.3f} s later, at a keyframe"

    def place(self, packet: Any) -> None:
        """Rebase a packet's times, and give it to the target's stream."""
        packet.stream = self.copy.target
        if stream_templates.is_cover(self.copy.source):
            packet.pts = packet.dts = 0
            return
        shift = round(self._window.origin / packet.time_base)
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
            self._keep_order(packet)
        if self.copy.source.type == "subtitle":
            self._trim(packet)

    def _keep_order(self, packet: Any) -> None:
        """Correct a decoding time that does not increase, as damaged sources have them."""
        if self._last_dts is not None and packet.dts <= self._last_dts:
            packet.dts = self._last_dts + 1
            if packet.pts is not None:
                packet.pts = max(packet.pts, packet.dts)
        self._last_dts = packet.dts

    def _trim(self, packet: Any) -> None:
        """Cut a subtitle that reaches over an edge of the window."""
        if self._window.begin is None and self._window.end is None:
            return
        start, stop = packet.pts, packet.pts + (packet.duration or 0)
        if self._window.begin is not None:
            start = max(0, start)
        if self._window.end is not None:
            limit = (self._window.end - self._window.origin) / packet.time_base
            stop = min(stop, round(limit))
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


def _converted(packet: Any, convert: Callable[[bytes], str | None]) -> Any | None:
    """Return a packet with another content; None: nothing is shown, which MP4 says with a text."""
    text = convert(bytes(packet))
    if not text:
        return None
    made: Any = av.Packet(text.encode())
    made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
    made.time_base, made.is_keyframe = packet.time_base, packet.is_keyframe
    return made


def _seconds(time: int, packet: Any) -> Fraction:
    return Fraction(time) * Fraction(packet.time_base)


def interleaved(
    pictures: Iterator[tuple[Fraction, av.Packet[Any]]],
    others: Iterator[tuple[Fraction, av.Packet[Any]]],
) -> Iterator[av.Packet[Any]]:
    """Yield packets of both in the order in which they are needed, holding one of them."""
    picture = next(pictures, None)
    for time, other in others:
        while picture is not None and picture[0] <= time:
            yield picture[1]
            picture = next(pictures, None)
        yield other
    while picture is not None:
        yield picture[1]
        picture = next(pictures, None)
