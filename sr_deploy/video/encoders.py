"""The encoders that are known here: their options for quality and speed, and what suits whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sr_deploy.video.hdr import Hdr

_X26X = (
    *("ultrafast", "superfast", "veryfast", "faster", "fast"),
    *("medium", "slow", "slower", "veryslow", "placebo"),
)
_NVENC = tuple(f"p{i}" for i in range(1, 8))
_QSV = ("veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
_AMF = ("speed", "balanced", "quality")
_LAMBDA = 118
"""FFmpeg counts some encoders' quality in this times their own number."""


@dataclass(frozen=True)
class Coder:
    """How one encoder is asked for quality and speed.

    Attributes:
        quality: Options of a quality.
        low: The lowest number of a quality.
        high: The highest.
        default: The one that is taken if nobody says another.
        preset: Name of the option of speed; "": it has none.
        presets: What that may be.
        usual: The one that is taken if nobody says another.
        options: That are always given.
        odd: It takes an odd width or height in formats whose pixels share chroma.
        shuns: Formats that it claims to take but should not be given.
        params: Option that holds the encoder's own parameters, "": none.
        fixed: Parameters, for a number of threads, without which equal work gives unequal bytes.
        light: Parameters for HDR10's static metadata.
    """

    quality: Callable[[float], Mapping[str, str]] | None = None
    low: float = 0
    high: float = 0
    default: float = 0
    preset: str = ""
    presets: tuple[str, ...] = ()
    usual: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    odd: bool = False
    shuns: tuple[str, ...] = ()
    params: str = ""
    fixed: Callable[[int], Mapping[str, str]] | None = None
    light: Callable[[Hdr], Mapping[str, str]] | None = None

    def with_quality(self, name: str, asked: float | None) -> Mapping[str, str]:
        """Return the options of a quality.

        Raises:
            InvalidInputError: the encoder (its name is for the text) has no such quality.
        """
        if self.quality is None:
            if asked is None:
                return {}
            raise InvalidInputError(
                f"quality {asked:g}: {name} has no one option for it; leave it out, or name the "
                "encoder's own options"
            )
        value = self.default if asked is None else asked
        if not self.low <= value <= self.high:
            raise InvalidInputError(
                f"quality {value:g}: that of {name} goes from {self.low} to {self.high} "
                f"({self.default} if not said)"
            )
        return self.quality(value)

    def with_preset(self, name: str, asked: str | None) -> Mapping[str, str]:
        """Return the option of a preset.

        Raises:
            InvalidInputError: the encoder (its name is for the text) has no such preset.
        """
        if asked is not None and asked not in self.presets:
            raise InvalidInputError(
                f"preset {asked!r}: {name} has {', '.join(self.presets) or 'none'}"
            )
        return {self.preset: asked or self.usual} if self.preset else {}


def _crf(value: float) -> Mapping[str, str]:
    return {"crf": f"{value:g}"}


def _nvenc_quality(value: float) -> Mapping[str, str]:
    return {"rc": "vbr", "cq": f"{value:g}", "b": "0"}


def _qsv_quality(value: float) -> Mapping[str, str]:
    return {"global_quality": f"{round(value)}"}


def _amf_quality(value: float) -> Mapping[str, str]:
    number = f"{round(value)}"
    return {"rc": "cqp", "qp_i": number, "qp_p": number}


def _apple_quality(value: float) -> Mapping[str, str]:
    return {"flags": "+qscale", "global_quality": f"{round(value * _LAMBDA)}"}


def _x265_light(hdr: Hdr) -> Mapping[str, str]:
    return {"hdr10": "1", **_light(hdr.in_steps(), "master-display", "max-cll")}


def _x264_light(hdr: Hdr) -> Mapping[str, str]:
    return _light(hdr.in_steps(), "mastering-display", "cll")


def _svt_light(hdr: Hdr) -> Mapping[str, str]:
    return _light(hdr.in_units(), "mastering-display", "content-light")


def _light(texts: tuple[str, str], *names: str) -> dict[str, str]:
    return {name: text for name, text in zip(names, texts, strict=True) if text}


def _x264_alike(threads: int) -> Mapping[str, str]:
    # Its lookahead in AVX-512 otherwise reads memory that nobody wrote, in widths that are not a
    # multiple of 128 (measured, builds 164 and 165): no two runs were the same.
    del threads
    return {"cpu-independent": "1"}


def _x265_threads(threads: int) -> Mapping[str, str]:
    return {"log-level": "error", "pools": f"{threads}", "frame-threads": f"{min(threads, 4)}"}


_NVENC_OPTIONS = {"tune": "hq"}
CODERS: Mapping[str, Coder] = {
    "libx264": Coder(
        *(_crf, 0, 51, 18, "preset", _X26X, "fast"),
        params="x264-params",
        fixed=_x264_alike,
        light=_x264_light,
    ),
    "libx265": Coder(
        *(_crf, 0, 51, 20, "preset", _X26X, "fast"),
        shuns=("gray", "gray10le", "gray12le"),  # it writes beyond its memory in odd heights
        params="x265-params",
        fixed=_x265_threads,
        light=_x265_light,
    ),
    "libsvtav1": Coder(
        *(_crf, 1, 63, 25, "preset", tuple(map(str, range(14))), "8"),
        odd=True,
        params="svtav1-params",
        fixed=lambda threads: {"lp": f"{threads}"},
        light=_svt_light,
    ),
    "libvpx-vp9": Coder(
        *(_crf, 0, 63, 24, "cpu-used", tuple(map(str, range(9))), "3"),
        options={"b": "0", "row-mt": "1"},
        odd=True,
    ),
    "prores_ks": Coder(options={"vendor": "apl0"}, odd=True),
    "ffv1": Coder(options={"level": "3", "slices": "4", "slicecrc": "1", "g": "1"}, odd=True),
    "h264_nvenc": Coder(
        *(_nvenc_quality, 0, 51, 19, "preset", _NVENC, "p5"), options=_NVENC_OPTIONS
    ),
    "hevc_nvenc": Coder(
        *(_nvenc_quality, 0, 51, 21, "preset", _NVENC, "p5"), options=_NVENC_OPTIONS
    ),
    "av1_nvenc": Coder(
        *(_nvenc_quality, 0, 63, 27, "preset", _NVENC, "p5"), options=_NVENC_OPTIONS
    ),
    "h264_qsv": Coder(_qsv_quality, 1, 51, 20, "preset", _QSV, "medium"),
    "hevc_qsv": Coder(_qsv_quality, 1, 51, 22, "preset", _QSV, "medium"),
    "av1_qsv": Coder(_qsv_quality, 1, 255, 100, "preset", _QSV, "medium"),
    "h264_amf": Coder(_amf_quality, 0, 51, 20, "quality", _AMF, "quality"),
    "hevc_amf": Coder(_amf_quality, 0, 51, 22, "quality", _AMF, "quality"),
    "av1_amf": Coder(_amf_quality, 0, 255, 90, "quality", _AMF, "quality"),
    "h264_videotoolbox": Coder(_apple_quality, 1, 100, 65),
    "hevc_videotoolbox": Coder(_apple_quality, 1, 100, 65),
}
"""By FFmpeg's name; others are taken too, but only with the options that the user names."""

NAMES = {
    "h264": "libx264",
    "hevc": "libx265",
    "h265": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}
"""The encoder of a codec that is asked for by the codec's name."""

_WITHOUT_LOSS = frozenset(
    ("ffv1", "huffyuv", "ffvhuff", "utvideo", "magicyuv", "rawvideo", "png", "qtrle", "v210")
)
_FOR_STUDIOS = frozenset(("prores", "dnxhd", "cfhd"))
_IN_PAIRS = {"hevc": "libx265", "av1": "libsvtav1"}


def default_encoder(codec: str, bits: int, container: str) -> str:
    """Return the encoder that users expect for a source's codec and a new file's suffix."""
    if container == ".webm":
        return "libsvtav1"
    if codec in _WITHOUT_LOSS and container in (".mkv", ".avi"):
        return "ffv1"
    if codec in (_FOR_STUDIOS | _WITHOUT_LOSS) and container == ".mov":
        return "prores_ks"
    # Few players decode H.264 of more than 8 bits; HEVC of 10 is decoded by all that know HEVC.
    return _IN_PAIRS.get(codec, "libx265" if bits > 8 else "libx264")
