"""Encoding frames: which encoder, with which options, and the packets that come out."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.video.frame import PictureType

from sr_deploy import machine
from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video import pixel_format as formats
from sr_deploy.video.color import FULL, LIMITED, RGB, UNKNOWN, UNSPECIFIED, Color
from sr_deploy.video.encoders import CODERS, NAMES, Coder, default_encoder
from sr_deploy.video.packets import Packet
from sr_deploy.video.sample_layout import layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from sr_deploy.video.info import Info

_GLOBAL_HEADER = 1 << 22
_APPLE = (".mp4", ".m4v", ".mov")
_PRORES_HQ, _PRORES_4444 = "3", "4"


@dataclass(frozen=True)
class EncoderSettings:
    """Everything that decides what an encoder writes; equal settings give equal bytes.

    Attributes:
        encoder: FFmpeg's name.
        pixel_format: Of the frames that go in.
        width: Of the frames.
        height: Of the frames.
        time_base: Of the frames' and packets' timestamps.
        rate: Frames a second, on average.
        aspect: Of a sample; None: not said.
        colour: The colour tags.
        options: Of the encoder.
        threads: Of the encoder.
        tag: The codec's four letters in the container; None: the container's own.
        notes: What the user should be told, a sentence each.
    """

    encoder: str
    pixel_format: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    aspect: Fraction | None
    colour: Color
    options: Mapping[str, str]
    threads: int
    tag: str | None
    notes: tuple[str, ...] = ()

    def configure(self, context: av.VideoCodecContext) -> None:
        """Put the settings on an encoder, or on the stream of a container, that is not open."""
        context.width, context.height = self.width, self.height
        context.pix_fmt = self.pixel_format
        context.time_base = self.time_base
        context.framerate = self.rate
        if self.aspect is not None:
            context.sample_aspect_ratio = self.aspect
        self.colour.tag(context)
        context.options = dict(self.options)
        context.thread_count = self.threads
        # PyAV's default, slices alone, would have x264 cut every frame into one per thread.
        context.thread_type = "AUTO"
        context.flags |= _GLOBAL_HEADER
        if self.tag is not None:
            context.codec_tag = self.tag


def choose(
    info: Info,
    size: tuple[int, int],
    container: str,
    *,
    encoder: str | None = None,
    quality: float | None = None,
    preset: str | None = None,
    pixel_format: str | None = None,
    options: Mapping[str, str] | None = None,
    threads: int | None = None,
) -> EncoderSettings:
    """Decide how a video is encoded.

    Args:
        info: The source.
        size: Width and height of the frames that are encoded.
        container: The suffix of the file that is written (".mkv").
        encoder: FFmpeg's name, or one of "h264", "hevc", "av1", "vp9", "prores", "ffv1"; None: what
            suits source and container.
        quality: In the encoder's own measure (CRF, CQ, ...); None: its default here.
        preset: Of the encoder; None: its default here.
        pixel_format: None: the source's, or the nearest that the encoder takes and loses nothing.
        options: More options of the encoder, which go before all others.
        threads: None: as many as this process has real cores.

    Raises:
        InvalidInputError: an argument does not fit; the text says what does.
    """
    container = container.lower()
    name = encoder or default_encoder(info.codec, info.bits, container)
    name = NAMES.get(name, name)
    _check_known(name)
    if pixel_format is None:
        pixel_format, notes = formats.nearest(name, info.pixel_format, size)
    else:
        pixel_format, notes = formats.asked(name, pixel_format, size), ()
    count = threads or machine.cores()
    coder = CODERS.get(name, Coder())
    settings = EncoderSettings(
        encoder=name,
        pixel_format=pixel_format,
        width=size[0],
        height=size[1],
        time_base=info.time_base,
        rate=info.rate or Fraction(25),
        aspect=info.aspect,
        colour=_colour(info, size, name, pixel_format),
        options={
            **coder.options,
            **coder.with_quality(name, quality),
            **coder.with_preset(name, preset),
            **_profile(name, pixel_format),
            **_own(coder, info, count, options or {}),
        },
        threads=count,
        tag="hvc1" if container in _APPLE and "hevc" in _codec(name) else None,
        notes=notes,
    )
    Encoder(settings)  # so that what the encoder refuses is said before any work is done
    return settings


def _check_known(name: str) -> None:
    try:
        found = av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        found = None
    if found is None or found.type != "video":
        known = [each for each in CODERS if each in av.codecs_available]
        raise InvalidInputError(
            f"encoder {name!r}: this PyAV has none of that name; among others it has "
            f"{', '.join((*NAMES, *known))}"
        )


def _codec(name: str) -> str:
    return av.Codec(name, "w").canonical_name


def _profile(name: str, pixel_format: str) -> Mapping[str, str]:
    if name != "prores_ks":
        return {}
    return {"profile": _PRORES_HQ if layout(pixel_format).across == 2 else _PRORES_4444}


def _own(coder: Coder, info: Info, threads: int, asked: Mapping[str, str]) -> Mapping[str, str]:
    """Return the options that the user names; with the encoder's own parameters, those of here."""
    if not coder.params:
        return asked
    own: dict[str, str] = {}
    if coder.fixed is not None:
        own.update(coder.fixed(threads))
    if coder.light is not None and info.hdr is not None:
        own.update(coder.light(info.hdr))
    text = ":".join(f"{key}={value}" for key, value in own.items())
    both = ":".join(part for part in (text, asked.get(coder.params, "")) if part)
    return {**asked, coder.params: both} if both else asked


def _colour(info: Info, size: tuple[int, int], encoder: str, pixel_format: str) -> Color:
    """Return the tags of the new video: those of the source, where the format allows."""
    source, target = layout(info.pixel_format), layout(pixel_format)
    tags = info.colour.carried(info.pixel_format, (info.width, info.height), size)
    if target.rgb:
        return replace(tags, matrix=RGB)
    if source.rgb:
        return replace(tags, matrix=UNSPECIFIED, range=UNKNOWN)
    if encoder == "prores_ks":  # cannot say another; its ten bits hold all that eight held
        return replace(tags, range=LIMITED)
    if source.colours < target.colours:
        return replace(tags, range=tags.range or FULL)
    return tags


class Encoder:
    """Encodes frames of one video, or of a piece of it; the first is a keyframe.

    Args:
        settings: How.

    Attributes:
        extradata: What the container's header must hold, known from the beginning.

    Raises:
        InvalidInputError: the encoder refuses the settings, or is not on this machine.
    """

    extradata: bytes

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        if settings.encoder == "libsvtav1":  # it writes to stderr, whatever FFmpeg is told
            os.environ.setdefault("SVT_LOG", "1")
        context = av.CodecContext.create(settings.encoder, "w")
        assert isinstance(context, av.VideoCodecContext)
        self._context = context
        try:
            settings.configure(context)
            context.open()
        except (av.error.FFmpegError, ValueError, OSError) as error:
            options = " ".join(f"{key}={value}" for key, value in settings.options.items())
            raise InvalidInputError(
                f"{settings.encoder} cannot be used for {settings.width}x{settings.height} "
                f"{settings.pixel_format} with {options or 'no options'}: "
                f"{getattr(error, 'strerror', None) or error}; the machine may lack what it needs, "
                "or an option may be wrong"
            ) from error
        self._durations: dict[int, int] = {}
        self.extradata = context.extradata or b""

    def encode(self, frame: av.VideoFrame) -> Iterator[Packet]:
        """Encode a frame and yield the packets that are ready, in the order of decoding.

        Raises:
            VideoError: the encoder failed.
        """
        assert frame.pts is not None
        found = frame.width, frame.height, frame.format.name
        wanted = self._settings.width, self._settings.height, self._settings.pixel_format
        assert found == wanted, f"a frame is {found}, the encoder is set to {wanted}"
        frame.pict_type = PictureType.NONE  # what it was in the source must not be forced here
        self._durations[frame.pts] = frame.duration
        yield from self._packets(self._encoded(frame))

    def finish(self) -> Iterator[Packet]:
        """Yield the packets that are left; no frame may come after.

        Raises:
            VideoError: the encoder failed.
        """
        yield from self._packets(self._encoded(None))

    def _encoded(self, frame: av.VideoFrame | None) -> Iterable[av.Packet[av.VideoStream]]:
        try:
            return self._context.encode(frame)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(
                f"{self._settings.encoder} failed: {error.strerror or error}"
            ) from error

    def _packets(self, packets: Iterable[av.Packet[av.VideoStream]]) -> Iterator[Packet]:
        for packet in packets:
            assert packet.pts is not None
            duration = self._durations.pop(packet.pts)
            yield Packet(bytes(packet), packet.pts, duration, keyframe=packet.is_keyframe)
