"""The final file: the new pictures, and all else of the source as it was."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from sr_deploy.errors import InvalidInputError, SrDeployError, VideoError
from sr_deploy.files import atomic_file
from sr_deploy.video import compatibility, matroska, stream_templates, tags
from sr_deploy.video.copy_streams import Copying, TimeWindow, chapters, interleaved
from sr_deploy.video.display import matrix_of, scaled
from sr_deploy.video.mp4_template import UPRIGHT, Description

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from av.container import InputContainer, OutputContainer
    from av.stream import Stream

    from sr_deploy.video.encode import EncoderSettings
    from sr_deploy.video.info import Info
    from sr_deploy.video.job import TranscodeJob

_MATROSKA = ("matroska", "webm")
_BROADCAST = ("mpegts", "mpeg")
_LARGEST_TIMESCALE = 1 << 31
_LONGEST = 1 << 32
"""Of old readers of MP4, in units of the movie's timescale."""
_SAME_RATE = 1e-3
"""Rates closer than this are equal but for the rounding of timestamps."""


@dataclass(frozen=True)
class MuxResult:
    """How the file was written."""

    copied: int
    """How many streams of the source are in it beside the new video."""
    left_out: tuple[str, ...]
    """What was dropped as the user had asked, and what no container or cut can hold, in words."""
    damage: str | None
    """Where the source's other streams could be read no further, in words; None: to their end."""


def check(
    source: Path, info: Info, settings: EncoderSettings, target: Path, *, drop: Collection[str] = ()
) -> tuple[str, ...]:
    """Make sure, before the long work, that `target` can hold all that `source` does.

    Args:
        source: the video that is read.
        info: what is known of it; `info.stream` is replaced, all others are copied.
        settings: of the new video's encoder.
        target: the file to write; its suffix says the container.
        drop: what may be left out where the container cannot hold it: "audio", "video",
            "subtitle", "data", "attachment", or "all".

    Returns:
        What will be left out, in words.

    Raises:
        InvalidInputError: it cannot; the text says which streams, and which container can.
    """
    container = stream_templates.container_of(target)
    for kind in drop:
        if kind not in (*stream_templates.KINDS, "all"):
            raise InvalidInputError(
                f"cannot drop {kind!r}; kinds of streams are "
                f"{', '.join(stream_templates.KINDS)} and all"
            )
    stream_templates.check_video(_codec(settings), container)
    with _opened(source) as opened:
        return compatibility.to_copy(opened, info, container, drop)[1]


def assemble(
    job: TranscodeJob,
    source: Path,
    info: Info,
    settings: EncoderSettings,
    target: Path,
    *,
    drop: Collection[str] = (),
    start: float | None = None,
    end: float | None = None,
) -> MuxResult:
    """Write `target` from the job's packets and all other streams of `source`, as they are.

    Args:
        job: with all segments.
        source: the video that was read.
        info: as in `check`.
        settings: as in `check`; what the packets were encoded with.
        target: the file; it appears when it is complete.
        drop: as in `check`.
        start: as it was given to `Source`; the file then starts at 0, with the first picture.
        end: as it was given to `Source`.

    Raises:
        InvalidInputError: as in `check`.
        VideoError: the file cannot be written, or a segment is damaged.
    """
    container = stream_templates.container_of(target)
    matrix = matrix_of(source, info.stream)
    factor = Fraction(settings.width, info.width)
    description = Description(
        _codec(settings), UPRIGHT if matrix is None else scaled(matrix, factor), info.hdr
    )
    with _opened(source) as opened, _saying(target), atomic_file(target, job.folder) as temporary:
        kept, left_out = compatibility.to_copy(opened, info, container, drop)
        layout = _Layout(opened, info, settings, description, kept, job.extradata)
        window = _window(info, job, start, end)
        options = _options(container, info, settings, kept)
        with av.open(str(temporary), "w", format=container, container_options=options) as out:
            video, copies = layout.add_to(out)
            out.set_chapters(chapters(opened, window))
            with_delay = layout.with_delay() if container in _MATROSKA else frozenset()
            copying = Copying(opened, copies, window, with_delay)
            numbers, place = stream_templates.track_numbers(out), video.index
            for packet in interleaved(_pictures(job, video, window, settings), copying.packets()):
                out.mux(packet)
        if container in _MATROSKA:
            amendments = {
                numbers[index]: matroska.Amendment(delay=round(delay * 10**9))
                for index, delay in copying.delays.items()
                if delay
            }
            if settings.aspect is not None:
                shape = _shape(settings, settings.aspect)
                amendments[numbers[place]] = matroska.Amendment(display=shape)
            if amendments:
                matroska.amend(temporary, amendments)
        left_out += (*copying.late, *tags.lost(opened, temporary))
    return MuxResult(len(kept), left_out, copying.damage)


@dataclass(frozen=True)
class _Layout:
    """The streams of the new file, in the order of the source's."""

    source: InputContainer
    info: Info
    settings: EncoderSettings
    description: Description
    kept: list[Stream]
    extradata: bytes

    def add_to(self, out: OutputContainer) -> tuple[Any, list[stream_templates.Copied]]:
        """Add all streams and tags to a file; return the new video, and the copies."""
        copies = []
        for old in self.source.streams:
            if old.index == self.info.stream:
                video = stream_templates.add_video(
                    out, self.description, self.settings, constant=_is_constant(old)
                )
                video.codec_context.extradata = self.extradata or None
                tags.copy_to_video(video, self.source, self.info, out.format.name)
            elif old in self.kept:
                copies.append(stream_templates.add_copy(out, old))
        out.metadata.update(tags.of_file(self.source))
        return video, copies

    def with_delay(self) -> frozenset[int]:
        """Return the indices of sounds whose delay the writer of Matroska does not know."""
        header = io.BytesIO()
        with av.open(header, "w", format="matroska") as out:
            self.add_to(out)
            out.start_encoding()
            numbers = stream_templates.track_numbers(out)
            sounds = {each.index for each in out.streams if each.type == "audio"}
        known = matroska.tracks_with_delay(header.getvalue())
        return frozenset(each for each in sounds if numbers[each] not in known)


def _pictures(
    job: TranscodeJob, video: Any, window: TimeWindow, settings: EncoderSettings
) -> Iterator[tuple[Fraction, av.Packet[Any]]]:
    """Yield the packets of the job, each with when it is decoded."""
    base = settings.time_base
    shift = round(window.origin / base)
    before = None
    for each, dts in job.packets():
        packet: Any = av.Packet(each.data)
        packet.stream = video
        packet.time_base = base
        packet.pts, packet.dts = each.pts - shift, dts - shift
        # Of the last picture nothing else tells how long it is shown.
        packet.duration = each.duration or (0 if before is None else dts - before)
        before = dts
        packet.is_keyframe = each.keyframe
        yield packet.dts * base, packet


def _window(info: Info, job: TranscodeJob, start: float | None, end: float | None) -> TimeWindow:
    limit = None if end is None else info.zero + Fraction(str(end))
    if start is not None:
        first = job.segments[0].first_pts * info.time_base
        return TimeWindow(first, first, limit)
    # Broadcasts begin at any time of a clock of their own, which means nothing in a file.
    return TimeWindow(info.zero if info.container in _BROADCAST else Fraction(0), None, limit)


def _options(
    container: str, info: Info, settings: EncoderSettings, kept: list[Stream]
) -> dict[str, str]:
    """Return what the container's writer is told: for MP4, to keep times exactly."""
    # Matroska's identifiers are random otherwise; the same job shall give the same file.
    options = {"fflags": "+bitexact"}
    if container in _MATROSKA:
        return options
    base = settings.time_base.denominator
    options["movflags"] = "+faststart"
    if all(each.type != "video" for each in kept):
        options["video_track_timescale"] = str(base)
    rates = [each.time_base.denominator for each in kept if each.type == "audio" and each.time_base]
    common = math.lcm(base, *rates)
    # Starts of tracks are counted in it; by default it is too coarse, thousandths of a second.
    fits = common * float(info.duration or 0) < _LONGEST and common < _LARGEST_TIMESCALE
    options["movie_timescale"] = str(common if fits else base)
    return options


def _shape(settings: EncoderSettings, aspect: Fraction) -> tuple[int, int]:
    """Return the size in which the picture is shown: in exactly its shape, no lower than it is."""
    ratio = Fraction(settings.width, settings.height) * aspect
    times = math.ceil(settings.height / ratio.denominator)
    return times * ratio.numerator, times * ratio.denominator


def _is_constant(stream: Any) -> bool:
    """Return whether every picture of a video is shown as long as the others."""
    average, base = stream.average_rate, stream.base_rate
    return bool(average and base) and abs(average / base - 1) < _SAME_RATE


def _codec(settings: EncoderSettings) -> str:
    return av.Codec(settings.encoder, "w").canonical_name


def _opened(source: Path) -> InputContainer:
    try:
        return av.open(str(source), metadata_errors="replace")
    except av.FFmpegError as error:
        raise VideoError(f"{source}: cannot be read: {error.strerror or error}") from None


@contextlib.contextmanager
def _saying(target: Path) -> Iterator[None]:
    """Turn the errors of writing into ours."""
    try:
        yield
    except SrDeployError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{target}: cannot be written: {error.strerror or error}; the finished segments are "
            "kept: set it right, then go on with --resume"
        ) from error
