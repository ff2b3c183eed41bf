"""The streams of the file that is written: the new video, and all others as they were."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av
from av.stream import Disposition

from sr_deploy.errors import InvalidInputError
from sr_deploy.video import mp4_template, subtitles, tags

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from av.container import OutputContainer
    from av.stream import Stream

    from sr_deploy.video.encode import EncoderSettings

CONTAINERS = {".mkv": "matroska", ".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".webm": "webm"}
"""FFmpeg's name of the format, by the suffix."""
KINDS = ("audio", "video", "subtitle", "data", "attachment")

_VIDEOS = {
    "matroska": frozenset(mp4_template.CODECS),
    "mp4": frozenset({"h264", "hevc", "av1", "vp9", "ffv1", "mpeg4"}),
    "mov": frozenset({"h264", "hevc", "prores", "dnxhd", "mpeg4", "mjpeg"}),
    "webm": frozenset({"av1", "vp9", "vp8"}),
}
"""Which codecs FFmpeg's writers take for a new video."""
COVERS = {
    "mjpeg": ("cover.jpg", "image/jpeg"),
    "png": ("cover.png", "image/png"),
    "bmp": ("cover.bmp", "image/bmp"),
    "webp": ("cover.webp", "image/webp"),
}
"""Names and types of Matroska's attachments that are covers."""


_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "4.0", 5: "5.0", 6: "5.1", 7: "6.1", 8: "7.1"}
"""What a number of channels means where nobody said, as FFmpeg takes it."""


@dataclass(frozen=True)
class Copied:
    """A stream of the source, and what it becomes."""

    source: Stream
    target: Stream
    convert: Callable[[bytes], str | None] | None = None
    """Makes the content of its packets; None: they are copied as they are."""


def container_of(target: Path) -> str:
    """Return FFmpeg's name of the format that a file's suffix asks for.

    Raises:
        InvalidInputError: it is none that is written here.
    """
    try:
        return CONTAINERS[target.suffix.lower()]
    except KeyError:
        raise InvalidInputError(
            f"{target}: videos are written to {', '.join(CONTAINERS)}; choose one of these"
        ) from None


def is_cover(stream: Stream) -> bool:
    """Return whether a video stream is one picture beside the film."""
    return bool(stream.disposition.value & Disposition.attached_pic.value)


def add_video(
    out: OutputContainer,
    description: mp4_template.Description,
    settings: EncoderSettings,
    *,
    constant: bool,
) -> Any:
    """Add the new video to a file and return its stream.

    Args:
        out: the file, of which nothing was written yet.
        description: what PyAV cannot be told otherwise.
        settings: of the encoder.
        constant: whether every picture is shown as long as the others.
    """
    with av.open(io.BytesIO(description.to_mp4())) as made:
        stream: Any = out.add_stream_from_template(made.streams.video[0], opaque=True)
    context = stream.codec_context
    context.width, context.height = settings.width, settings.height
    context.pix_fmt = settings.pixel_format
    settings.colour.tag(context)
    if settings.aspect is not None:
        context.sample_aspect_ratio = settings.aspect
    if settings.tag is not None:
        context.codec_tag = settings.tag
    # Matroska says how long every picture is shown; of a variable rate that would be a lie.
    if constant or out.format.name not in ("matroska", "webm"):
        context.framerate = settings.rate
    stream.time_base = settings.time_base
    return stream


def check_video(codec: str, container: str) -> None:
    """Make sure that a container can hold a codec.

    Raises:
        InvalidInputError: it cannot; the text says which can.
    """
    if codec not in _VIDEOS[container]:
        able = [suffix for suffix, each in CONTAINERS.items() if codec in _VIDEOS[each]]
        advice = f"{', '.join(able)} can" if able else "no container of this version can"
        raise InvalidInputError(f"{container} cannot hold {codec} video; {advice}")


def add_copy(out: OutputContainer, template: Stream) -> Copied:
    """Add a stream as it is to a file."""
    container = out.format.name
    convert = None
    stream: Any
    if is_cover(template) and container == "matroska":
        return Copied(template, _add_attached_cover(out, template))
    if becomes_subrip(template, container):
        convert = functools.partial(
            subtitles.to_subrip, description=template.codec_context.extradata or b""
        )
        with subtitles.subrip_template() as text:
            stream = out.add_stream_from_template(text.streams[0], opaque=True)
    else:
        stream = out.add_stream_from_template(template, opaque=True)
        _say_layout(stream)
    tags.copy(stream, template, container)
    return Copied(template, stream, convert)


def _say_layout(stream: Any) -> None:
    """Say what channels a sound has, which the writer of MP4 must know of PCM."""
    if stream.type == "audio" and stream.codec_context.layout.name.endswith(" channels"):
        count = stream.codec_context.layout.nb_channels
        if count in _LAYOUTS:
            stream.codec_context.layout = _LAYOUTS[count]


def _add_attached_cover(out: OutputContainer, template: Stream) -> Stream:
    """Attach a cover, which in Matroska is a file like any other."""
    name, kind = COVERS[template.codec_context.name]
    tags = template.metadata
    return out.add_attachment(
        tags.get("filename", name), tags.get("mimetype", kind), _cover(template)
    )


def _cover(stream: Stream) -> bytes:
    with av.open(stream.container.name, metadata_errors="replace") as again:
        for packet in again.demux(again.streams[stream.index]):
            return bytes(packet)
    return b""


def track_numbers(out: OutputContainer) -> dict[int, int]:
    """Return the numbers of Matroska's tracks, by indices of streams."""
    tracks = [each for each in out.streams if each.type != "attachment" and not is_cover(each)]
    return {each.index: number for number, each in enumerate(tracks, 1)}


def becomes_subrip(stream: Stream, container: str) -> bool:
    """Return whether a stream is converted for a container."""
    context = stream.codec_context
    return container == "matroska" and context is not None and context.name == "mov_text"
