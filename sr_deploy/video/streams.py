"""Streams of the output file: the new video, copies of all others, and their tags."""

from __future__ import annotations

import functools
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av

from sr_deploy.errors import InvalidInputError
from sr_deploy.video import subtitles
from sr_deploy.video.mp4_template import CODECS, Mp4Template
from sr_deploy.video.source_streams import is_cover, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

    from sr_deploy.video.encode import EncoderSettings
    from sr_deploy.video.source_streams import StreamReader

CONTAINERS = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".webm": "webm"}
"""FFmpeg's name of the format by the suffix."""
MATROSKA = ("matroska", "webm")
_KINDS = ("audio", "video", "subtitle", "data", "attachment")

_VIDEO_CODECS = {
    "matroska": frozenset(CODECS),
    "mp4": frozenset({"h264", "hevc", "av1", "vp9", "ffv1", "mpeg4"}),
    "mov": frozenset({"h264", "hevc", "prores", "dnxhd", "mpeg4", "mjpeg"}),
    "webm": frozenset({"av1", "vp9", "vp8"}),
}
"""Codecs that FFmpeg's muxers take for a new video."""
_COVERS = {
    "mjpeg": ("cover.jpg", "image/jpeg"),
    "png": ("cover.png", "image/png"),
    "bmp": ("cover.bmp", "image/bmp"),
    "webp": ("cover.webp", "image/webp"),
}
"""Names and types of covers as attachments of Matroska."""
_CHANNELS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""FFmpeg's default layouts by number of channels."""
_LANGUAGES = (
    "bod/tib ces/cze cym/wel deu/ger ell/gre eus/baq fas/per fra/fre hye/arm isl/ice "
    "kat/geo mkd/mac mri/mao msa/may mya/bur nld/dut ron/rum slk/slo sqi/alb zho/chi"
)
_BIBLIOGRAPHIC = {code[:3]: code[4:] for code in _LANGUAGES.split()}
"""Second code of a language in ISO 639-2, the only one that FFmpeg writes to MOV."""
_CONTAINER_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder", "duration"}
_STREAM_TAGS = {"duration", "vendor_id"}
_ENCODING_TAGS = {"encoder", "bps", "number_of_frames", "number_of_bytes"}
_SAME_RATE = 1e-3
"""Rates closer than this differ only by the rounding of timestamps."""


@dataclass(frozen=True)
class StreamCopy:
    """A stream of the source and its copy.

    Attributes:
        convert: Converts the data of its packets; None for an exact copy.
    """

    source: Stream
    target: Stream
    convert: Callable[[bytes], str | None] | None = None


def container_of(suffix: str, codec: str, drop: Collection[str]) -> str:
    """Return FFmpeg's name of the output format.

    Args:
        suffix: Of the output file.
        codec: Of the new video.
        drop: Kinds of streams that may be dropped.

    Raises:
        InvalidInputError: The format is not supported or cannot hold the codec, or a kind is
            unknown.
    """
    container = CONTAINERS.get(suffix.lower())
    if container is None:
        raise InvalidInputError(
            f"unsupported video format {suffix!r}; choose one of {', '.join(CONTAINERS)}"
        )
    for kind in drop:
        if kind not in (*_KINDS, "all"):
            raise InvalidInputError(
                f"cannot drop {kind!r}; kinds of streams are {', '.join(_KINDS)} and all"
            )
    if codec not in _VIDEO_CODECS[container]:
        able = [name for name, each in CONTAINERS.items() if codec in _VIDEO_CODECS[each]]
        advice = f"{', '.join(able)} can" if able else "no supported format can"
        raise InvalidInputError(f"{container} cannot hold {codec} video; {advice}")
    return container


def streams_to_copy(
    reader: StreamReader, container: str, drop: Collection[str]
) -> tuple[list[Stream], tuple[str, ...]]:
    """Return the streams that are copied, and a note for each one that is dropped.

    Raises:
        InvalidInputError: The container cannot hold some of them, and they may not be dropped.
    """
    others = [each for each in reader.others if not _is_redundant(each, reader, container)]
    misfits = [each for each in others if not _fits(each, reader, container)]
    refused = [each for each in misfits if each.type not in drop and "all" not in drop]
    if refused:
        able = [
            suffix
            for suffix, each in CONTAINERS.items()
            if each != container and all(_fits(other, reader, each) for other in others)
        ]
        kinds = " --drop ".join(dict.fromkeys(each.type for each in refused))
        advice = f"write to {' or '.join(able)}, or " if able else ""
        raise InvalidInputError(
            f"{container} cannot hold {'; '.join(map(name_of, refused))}: {advice}drop it with "
            f"--drop {kinds}"
        )
    dropped = tuple(f"{name_of(each)}: {container} cannot hold it; dropped" for each in misfits)
    return [each for each in others if each not in misfits], dropped


def _fits(stream: Stream, reader: StreamReader, container: str) -> bool:
    """Return whether a container can hold a stream, by a trial of its muxer."""
    if stream.type == "attachment" and container != "matroska":
        return False
    if stream.type == "data" and "timecode" in stream.metadata:
        return False  # the muxer takes no copy
    if is_cover(stream) and container == "matroska":
        return stream.codec_context.name in _COVERS
    if _becomes_subrip(stream, container):
        description = stream.codec_context.extradata or b""
        texts = reader.scan(stream)
        return all(subtitles.to_subrip(text, description) is not None for text in texts)
    try:
        with av.open(io.BytesIO(), "w", format=container) as out:
            copy = add_copy(out, stream, reader)
            data = reader.first_packet(stream)
            if data is not None:  # some misfits show only with a packet
                packet: Any = av.Packet(data)
                packet.stream, packet.time_base = copy.target, stream.time_base
                packet.pts = packet.dts = 0
                packet.is_keyframe = True
                out.mux(packet)
            out.start_encoding()
    except (av.FFmpegError, ValueError, TypeError):
        return False
    return True


def _is_redundant(stream: Stream, reader: StreamReader, container: str) -> bool:
    """Return whether a stream repeats the chapters or the timecode of the video."""
    if stream.type != "data":
        return False
    if "timecode" in stream.metadata:
        return container not in ("mp4", "mov") or writes_timecodes()
    chapters = len(reader.container.chapters())
    return chapters > 0 and stream.frames == chapters


@functools.cache
def writes_timecodes() -> bool:
    """Return whether PyAV passes the frame rate to the muxer of MP4, which timecodes need."""
    file = io.BytesIO()
    template = av.open(io.BytesIO(Mp4Template("h264").to_mp4()))
    with template, av.open(file, "w", format="mp4") as out:
        stream: Any = out.add_stream_from_template(template.streams.video[0], opaque=True)
        stream.codec_context.width = stream.codec_context.height = 16
        stream.codec_context.framerate = 25
        stream.metadata["timecode"] = "00:00:00:00"
        out.start_encoding()
    return b"tmcd" in file.getvalue()


def add_video(
    out: OutputContainer, old: Any, template: Mp4Template, settings: EncoderSettings
) -> Any:
    """Add the new video to a file and return its stream.

    Args:
        out: The file, before anything is written.
        old: The stream that it replaces.
        template: Properties that PyAV cannot set otherwise.
        settings: Of the encoder.
    """
    with av.open(io.BytesIO(template.to_mp4())) as made:
        stream: Any = out.add_stream_from_template(made.streams.video[0], opaque=True)
    context = stream.codec_context
    context.width, context.height = settings.width, settings.height
    context.pix_fmt = settings.pixel_format
    settings.color.apply_to(context)
    if settings.aspect is not None:
        context.sample_aspect_ratio = settings.aspect
    if settings.tag is not None:
        context.codec_tag = settings.tag
    average, base = old.average_rate, old.base_rate
    constant = average and base and math.isclose(average, base, rel_tol=_SAME_RATE)
    # Matroska stores one duration for all frames, which is wrong for a variable rate.
    if constant or out.format.name not in MATROSKA:
        context.framerate = settings.rate
    stream.time_base = settings.time_base
    _copy_tags(stream, old, out.format.name, _ENCODING_TAGS)
    for each in old.container.streams:
        if each.type == "data" and "timecode" in each.metadata:
            stream.metadata.setdefault("timecode", each.metadata["timecode"])
    return stream


def add_copy(out: OutputContainer, stream: Stream, reader: StreamReader) -> StreamCopy:
    """Add the copy of a stream to a file."""
    container = out.format.name
    convert = None
    target: Any
    if is_cover(stream) and container == "matroska":  # where a cover is an attachment
        name, kind = _COVERS[stream.codec_context.name]
        name = stream.metadata.get("filename", name)
        kind = stream.metadata.get("mimetype", kind)
        return StreamCopy(
            stream, out.add_attachment(name, kind, reader.first_packet(stream) or b"")
        )
    if _becomes_subrip(stream, container):
        description = stream.codec_context.extradata or b""
        convert = functools.partial(subtitles.to_subrip, description=description)
        with subtitles.subrip_template() as text:
            target = out.add_stream_from_template(text.streams[0], opaque=True)
    else:
        target = out.add_stream_from_template(stream, opaque=True)
        layout = target.codec_context.layout if target.type == "audio" else None
        # The muxer of MP4 needs the layout of PCM.
        if layout and layout.name.endswith(" channels") and layout.nb_channels in _CHANNELS:
            target.codec_context.layout = _CHANNELS[layout.nb_channels]
    _copy_tags(target, stream, container)
    return StreamCopy(stream, target, convert)


def _becomes_subrip(stream: Stream, container: str) -> bool:
    context = stream.codec_context
    return container == "matroska" and context is not None and context.name == "mov_text"


def track_numbers(out: OutputContainer) -> dict[int, int]:
    """Return the numbers of Matroska's tracks by stream index."""
    tracks = [each for each in out.streams if each.type != "attachment" and not is_cover(each)]
    return {each.index: number for number, each in enumerate(tracks, 1)}


def _copy_tags(target: Any, stream: Stream, container: str, outdated: Collection[str] = ()) -> None:
    """Copy tags and disposition of a stream, without outdated ones and those that FFmpeg writes."""
    for key, value in stream.metadata.items():
        name = key.lower().partition("-")[0]  # mkvmerge writes BPS-eng
        if (
            name in _STREAM_TAGS
            or name in outdated
            or (outdated and name.startswith("_statistics"))
        ):
            continue
        # FFmpeg writes the title of an MP4 track under another name than it reads.
        key = "title" if key == "name" and "title" not in stream.metadata else key
        if container == "mov" and name == "language":
            value = _BIBLIOGRAPHIC.get(value, value)
        target.metadata[key] = value
    target.disposition = stream.disposition.value


def file_tags(source: InputContainer) -> dict[str, str]:
    """Return the tags of a whole file, without those of its container."""
    return {
        key: value for key, value in source.metadata.items() if key.lower() not in _CONTAINER_TAGS
    }


def lost_tags(source: InputContainer, written: InputContainer) -> tuple[str, ...]:
    """Return a note for each tag of the whole source that the written file lacks."""
    found = {key.lower() for key in written.metadata}
    name = written.format.name.partition(",")[0]
    missing = [key for key in file_tags(source) if key.lower() not in found]
    return tuple(f"{name} has no place for the file's tag {key!r}" for key in missing)
