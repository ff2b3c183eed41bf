"""Supported encoders: options for quality and speed, defaults, and pixel formats."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import av

from sr_deploy.errors import InvalidInputError
from sr_deploy.video.sample_layout import layout, plain_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sr_deploy.video.color import HdrMetadata
    from sr_deploy.video.sample_layout import SampleLayout

    Options = Mapping[str, str]

_X26X = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_NVENC = tuple(f"p{i}" for i in range(1, 8))
_QSV = ("veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_AMF = ("speed", "balanced", "quality")
_LAMBDA = 118
"""FFmpeg's quality scale of VideoToolbox, in units of its own scale."""


@dataclass(frozen=True)
class EncoderTraits:
    """Options and limits of an encoder.

    Attributes:
        quality: Options for a quality.
        low: Lowest number of a quality.
        high: Highest number of a quality.
        default: Default quality.
        preset: Name of the option for speed; "" if there is none.
        presets: Allowed presets.
        default_preset: Default preset.
        options: Fixed options.
        odd: Accepts an odd width or height in formats with subsampled chroma.
        broken: Pixel formats that it accepts but encodes wrongly.
        params: Option with the encoder's own parameters; "" if there is none.
        fixed: Parameters, for a number of threads, that make equal input give equal output.
        hdr: Parameters for HDR10's static metadata.
    """

    quality: Callable[[float], Options] | None = None
    low: float = 0
    high: float = 0
    default: float = 0
    preset: str = ""
    presets: tuple[str, ...] = ()
    default_preset: str = ""
    options: Options = field(default_factory=dict)
    odd: bool = False
    broken: tuple[str, ...] = ()
    params: str = ""
    fixed: Callable[[int], Options] | None = None
    hdr: Callable[[HdrMetadata], Options] | None = None

    def with_quality(self, name: str, value: float | None) -> Options:
        """Return the options for a quality; None for the default.

        Raises:
            InvalidInputError: The encoder, called `name`, has no such quality.
        """
        if self.quality is None:
            if value is None:
                return {}
            raise InvalidInputError(
                f"quality {value:g}: {name} has no single quality option; leave it out, or set the "
                "encoder's own options"
            )
        value = self.default if value is None else value
        if not self.low <= value <= self.high:
            raise InvalidInputError(
                f"quality {value:g}: {name} takes {self.low} to {self.high} "
                f"(default: {self.default})"
            )
        return self.quality(value)

    def with_preset(self, name: str, preset: str | None) -> Options:
        """Return the option for a preset; None for the default.

        Raises:
            InvalidInputError: The encoder, called `name`, has no such preset.
        """
        if preset is not None and preset not in self.presets:
            raise InvalidInputError(
                f"preset {preset!r}: {name} has {', '.join(self.presets) or 'none'}"
            )
        return {self.preset: preset or self.default_preset} if self.preset else {}


def _crf(value: float) -> Options:
    return {"crf": f"{value:g}"}


def _nvenc_quality(value: float) -> Options:
    return {"rc": "vbr", "cq": f"{value:g}", "b": "0"}


def _qsv_quality(value: float) -> Options:
    return {"global_quality": f"{round(value)}"}


def _amf_quality(value: float) -> Options:
    number = f"{round(value)}"
    return {"rc": "cqp", "qp_i": number, "qp_p": number}


def _apple_quality(value: float) -> Options:
    return {"flags": "+qscale", "global_quality": f"{round(value * _LAMBDA)}"}


def _hdr_options(texts: tuple[str, str], *names: str) -> dict[str, str]:
    return {name: text for name, text in zip(names, texts, strict=True) if text}


def _x264_fixed(threads: int) -> Options:
    # Its lookahead in AVX-512 otherwise reads memory that nobody wrote, in widths that are not a
    # multiple of 128 (measured, builds 164 and 165): no two runs were the same.
    del threads
    return {"cpu-independent": "1"}


def _x265_fixed(threads: int) -> Options:
    return {"log-level": "error", "pools": f"{threads}", "frame-threads": f"{min(threads, 4)}"}


_NVENC_OPTIONS = {"tune": "hq"}
ENCODERS: Mapping[str, EncoderTraits] = {
    "libx264": EncoderTraits(
        *(_crf, 0, 51, 18, "preset", _X26X, "fast"),
        params="x264-params",
        fixed=_x264_fixed,
        hdr=lambda hdr: _hdr_options(hdr.as_integers(), "mastering-display", "cll"),
    ),
    "libx265": EncoderTraits(
        *(_crf, 0, 51, 20, "preset", _X26X, "fast"),
        broken=("gray", "gray10le", "gray12le"),  # it writes beyond its memory in odd heights
        params="x265-params",
        fixed=_x265_fixed,
        hdr=lambda hdr: {
            "hdr10": "1",
            **_hdr_options(hdr.as_integers(), "master-display", "max-cll"),
        },
    ),
    "libsvtav1": EncoderTraits(
        *(_crf, 1, 63, 25, "preset", tuple(map(str, range(14))), "8"),
        odd=True,
        params="svtav1-params",
        fixed=lambda threads: {"lp": f"{threads}"},
        hdr=lambda hdr: _hdr_options(hdr.as_decimals(), "mastering-display", "content-light"),
    ),
    "libvpx-vp9": EncoderTraits(
        *(_crf, 0, 63, 24, "cpu-used", tuple(map(str, range(9))), "3"),
        options={"b": "0", "row-mt": "1"},
        odd=True,
    ),
    "prores_ks": EncoderTraits(options={"vendor": "apl0"}, odd=True),
    "ffv1": EncoderTraits(
        options={"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}, odd=True
    ),
    "h264_nvenc": EncoderTraits(
        *(_nvenc_quality, 0, 51, 19, "preset", _NVENC, "p5"), options=_NVENC_OPTIONS
    ),
    "hevc_nvenc": EncoderTraits(
        *(_nvenc_quality, 0, 51, 21, "preset", _NVENC, "p5"), options=_NVENC_OPTIONS
    ),
    "av1_nvenc": EncoderTraits(
        *(_nvenc_quality, 0, 63, 27, "preset", _NVENC, "p5"), options=_NVENC_OPTIONS
    ),
    "h264_qsv": EncoderTraits(_qsv_quality, 1, 51, 20, "preset", _QSV, "medium"),
    "hevc_qsv": EncoderTraits(_qsv_quality, 1, 51, 22, "preset", _QSV, "medium"),
    "av1_qsv": EncoderTraits(_qsv_quality, 1, 255, 100, "preset", _QSV, "medium"),
    "h264_amf": EncoderTraits(_amf_quality, 0, 51, 20, "quality", _AMF, "quality"),
    "hevc_amf": EncoderTraits(_amf_quality, 0, 51, 22, "quality", _AMF, "quality"),
    "av1_amf": EncoderTraits(_amf_quality, 0, 255, 90, "quality", _AMF, "quality"),
    "h264_videotoolbox": EncoderTraits(_apple_quality, 1, 100, 65),
    "hevc_videotoolbox": EncoderTraits(_apple_quality, 1, 100, 65),
}
"""By FFmpeg's name; other encoders work, too, with the options that the user sets."""

ALIASES = {
    "h264": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
"""Encoders by the names of their codecs."""

_LOSSLESS = frozenset(
    ("ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "rawvideo", "png", "qtrle", "v210")
)
_INTERMEDIATE = frozenset(("prores", "dnxhd", "cfhd"))
_SAME_CODEC = {"hevc": "libx265", "av1": "libsvtav1"}


def default_encoder(codec: str, bits: int, suffix: str) -> str:
    """Return the encoder for a source's codec and bit depth and the output's suffix."""
    if suffix == ".webm":
        return "libsvtav1"
    if codec in _LOSSLESS and suffix in (".mkv", ".avi"):
        return "ffv1"
    if codec in (_INTERMEDIATE | _LOSSLESS) and suffix == ".mov":
        return "prores_ks"
    # Few players decode H.264 above 8 bits; every HEVC decoder takes 10 bits.
    return _SAME_CODEC.get(codec, "libx265" if bits > 8 else "libx264")


def choose_pixel_format(
    encoder: str, source: str, size: tuple[int, int], asked: str | None = None
) -> tuple[str, tuple[str, ...]]:
    """Return the pixel format for an encoder, and notes for the user.

    Args:
        encoder: FFmpeg's name.
        source: The source's pixel format.
        size: Width and height of the frames.
        asked: The user's choice; None for the nearest format that loses nothing of the source.

    Raises:
        InvalidInputError: No supported format fits.
    """
    traits = ENCODERS.get(encoder, EncoderTraits())
    formats = _supported(encoder, traits.broken)
    names = ", ".join(sorted({plain_name(name) for name in formats}))
    wanted = layout(source)
    if asked is None:
        options = {name: kind for name, kind in formats.items() if _keeps(kind, wanted)}
        if not options:
            raise InvalidInputError(
                f"{encoder} would lose depth or color of {source}: it takes {names}; choose one of "
                "them as pixel format to accept the loss, or use the encoder ffv1, which takes "
                "nearly all formats"
            )
    else:
        same = {plain_name(asked), asked}
        options = {name: kind for name, kind in formats.items() if plain_name(name) in same}
        if not options:
            raise InvalidInputError(f"pixel format {asked}: {encoder} takes {names}")
    fitting = {
        name: kind
        for name, kind in options.items()
        if traits.odd or not (size[0] % kind.across or size[1] % kind.down)
    }
    if not fitting:
        raise InvalidInputError(
            f"{encoder} takes no odd width or height in {plain_name(next(iter(options)))}, and the "
            f"frames are {size[0]}x{size[1]}; crop a row or column, or use pixel format yuv444p or "
            "the encoder ffv1"
        )
    name = min(fitting, key=lambda each: _distance(fitting[each], each, wanted))
    if asked is not None:
        return plain_name(name), ()
    return plain_name(name), _notes(encoder, plain_name(name), fitting[name], source, size)


def _supported(encoder: str, broken: tuple[str, ...]) -> dict[str, SampleLayout]:
    """Return the formats that both an encoder and the conversion support."""
    supported = {}
    for found in av.Codec(encoder, "w").video_formats or ():
        if found.name in broken or found.is_big_endian:
            continue
        try:
            supported[found.name] = layout(found.name)
        except InvalidInputError:
            continue
    return supported


def _keeps(kind: SampleLayout, wanted: SampleLayout) -> bool:
    """Return whether a format loses no depth, color or chroma resolution; alpha may go."""
    chroma = kind.across <= wanted.across and kind.down <= wanted.down
    return (
        kind.bits >= wanted.bits
        and kind.colors >= wanted.colors
        and (chroma or wanted.colors == 1)
        and (wanted.rgb or not kind.rgb)
    )


def _distance(kind: SampleLayout, name: str, wanted: SampleLayout) -> tuple[object, ...]:
    return (
        kind.rgb != wanted.rgb,
        kind.alpha != wanted.alpha,
        kind.colors - wanted.colors,
        kind.bits,
        -kind.across * kind.down,  # as few samples of chroma as possible
        plain_name(name) != kind.planar,
    )


def _notes(
    encoder: str, name: str, kind: SampleLayout, source: str, size: tuple[int, int]
) -> tuple[str, ...]:
    """Return how the chosen format differs from the source's."""
    wanted, notes = layout(source), []
    if wanted.alpha and not kind.alpha:
        notes.append(f"{encoder} has no transparency: alpha is dropped (ffv1 and prores keep it)")
    if wanted.rgb and not kind.rgb:
        notes.append(f"{encoder} takes no RGB: {source} is encoded as {name}, rounded once")
    elif (kind.bits, kind.across, kind.down, kind.colors) != (
        *(wanted.bits, wanted.across, wanted.down),
        wanted.colors,
    ):
        odd = size[0] % wanted.across or size[1] % wanted.down
        reason = f" with an odd size ({size[0]}x{size[1]})" if odd else ""
        notes.append(f"{encoder} does not take {source}{reason}: {name} is used, without loss")
    return tuple(notes)
