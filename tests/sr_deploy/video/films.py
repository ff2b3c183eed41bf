"""Test files with every kind of stream, and jobs with their upscaled video."""

from __future__ import annotations

import contextlib
import functools
import io
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.sidedata.sidedata import Type
from PIL import Image

from sr_deploy.video.color import Color, HdrMetadata
from sr_deploy.video.decode import open_container
from sr_deploy.video.encode import EncoderSettings
from sr_deploy.video.job import TranscodeJob
from sr_deploy.video.mux import Muxer, MuxResult
from sr_deploy.video.segments import EncodedPacket
from sr_deploy.video.source import FrameSelection, VideoInfo
from sr_deploy.video.source_streams import StreamReader
from tests.sr_deploy.video import clips

SCALE = 2


def _jpeg() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(file, "jpeg")
    return file.getvalue()


COVER = _jpeg()
_MOV_TEXT = Path(__file__).with_name("mov_text.mp4")
# As MP4 has them: each text behind its length in bytes.
_SPOKEN = ((0, 2500, "\0\x05Hello"), (2500, 2500, "\0\x03Two"), (5000, 2000, "\0\x05Three"))


@dataclass(frozen=True)
class Sound:
    """An audio track: a tone with its tags."""

    language: str
    title: str = ""
    disposition: int = 0
    codec: str = "aac"
    rate: int = 44100


@dataclass(frozen=True)
class Film:
    """A file; `write` writes it.

    Attributes:
        clip: The pictures.
        sounds: Its tracks of sound.
        subtitles: Texts with their beginning and duration in milliseconds.
        attachments: Files by their names.
        chapters: Their titles; each takes half a second.
        tags: Of the whole file.
        video_tags: Of the video.
        seconds: Of the sound.
        sound_start: Seconds by which the sound begins later.
    """

    clip: clips.Clip = field(default_factory=lambda: clips.Clip(count=50))
    sounds: Sequence[Sound] = ()
    subtitles: Sequence[tuple[int, int, str]] = ()
    attachments: Mapping[str, bytes] = field(default_factory=dict)
    chapters: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    video_tags: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 2.0
    sound_start: Fraction = Fraction(0)
    cover: bool = False

    def write(self, path: Path) -> Path:
        """Write the film and return the path."""
        # The default unit of milliseconds is too coarse for the start of an audio track.
        options = {"movie_timescale": "705600"} if path.suffix in (".mp4", ".mov") else {}
        with av.open(str(path), "w", container_options=options) as out:
            video: Any = out.add_stream(
                self.clip.codec, rate=self.clip.rate, options=dict(self.clip.options)
            )
            self.clip.configure(video.codec_context)
            video.metadata.update(self.video_tags)
            sounds = [self._add_sound(out, each) for each in self.sounds]
            texts = self._add_subtitles(out)
            cover = self._add_cover(out)
            for name, data in self.attachments.items():
                out.add_attachment(name, "font/ttf", data)
            out.metadata.update(self.tags)
            out.set_chapters([_chapter(*each) for each in enumerate(self.chapters)])
            packets = [*self._texts(texts), *self._pictures(video)]
            for sound in sounds:
                packets += self._tone(sound)
            if cover is not None:
                packets += [cover]
            for packet in sorted(packets, key=_decoded):
                out.mux(packet)
        return path

    def _add_sound(self, out: Any, sound: Sound) -> Any:
        stream = out.add_stream(sound.codec, rate=sound.rate)
        stream.metadata["language"] = sound.language
        if sound.title:
            stream.metadata["title"] = sound.title
        stream.disposition = sound.disposition
        return stream

    def _add_subtitles(self, out: Any) -> Any:
        if not self.subtitles:
            return None
        with av.open(io.BytesIO(b"1\n00:00:00,000 --> 00:00:01,000\nx\n\n"), format="srt") as text:
            stream = out.add_stream_from_template(text.streams[0], opaque=True)
        stream.metadata["language"] = "fra"
        stream.disposition = 64  # forced
        return stream

    def _add_cover(self, out: Any) -> Any:
        if not self.cover:
            return None
        if out.format.name == "matroska":
            out.add_attachment("cover.jpg", "image/jpeg", COVER)
            return None
        with av.open(io.BytesIO(COVER)) as image:
            stream = out.add_stream_from_template(image.streams[0], opaque=True)
            packet: Any = next(image.demux())
        stream.disposition = 1024
        packet.stream = stream
        packet.pts = packet.dts = 0
        return packet

    def _pictures(self, stream: Any) -> Iterator[Any]:
        for frame in self.clip.frames():
            yield from stream.encode(frame)
        yield from stream.encode()

    def _tone(self, stream: Any) -> Iterator[Any]:
        rate = stream.codec_context.sample_rate
        size = stream.codec_context.frame_size or 1024
        count = int(self.seconds * rate)
        for start in range(0, count, size):
            wave = np.sin(np.arange(start, min(count, start + size)) / 20) / 2
            frame = _samples(wave, stream.codec_context.format.name)
            frame.rate, frame.time_base = rate, Fraction(1, rate)
            frame.pts = start + round(self.sound_start * rate)
            yield from stream.encode(frame)
        yield from stream.encode()

    def _texts(self, stream: Any) -> Iterator[Any]:
        for start, duration, text in self.subtitles:
            packet: Any = av.Packet(text.encode())
            packet.stream = stream
            packet.time_base = Fraction(1, 1000)
            packet.pts = packet.dts = start
            packet.duration = duration
            yield packet


def two_programs(path: Path) -> Path:
    """Write an MP4 of 7 s: a small video, a sound and subtitles, then the same with a larger video.

    Streams 0 and 3 are the videos; the first has one keyframe only.
    """
    packets: list[Any] = []
    # Not every PyAV opens an encoder of mov_text; a stream of a file serves as the template.
    with av.open(str(_MOV_TEXT)) as texts, av.open(str(path), "w") as out:
        for clip in (clips.Clip(175), clips.Clip(210, size=(96, 64), rate=Fraction(30))):
            options = {"preset": "ultrafast", "bf": "2", "g": "250"}
            video: Any = out.add_stream(clip.codec, rate=clip.rate, options=options)
            clip.configure(video.codec_context)
            sound: Any = out.add_stream("aac", rate=16000)
            text: Any = out.add_stream_from_template(texts.streams[0], opaque=True)
            for stream in (video, sound, text):
                stream.metadata["language"] = "eng"
                stream.disposition = 1  # default
            film = Film(clip, subtitles=_SPOKEN, seconds=7.0)
            packets += [*film._pictures(video), *film._tone(sound), *film._texts(text)]
        for packet in sorted(packets, key=_decoded):
            out.mux(packet)
    return path


def info_of(path: Path, stream: int | None = None, hdr: HdrMetadata | None = None) -> VideoInfo:
    """Return the properties of a video, read independently of `VideoSource`."""
    with av.open(str(path)) as container:
        video: Any = container.streams.video[0] if stream is None else container.streams[stream]
        context = video.codec_context
        zero = Fraction(container.start_time or 0, av.time_base)
        first: Any = next(container.decode(video))
        matrix = first.side_data.get(Type.DISPLAYMATRIX)
        return VideoInfo(
            width=context.width,
            height=context.height,
            stream=video.index,
            codec=context.name,
            container=container.format.name,
            pixel_format=context.pix_fmt,
            bits=8,
            time_base=video.time_base,
            rate=video.average_rate,
            aspect=video.sample_aspect_ratio,
            color=Color(
                context.colorspace,
                context.color_range,
                context.color_primaries,
                context.color_trc,
            ),
            hdr=hdr,
            display_matrix=None if matrix is None else struct.unpack("=9i", bytes(matrix)[:36]),
            interlaced=False,
            frames=None,
            duration=None,
            zero=zero,
        )


@contextlib.contextmanager
def muxer(
    source: Path,
    info: VideoInfo,
    settings: EncoderSettings,
    target: Path,
    drop: Sequence[str] = (),
) -> Iterator[Muxer]:
    """Open a source and yield the muxer of its output file."""
    with (
        open_container(source) as container,
        StreamReader(source, container, info.stream) as reader,
    ):
        yield Muxer(reader, info, settings, target, drop)


def write(
    job: TranscodeJob,
    source: Path,
    info: VideoInfo,
    settings: EncoderSettings,
    target: Path,
    drop: Sequence[str] = (),
    **selection: Any,
) -> MuxResult:
    """Write the output file of a job."""
    with muxer(source, info, settings, target, drop) as opened:
        return opened.write(job, FrameSelection(**selection))


def settings_of(info: VideoInfo, encoder: str = "libx264", **changes: Any) -> EncoderSettings:
    """Return settings for pictures of twice the size."""
    return replace(
        EncoderSettings(
            encoder=encoder,
            pixel_format=info.pixel_format,
            width=SCALE * info.width,
            height=SCALE * info.height,
            time_base=info.time_base,
            rate=info.rate or Fraction(25),
            aspect=info.aspect,
            color=info.color,
            options={"preset": "ultrafast", "bf": "2"} if encoder == "libx264" else {},
            threads=1,
            tag=None,
        ),
        **changes,
    )


def times_of(path: Path, stream: int) -> list[int]:
    """Return the presentation times of a video."""
    with av.open(str(path)) as container:
        frames: Any = container.decode(container.streams[stream])
        return [frame.pts for frame in frames]


def encoded(settings: EncoderSettings, times: Sequence[int]) -> tuple[bytes, list[EncodedPacket]]:
    """Encode pictures as one segment; return the global header and the packets."""
    context: Any = av.CodecContext.create(settings.encoder, "w")
    context.width, context.height = settings.width, settings.height
    context.pix_fmt, context.time_base = settings.pixel_format, settings.time_base
    context.framerate = settings.rate
    settings.color.apply_to(context)
    context.options = dict(settings.options)
    context.thread_count = 1
    context.flags |= 1 << 22  # global header
    context.open()
    packets = []
    for number, time in enumerate(times):
        frame = _picture(settings.pixel_format, settings.width, settings.height, number % 4)
        frame.pts, frame.time_base = time, settings.time_base
        packets += context.encode(frame)
    packets += context.encode(None)
    return context.extradata or b"", [
        EncodedPacket(bytes(each), each.pts, each.duration or 0, keyframe=each.is_keyframe)
        for each in packets
    ]


_picture = functools.lru_cache(maxsize=4)(clips.picture)


def upscaled(
    target: Path, settings: EncoderSettings, times: Sequence[int], length: int = 12
) -> TranscodeJob:
    """Return a finished job with pictures in segments of `length`."""
    job = TranscodeJob(target, {})
    for start in range(0, len(times), length):
        job.add(*encoded(settings, times[start : start + length]))
    job.finish()
    return job


def _chapter(number: int, title: str) -> Any:
    return {
        "id": number + 1,
        "start": 500 * number,
        "end": 500 * (number + 1),
        "time_base": Fraction(1, 1000),
        "metadata": {"title": title},
    }


def _samples(wave: Any, sample_format: str) -> Any:
    stereo = np.stack([wave, wave])
    samples = stereo.astype(np.float32)
    if sample_format.startswith("s16"):
        samples = (stereo * 32767).astype(np.int16)
    if not sample_format.endswith("p"):
        samples = np.ascontiguousarray(samples.T).reshape(1, -1)
    return av.AudioFrame.from_ndarray(samples, format=sample_format, layout="stereo")


def _decoded(packet: Any) -> Fraction:
    time = packet.dts if packet.dts is not None else packet.pts
    return Fraction(time) * Fraction(packet.time_base)
