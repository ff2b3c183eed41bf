"""Encoding: choice of encoder and options, and the packets that it returns."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.video.frame import PictureType

from sr_deploy import machine
from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video.color import FULL, LIMITED, RGB, UNKNOWN, UNSPECIFIED, Color
from sr_deploy.video.encoders import (
    ALIASES,
    ENCODERS,
    EncoderTraits,
    choose_pixel_format,
    default_encoder,
)
from sr_deploy.video.sample_layout import layout
from sr_deploy.video.segments import EncodedPacket

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sr_deploy.video.source import VideoInfo

_GLOBAL_HEADER = 1 << 22
_APPLE = (".mp4", ".m4v", ".mov")
_PRORES_HQ, _PRORES_4444 = "3", "4"


@dataclass(frozen=True)
class EncoderOptions:
    """The user's choice of an encoder.

    Attributes:
        encoder: FFmpeg's name, or one of "h264", "hevc", "av1", "vp9", "prores", "ffv1"; None for
            the default of source and container.
        quality: In the encoder's own scale (CRF, CQ, ...); None for its default.
        preset: Of the encoder; None for its default.
        pixel_format: None for the source's, or the nearest without loss.
        options: More options of the encoder, which override all others.
    """

    encoder: str | None = None
    quality: float | None = None
    preset: str | None = None
    pixel_format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class EncoderSettings:
    """All settings of an encoder; equal settings give equal bytes.

    Attributes:
        encoder: FFmpeg's name.
        pixel_format: Of the frames.
        width: Of the frames.
        height: Of the frames.
        time_base: Of the timestamps of frames and packets.
        rate: Frames per second, on average.
        aspect: Of a sample; None if unspecified.
        color: Color tags.
        options: Of the encoder.
        threads: Of the encoder.
        tag: The codec's four letters in the container; None for the container's default.
        notes: Messages for the user.
    """

    encoder: str
    pixel_format: str
    width: int
    height: int
    time_base: Fraction
    rate: Fraction
    aspect: Fraction | None
    color: Color
    options: Mapping[str, str]
    threads: int
    tag: str | None
    notes: tuple[str, ...] = ()

    @property
    def codec(self) -> str:
        """FFmpeg's name of the codec."""
        return av.Codec(self.encoder, "w").canonical_name

    def configure(self, context: av.VideoCodecContext) -> None:
        """Apply the settings to an encoder, or to the stream of a container, before it opens."""
        context.width, context.height = self.width, self.height
        context.pix_fmt = self.pixel_format
        context.time_base = self.time_base
        context.framerate = self.rate
        if self.aspect is not None:
            context.sample_aspect_ratio = self.aspect
        self.color.apply_to(context)
        context.options = dict(self.options)
        context.thread_count = self.threads
        # With PyAV's default, slices only, x264 would split every frame into one slice per thread.
        context.thread_type = "AUTO"
        context.flags |= _GLOBAL_HEADER
        if self.tag is not None:
            context.codec_tag = self.tag


def choose(
    info: VideoInfo,
    size: tuple[int, int],
    suffix: str,
    wanted: EncoderOptions | None = None,
    *,
    threads: int | None = None,
) -> EncoderSettings:
    """Return the settings for a video, after a trial of the encoder.

    Args:
        info: Of the source.
        size: Width and height of the frames.
        suffix: Of the output file (".mkv").
        wanted: The user's choice.
        threads: None for the number of physical cores.

    Raises:
        InvalidInputError: An option does not fit; the message lists alternatives.
    """
    wanted = wanted or EncoderOptions()
    suffix = suffix.lower()
    name = wanted.encoder or default_encoder(info.codec, info.bits, suffix)
    name = ALIASES.get(name, name)
    _check_available(name)
    pixel_format, notes = choose_pixel_format(name, info.pixel_format, size, wanted.pixel_format)
    threads = threads or machine.cores()
    traits = ENCODERS.get(name, EncoderTraits())
    profile = {}
    if name == "prores_ks":
        profile["profile"] = _PRORES_HQ if layout(pixel_format).across == 2 else _PRORES_4444
    settings = EncoderSettings(
        encoder=name,
        pixel_format=pixel_format,
        width=size[0],
        height=size[1],
        time_base=info.time_base,
        rate=info.rate or Fraction(25),
        aspect=info.aspect,
        color=_output_color(info, size, name, pixel_format),
        options={
            **traits.options,
            **traits.with_quality(name, wanted.quality),
            **traits.with_preset(name, wanted.preset),
            **profile,
            **wanted.options,
            **_params(traits, info, threads, wanted.options),
        },
        threads=threads,
        tag=None,
        notes=notes,
    )
    if suffix in _APPLE and "hevc" in settings.codec:
        settings = replace(settings, tag="hvc1")
    Encoder(settings)  # a setting that the encoder rejects ends the job before any work
    return settings


def _check_available(name: str) -> None:
    try:
        found = av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        found = None
    if found is None or found.type != "video":
        known = [each for each in ENCODERS if each in av.codecs_available]
        raise InvalidInputError(
            f"encoder {name!r}: not available in this PyAV; available are, among others, "
            f"{', '.join((*ALIASES, *known))}"
        )


def _params(
    traits: EncoderTraits, info: VideoInfo, threads: int, options: Mapping[str, str]
) -> Mapping[str, str]:
    """Return the encoder's own parameters: ours, then the user's, which override them."""
    if not traits.params:
        return {}
    ours: dict[str, str] = {}
    if traits.fixed is not None:
        ours.update(traits.fixed(threads))
    if traits.hdr is not None and info.hdr is not None:
        ours.update(traits.hdr(info.hdr))
    parts = [*(f"{key}={value}" for key, value in ours.items()), options.get(traits.params, "")]
    text = ":".join(part for part in parts if part)
    return {traits.params: text} if text else {}


def _output_color(info: VideoInfo, size: tuple[int, int], encoder: str, pixel_format: str) -> Color:
    """Return the source's tags where the new pixel format allows them."""
    source, target = layout(info.pixel_format), layout(pixel_format)
    tags = info.color.resized(info.pixel_format, (info.width, info.height), size)
    if target.rgb:
        return replace(tags, matrix=RGB)
    if source.rgb:
        return replace(tags, matrix=UNSPECIFIED, range=UNKNOWN)
    if encoder == "prores_ks":  # has limited range only; its ten bits hold all that eight held
        return replace(tags, range=LIMITED)
    if source.colors < target.colors:
        return replace(tags, range=tags.range or FULL)
    return tags


class Encoder:
    """Encodes the frames of a video, or of a segment of it; the first becomes a keyframe.

    Attributes:
        extradata: The encoder's global header, known from the start.

    Raises:
        InvalidInputError: The encoder rejects the settings, or is missing on this machine.
    """

    extradata: bytes

    def __init__(self, settings: EncoderSettings) -> None:
        self._settings = settings
        if settings.encoder == "libsvtav1":  # it writes to stderr whatever FFmpeg's log level
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
                f"{settings.encoder} cannot encode {settings.width}x{settings.height} "
                f"{settings.pixel_format} with {options or 'no options'}: "
                f"{getattr(error, 'strerror', None) or error}; the hardware may be missing, "
                "or an option may be wrong"
            ) from error
        self._durations: dict[int, int] = {}
        self.extradata = context.extradata or b""

    def encode(self, frame: av.VideoFrame | None) -> Iterator[EncodedPacket]:
        """Encode a frame and yield the packets that are ready, in decoding order.

        Args:
            frame: None, after the last frame, for the remaining packets.

        Raises:
            VideoError: The encoder failed.
        """
        if frame is not None:
            assert frame.pts is not None
            found = frame.width, frame.height, frame.format.name
            wanted = self._settings.width, self._settings.height, self._settings.pixel_format
            assert found == wanted, f"a frame is {found}, the encoder is set to {wanted}"
            frame.pict_type = PictureType.NONE  # the source's picture type must not be forced
            self._durations[frame.pts] = frame.duration
        try:
            packets = self._context.encode(frame)
        except (av.error.FFmpegError, OSError) as error:
            raise VideoError(
                f"{self._settings.encoder} failed: {error.strerror or error}"
            ) from error
        for packet in packets:
            assert packet.pts is not None
            duration = self._durations.pop(packet.pts)
            yield EncodedPacket(bytes(packet), packet.pts, duration, keyframe=packet.is_keyframe)
