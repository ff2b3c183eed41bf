"""Properties of a video file for tests: streams, tags, side data, times, chapters."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av


@dataclass(frozen=True)
class PacketInfo:
    """A packet without its data; times in seconds."""

    pts: Fraction | None
    dts: Fraction | None
    size: int
    md5: str
    keyframe: bool


@dataclass(frozen=True)
class StreamInfo:
    """Properties of a stream."""

    kind: str
    codec: str | None
    time_base: Fraction | None
    disposition: int
    tags: dict[str, str]
    packets: list[PacketInfo]
    aspect: Fraction | None = None
    color: tuple[int, int, int, int] | None = None
    """Primaries, transfer, matrix, range."""
    side_data: dict[str, Any] = field(default_factory=dict)
    """Of the first picture: the display matrix, HDR metadata."""
    attachment: bytes | None = None

    @property
    def pts(self) -> list[Fraction]:
        """When each picture or sound begins, in seconds, in order."""
        return sorted(each.pts for each in self.packets if each.pts is not None)

    @property
    def contents(self) -> list[str]:
        """A hash of each packet, in order."""
        return [each.md5 for each in self.packets]


@dataclass(frozen=True)
class FileInfo:
    """Properties of a file."""

    streams: list[StreamInfo]
    tags: dict[str, str]
    chapters: list[tuple[Fraction, Fraction, str]]

    def of_kind(self, kind: str) -> list[StreamInfo]:
        """Return the streams of a kind, without covers."""
        return [each for each in self.streams if each.kind == kind and not each.disposition & 1024]

    @property
    def covers(self) -> list[StreamInfo]:
        """Return the cover pictures."""
        return [each for each in self.streams if each.disposition & 1024]


def probe(path: Path) -> FileInfo:
    """Read a file, without the empty samples by which MP4 ends texts: FFmpeg adds its own."""
    with av.open(str(path)) as container:
        packets: dict[int, list[PacketInfo]] = {each.index: [] for each in container.streams}
        for packet in container.demux():
            ends_text = packet.stream.type == "subtitle" and bytes(packet) == b"\0\0"
            if (packet.size or packet.pts is not None) and not ends_text:
                packets[packet.stream.index].append(_packet(packet))
        streams = [_stream(path, each, packets[each.index]) for each in container.streams]
        chapters = [
            (
                Fraction(each["start"] * Fraction(each["time_base"] or 0)),
                Fraction(each["end"] * Fraction(each["time_base"] or 0)),
                each["metadata"].get("title", ""),
            )
            for each in container.chapters()
        ]
        return FileInfo(streams, _lower(container.metadata), chapters)


def _packet(packet: Any) -> PacketInfo:
    base = packet.time_base
    data = bytes(packet)
    return PacketInfo(
        pts=None if packet.pts is None else packet.pts * base,
        dts=None if packet.dts is None else packet.dts * base,
        size=len(data),
        md5=hashlib.md5(data).hexdigest(),
        keyframe=packet.is_keyframe,
    )


def _stream(path: Path, stream: Any, packets: list[PacketInfo]) -> StreamInfo:
    context = stream.codec_context
    extra: dict[str, Any] = {}
    if stream.type == "video" and context is not None:
        extra["aspect"] = stream.sample_aspect_ratio
        extra["color"] = (
            context.color_primaries,
            context.color_trc,
            context.colorspace,
            context.color_range,
        )
        extra["side_data"] = _side_data(path, stream.index)
    if stream.type == "attachment":
        extra["attachment"] = stream.data
    return StreamInfo(
        kind=stream.type,
        codec=None if context is None else context.name,
        time_base=stream.time_base,
        disposition=stream.disposition.value,
        tags=_lower(stream.metadata),
        packets=packets,
        **extra,
    )


def _side_data(path: Path, index: int) -> dict[str, Any]:
    with av.open(str(path)) as container:
        frame: Any = next(iter(container.decode(container.streams[index])), None)
        if frame is None:
            return {}
        found = {each.type.name: bytes(each) for each in frame.side_data}
    decoders: dict[str, Callable[[bytes], Any]] = {
        "DISPLAYMATRIX": lambda data: struct.unpack("=9i", data[:36]),
        "MASTERING_DISPLAY_METADATA": _mastering,
        "CONTENT_LIGHT_LEVEL": lambda data: struct.unpack("=2I", data[:8]),
    }
    return {name: decode(found[name]) for name, decode in decoders.items() if name in found}


def _mastering(data: bytes) -> list[Fraction]:
    """Return the primaries, the white point, the darkest and the lightest luminance."""
    numbers = struct.unpack("=20i", data[:80])
    return [Fraction(*pair) for pair in zip(numbers[::2], numbers[1::2], strict=True)]


def _lower(tags: dict[str, str]) -> dict[str, str]:
    return {key.lower(): value for key, value in tags.items()}
