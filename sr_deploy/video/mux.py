"""The output file: the new pictures, and everything else of the source as it was."""

from __future__ import annotations

import contextlib
import heapq
import io
import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from sr_deploy.errors import SrDeployError, VideoError
from sr_deploy.files import atomic_file
from sr_deploy.video import matroska, streams
from sr_deploy.video.copy_streams import StreamCopier, TimeWindow, chapters
from sr_deploy.video.decode import open_container
from sr_deploy.video.mp4_template import UPRIGHT, Mp4Template, scaled_matrix

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from av.container import OutputContainer

    from sr_deploy.video.encode import EncoderSettings
    from sr_deploy.video.job import TranscodeJob
    from sr_deploy.video.source import FrameSelection, VideoInfo
    from sr_deploy.video.source_streams import StreamReader

    Packets = Iterator[tuple[Fraction, av.Packet[Any]]]

_BROADCAST = ("mpegts", "mpeg")
_LARGEST_TIMESCALE = 1 << 31
_LONGEST = 1 << 32
"""Longest duration for old readers of MP4, in units of the movie's timescale."""


@dataclass(frozen=True)
class MuxResult:
    """Outcome of writing a file.

    Attributes:
        dropped: Notes on what was dropped.
        damage: Why the source's other streams could not be read completely; None if they were.
    """

    dropped: tuple[str, ...]
    damage: str | None


class Muxer:
    """Writes an output file; its creation checks, before any work, that it can.

    Args:
        reader: Streams of the source.
        info: Of the source; its stream `info.stream` is replaced, all others are copied.
        settings: Of the encoder.
        target: The file; its suffix names the container.
        drop: Kinds of streams that may be dropped where the container cannot hold them: "audio",
            "video", "subtitle", "data", "attachment" or "all".

    Raises:
        InvalidInputError: The container cannot hold a stream; the message says which can.
    """

    def __init__(
        self,
        reader: StreamReader,
        info: VideoInfo,
        settings: EncoderSettings,
        target: Path,
        drop: Collection[str] = (),
    ) -> None:
        self._reader, self._info, self._settings, self._target = reader, info, settings, target
        self._container = streams.container_of(target.suffix, settings.codec, drop)
        self._kept, self._dropped = streams.streams_to_copy(reader, self._container, drop)
        factor = Fraction(settings.width, info.width)
        matrix = scaled_matrix(info.display_matrix or UPRIGHT, factor)
        self._template = Mp4Template(settings.codec, matrix, info.hdr)

    def write(self, job: TranscodeJob, selection: FrameSelection) -> MuxResult:
        """Write the job's packets and all other streams; the file appears when it is complete.

        Args:
            job: With all segments.
            selection: With a start, the file begins at 0 with the first picture.

        Raises:
            VideoError: The file cannot be written, or a segment is damaged.
        """
        with _write_errors(self._target), atomic_file(self._target, job.folder) as temporary:
            window = self._window(job, selection)
            options = self._options()
            with av.open(
                str(temporary), "w", format=self._container, container_options=options
            ) as out:
                video, copies = self._add_streams(out, job.extradata)
                out.set_chapters(chapters(self._reader.container, window))
                needs_delay = self._needs_delay(job.extradata)
                copier = StreamCopier(self._reader, copies, window, needs_delay)
                numbers, index = streams.track_numbers(out), video.index
                pictures = self._pictures(job, video, window)
                for packet in interleaved(pictures, copier.packets()):
                    out.mux(packet)
            if self._container in streams.MATROSKA:
                patches = {
                    numbers[track]: matroska.TrackPatch(delay=round(delay * 10**9))
                    for track, delay in copier.delays.items()
                    if delay
                }
                if self._settings.aspect is not None:
                    size = _display_size(self._settings, self._settings.aspect)
                    patches[numbers[index]] = matroska.TrackPatch(display=size)
                if patches:
                    matroska.patch(temporary, patches)
            with open_container(temporary) as written:
                lost = streams.lost_tags(self._reader.container, written)
        return MuxResult((*self._dropped, *copier.notes, *lost), copier.damage)

    def _add_streams(
        self, out: OutputContainer, extradata: bytes
    ) -> tuple[Any, list[streams.StreamCopy]]:
        """Add all streams and tags in the source's order; return the new video and the copies."""
        copies = []
        for old in self._reader.container.streams:
            if old is self._reader.video:
                video = streams.add_video(out, old, self._template, self._settings)
                video.codec_context.extradata = extradata or None
            elif old in self._kept:
                copies.append(streams.add_copy(out, old, self._reader))
        out.metadata.update(streams.file_tags(self._reader.container))
        return video, copies

    def _needs_delay(self, extradata: bytes) -> frozenset[int]:
        """Return the indices of audio streams whose delay Matroska's muxer does not know."""
        if self._container not in streams.MATROSKA:
            return frozenset()
        header = io.BytesIO()
        with av.open(header, "w", format="matroska") as out:
            self._add_streams(out, extradata)
            out.start_encoding()
            numbers = streams.track_numbers(out)
            audio = {each.index for each in out.streams if each.type == "audio"}
        known = matroska.tracks_with_delay(header.getvalue())
        return frozenset(each for each in audio if numbers[each] not in known)

    def _pictures(self, job: TranscodeJob, video: Any, window: TimeWindow) -> Packets:
        """Yield the packets of the job, each with its decoding time."""
        base = self._settings.time_base
        shift = round(window.origin / base)
        before = None
        for each, dts in job.packets():
            packet: Any = av.Packet(each.data)
            packet.stream = video
            packet.time_base = base
            packet.pts, packet.dts = each.pts - shift, dts - shift
            # Nothing else tells the duration of the last picture.
            packet.duration = each.duration or (0 if before is None else dts - before)
            before = dts
            packet.is_keyframe = each.keyframe
            yield packet.dts * base, packet

    def _window(self, job: TranscodeJob, selection: FrameSelection) -> TimeWindow:
        info = self._info
        end = None if selection.end is None else info.zero + Fraction(str(selection.end))
        if selection.start is not None:
            first = job.segments[0].first_pts * info.time_base
            return TimeWindow(first, first, end)
        # Broadcasts begin at any time of their own clock, which means nothing in a file.
        origin = info.zero if info.container in _BROADCAST else Fraction(0)
        return TimeWindow(origin, None, end)

    def _options(self) -> dict[str, str]:
        """Return the muxer's options: reproducible files, and exact times in MP4."""
        # Matroska's identifiers are random otherwise.
        options = {"fflags": "+bitexact"}
        if self._container in streams.MATROSKA:
            return options
        base = self._settings.time_base.denominator
        options["movflags"] = "+faststart"
        if all(each.type != "video" for each in self._kept):
            options["video_track_timescale"] = str(base)
        rates = [
            each.time_base.denominator
            for each in self._kept
            if each.type == "audio" and each.time_base
        ]
        common = math.lcm(base, *rates)
        # Starts of tracks are in its units; the default of a thousandth of a second is too coarse.
        fits = common * float(self._info.duration or 0) < _LONGEST and common < _LARGEST_TIMESCALE
        options["movie_timescale"] = str(common if fits else base)
        return options


def interleaved(pictures: Packets, others: Packets) -> Iterator[av.Packet[Any]]:
    """Yield the packets of both by their times, at equal times the picture first."""
    return (packet for _, packet in heapq.merge(pictures, others, key=lambda pair: pair[0]))


def _display_size(settings: EncoderSettings, aspect: Fraction) -> tuple[int, int]:
    """Return a size for display with the exact aspect ratio, at least as high as the picture."""
    ratio = Fraction(settings.width, settings.height) * aspect
    times = math.ceil(settings.height / ratio.denominator)
    return times * ratio.numerator, times * ratio.denominator


@contextlib.contextmanager
def _write_errors(target: Path) -> Iterator[None]:
    """Convert errors of writing to `VideoError`."""
    try:
        yield
    except SrDeployError:
        raise
    except (av.FFmpegError, OSError) as error:
        raise VideoError(
            f"{target}: cannot be written: {error.strerror or error}; the finished segments are "
            "kept: solve the problem, then continue with --resume"
        ) from error
