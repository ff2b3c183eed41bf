"""HDR10's static metadata: of what screen the colours were chosen on, and how light they are."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, cast

from av.sidedata.sidedata import Type

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import av
    from av.sidedata.sidedata import SideData

    Point = tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Mastering:
    """The screen on which a video was mastered (SMPTE ST 2086).

    Attributes:
        red: x and y of its primary in CIE 1931; None with the others: not said.
        green: Likewise.
        blue: Likewise.
        white: x and y of its white point.
        darkest: Luminance of black in cd/m2; None with `lightest`: not said.
        lightest: Luminance of white in cd/m2.
    """

    red: Point | None
    green: Point | None
    blue: Point | None
    white: Point | None
    darkest: Fraction | None
    lightest: Fraction | None


@dataclass(frozen=True)
class Hdr:
    """What a video says about its light.

    Attributes:
        mastering: The mastering screen; None: not said.
        content_light: Most light of a sample (MaxCLL), and of a frame on average (MaxFALL), in
            cd/m2; None: not said.
    """

    mastering: Mastering | None
    content_light: tuple[int, int] | None

    @classmethod
    def of(cls, frame: av.VideoFrame) -> Hdr | None:
        """Return what a decoded frame carries; None: nothing."""
        carried = cast("Mapping[Type, SideData]", frame.side_data)
        screen = carried.get(Type.MASTERING_DISPLAY_METADATA)
        light = carried.get(Type.CONTENT_LIGHT_LEVEL)
        if screen is None and light is None:
            return None
        return cls(
            None if screen is None else _mastering(bytes(screen)),
            None if light is None else struct.unpack_from("=2I", bytes(light)),
        )

    def in_steps(self) -> tuple[str, str]:
        """Return screen and light as x264 and x265 read them, in the standards' integers."""
        return self._text(lambda value: f"{round(value * 50000)}", lambda v: f"{round(v * 10000)}")

    def in_units(self) -> tuple[str, str]:
        """Return screen and light as SVT-AV1 reads them, in decimals."""
        return self._text(lambda value: f"{float(value):.5f}", lambda v: f"{float(v):.4f}")

    def _text(
        self, place: Callable[[Fraction], str], light: Callable[[Fraction], str]
    ) -> tuple[str, str]:
        screen = self.mastering
        text = ""
        if screen and screen.red and screen.green and screen.blue and screen.white:
            points = zip("GBRW", (screen.green, screen.blue, screen.red, screen.white), strict=True)
            text = "".join(f"{name}({place(p[0])},{place(p[1])})" for name, p in points)
            text = text.replace("W", "WP")
            if screen.darkest is not None and screen.lightest is not None:
                text += f"L({light(screen.lightest)},{light(screen.darkest)})"
        levels = self.content_light
        return text, "" if levels is None else f"{levels[0]},{levels[1]}"


def _mastering(data: bytes) -> Mastering:
    """Read FFmpeg's AVMasteringDisplayMetadata: ten fractions, then what of them is there."""
    *terms, primaries, luminance = struct.unpack_from("=22i", data)
    values = [Fraction(top, bottom or 1) for top, bottom in zip(*[iter(terms)] * 2, strict=True)]
    red, green, blue, white = (
        (values[i], values[i + 1]) if primaries else None for i in range(0, 8, 2)
    )
    darkest, lightest = values[8:] if luminance else (None, None)
    return Mastering(red, green, blue, white, darkest, lightest)
