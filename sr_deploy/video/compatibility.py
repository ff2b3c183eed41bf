"""Which streams of a source its new container can hold, found out before the long work."""

from __future__ import annotations

import functools
import io
import itertools
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av

from sr_deploy.errors import InvalidInputError
from sr_deploy.video import mp4_template, stream_templates, subtitles

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

    from sr_deploy.video.info import Info

_LOOKED_AT = 1000
"""Packets of the source, for a first one of a stream."""


def to_copy(
    source: InputContainer, info: Info, container: str, drop: Collection[str]
) -> tuple[list[Stream], tuple[str, ...]]:
    """Return the streams that are copied, and in words those that are left out as was asked.

    Raises:
        InvalidInputError: the container cannot hold some of them, and they may not be left out.
    """
    others = [
        each
        for each in source.streams
        if each.index != info.stream and not _is_said(each, source, container)
    ]
    misfits = [each for each in others if not _fits(each, container)]
    kept = [each for each in misfits if each.type not in drop and "all" not in drop]
    if kept:
        raise InvalidInputError(_refusal(kept, others, container))
    left_out = tuple(f"{name_of(each)}: {container} cannot hold it; left out" for each in misfits)
    return [each for each in others if each not in misfits], left_out


def _fits(stream: Stream, container: str) -> bool:
    """Ask the container's own writer."""
    if stream.type == "attachment" and container != "matroska":
        return False
    if stream.type == "data" and "timecode" in stream.metadata:
        return False  # what is not said otherwise; the writer takes no copy
    if stream_templates.is_cover(stream) and container == "matroska":
        return stream.codec_context.name in stream_templates.COVERS
    if stream_templates.becomes_subrip(stream, container):
        return subtitles.is_convertible(Path(stream.container.name), stream.index)
    try:
        with av.open(io.BytesIO(), "w", format=container) as out:
            copy = stream_templates.add_copy(out, stream)
            _write_first_packet(out, copy)
            out.start_encoding()
    except (av.FFmpegError, ValueError, TypeError):
        return False
    return True


def _write_first_packet(out: OutputContainer, copy: stream_templates.Copied) -> None:
    """Write a packet of a stream, if one comes soon: some misfits show only then."""
    with av.open(copy.source.container.name, metadata_errors="replace") as again:
        packets: Iterator[Any] = itertools.islice(again.demux(), _LOOKED_AT)
        ours = (each for each in packets if each.stream.index == copy.source.index and each.size)
        try:
            packet = next(ours, None)
        except av.FFmpegError:
            return  # who copies the streams reports the damage
        if packet is not None:
            packet.stream = copy.target
            packet.pts = packet.dts = 0
            out.mux(packet)


def _is_said(stream: Stream, source: InputContainer, container: str) -> bool:
    """Return whether a stream is another form of the chapters, or of the video's timecode."""
    if stream.type != "data":
        return False
    if "timecode" in stream.metadata:
        return container not in ("mp4", "mov") or _writes_timecodes()
    chapters = len(source.chapters())
    return chapters > 0 and stream.frames == chapters


@functools.cache
def _writes_timecodes() -> bool:
    """Return whether this PyAV tells the writer of MP4 the frame rate, which a timecode needs."""
    file = io.BytesIO()
    made = av.open(io.BytesIO(mp4_template.Description("h264").to_mp4()))
    with made, av.open(file, "w", format="mp4") as out:
        stream: Any = out.add_stream_from_template(made.streams.video[0], opaque=True)
        stream.codec_context.width = stream.codec_context.height = 16
        stream.codec_context.framerate = 25
        stream.metadata["timecode"] = "00:00:00:00"
        out.start_encoding()
    return b"tmcd" in file.getvalue()


def _refusal(misfits: list[Stream], others: list[Stream], container: str) -> str:
    able = [
        suffix
        for suffix, each in stream_templates.CONTAINERS.items()
        if each != container and all(_fits(other, each) for other in others)
    ]
    kinds = ", ".join(dict.fromkeys(each.type for each in misfits))
    advice = f"write to {' or '.join(able)}, or " if able else ""
    return (
        f"{container} cannot hold {'; '.join(map(name_of, misfits))}: {advice}let it be left out "
        f"with --drop {kinds.replace(', ', ' --drop ')}"
    )


def name_of(stream: Stream) -> str:
    """Return how a user is told of a stream."""
    codec = stream.codec_context.name if stream.codec_context else stream.metadata.get("filename")
    details = [stream.type, codec, stream.metadata.get("language")]
    return f"stream {stream.index} ({', '.join(each for each in details if each)})"
