"""The source's streams beside the video that is replaced, and their packets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
from av.stream import Disposition

from sr_deploy.video.decode import open_container

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from av.container import InputContainer
    from av.stream import Stream

_READ_AHEAD_PACKETS, _READ_AHEAD_BYTES = 1000, 16 << 20
_BEGINNING = -(1 << 60)
"""Before any timestamp."""


def name_of(stream: Stream) -> str:
    """Return a stream's name for the user."""
    codec = stream.codec_context.name if stream.codec_context else stream.metadata.get("filename")
    details = [stream.type, codec, stream.metadata.get("language")]
    return f"stream {stream.index} ({', '.join(each for each in details if each)})"


def is_cover(stream: Stream) -> bool:
    """Return whether a video stream is a cover picture."""
    return bool(stream.disposition.value & Disposition.attached_pic.value)


class StreamReader:
    """Reads the packets of all streams but the new video; a context manager.

    The streams' headers are those of the file that is open for decoding. Packets need a demuxer of
    their own: that of the decoder has passed them, long before they are written, and not every
    container can be sought back to exactly its beginning. It is opened when the first packet is
    needed; a file without other streams is opened once.

    Args:
        path: The source.
        container: The source, open for decoding.
        video: Index of the stream that is replaced.

    Attributes:
        container: The source's streams, tags and chapters.
        video: Stream that is replaced.
        others: All other streams.
    """

    def __init__(self, path: Path, container: InputContainer, video: int) -> None:
        self.container = container
        self.video = container.streams[video]
        self.others = [each for each in container.streams if each.index != video]
        self._path = path
        self._own: InputContainer | None = None
        self._packets: Iterator[Any] = iter(())
        self._ahead: list[Any] = []
        self._error: av.FFmpegError | None = None
        self._firsts: dict[int, bytes] | None = None

    def first_packet(self, stream: Stream) -> bytes | None:
        """Return the first packet of a stream; None if it has none near the beginning.

        Packets that are read meanwhile are kept for `packets`.
        """
        if self._firsts is None:
            self._restart()
            self._firsts = {}
            size = 0
            missing = {each.index for each in self.others if each.type != "attachment"}
            while missing and len(self._ahead) < _READ_AHEAD_PACKETS and size < _READ_AHEAD_BYTES:
                packet = self._next()
                if packet is None:
                    break
                self._ahead.append(packet)
                size += packet.size
                if packet.size and packet.stream_index in missing:
                    self._firsts[packet.stream_index] = bytes(packet)
                    missing.discard(packet.stream_index)
        return self._firsts.get(stream.index)

    def scan(self, stream: Stream) -> list[bytes]:
        """Return all packets of a stream of MP4, which can be sought back exactly."""
        self._restart()
        found = []
        while (packet := self._next()) is not None:
            if packet.stream_index == stream.index:
                found.append(bytes(packet))
        self._restart()
        return found

    def packets(self, streams: list[Stream]) -> Iterator[Any]:
        """Yield the packets of some streams, once.

        Raises:
            FFmpegError: The file cannot be read further.
        """
        if self._own is None:
            self._restart()
        wanted = {each.index for each in streams}
        ahead, self._ahead = self._ahead, []
        for packet in ahead:
            if packet.stream_index in wanted:
                yield packet
        while (packet := self._next()) is not None:
            if packet.stream_index in wanted:
                yield packet
        if self._error is not None:
            raise self._error

    def _restart(self) -> None:
        if self._own is None:
            self._own = open_container(self._path)
        else:
            self._own.seek(_BEGINNING)
        indices = [each.index for each in self.others]
        self._packets = self._own.demux([self._own.streams[index] for index in indices])
        self._ahead, self._firsts, self._error = [], None, None

    def _next(self) -> Any | None:
        try:
            return next(self._packets, None)
        except av.FFmpegError as error:
            self._error = error
            return None

    def __enter__(self) -> StreamReader:
        return self

    def __exit__(self, *_: object) -> None:
        if self._own is not None:
            self._own.close()
