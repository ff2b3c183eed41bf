"""What the numbers of a video mean: its colour tags, and what is taken where there are none."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sr_deploy.errors import InvalidInputError
from sr_deploy.runtime.yuv import LUMA_WEIGHTS

if TYPE_CHECKING:
    import av
    from numpy.typing import NDArray

UNSPECIFIED = 2
"""A matrix, primaries or a transfer that was not said, in FFmpeg's numbers."""
RGB, BT709, FCC, BT470BG, SMPTE170M, SMPTE240M, YCGCO, BT2020, BT2020_CL = 0, 1, *range(4, 11)
"""Matrices, in FFmpeg's numbers."""
UNKNOWN, LIMITED, FULL = 0, 1, 2
"""Ranges, in FFmpeg's numbers."""


@dataclass(frozen=True)
class Color:
    """The colour tags of a video, in FFmpeg's numbers (those of ITU-T H.273).

    Attributes:
        matrix: Between RGB and YUV; 2: not said.
        range: 1: limited, 2: full; 0: not said.
        primaries: 2: not said.
        transfer: 2: not said.
    """

    matrix: int = UNSPECIFIED
    range: int = UNKNOWN
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED

    @classmethod
    def of(cls, frame: av.VideoFrame, context: av.VideoCodecContext) -> Color:
        """Return the tags of a decoded frame; of its decoder, where the frame says nothing."""
        said = frame.color_range or context.color_range
        return cls(
            matrix=_first(frame.colorspace, context.colorspace),
            range=FULL if frame.format.name.startswith("yuvj") else said,
            primaries=context.color_primaries,
            transfer=context.color_trc,
        )

    def tag(self, context: av.VideoCodecContext) -> None:
        """Put the tags on an encoder, as they are: what was not said stays so."""
        context.colorspace = self.matrix
        context.color_range = self.range
        context.color_primaries = self.primaries
        context.color_trc = self.transfer

    def meant(self, pixel_format: str, width: int, height: int) -> Color:
        """Return the tags with what players take where there are none.

        The matrix is that of HD from 1280 pixels of width or 577 of height on; YUV is limited and
        gray is full.
        """
        high = width >= 1280 or height > 576
        untold = FULL if pixel_format.startswith("gray") else LIMITED
        return replace(
            self,
            matrix=(BT709 if high else SMPTE170M) if self._no_matrix() else self.matrix,
            range=self.range or untold,
        )

    def carried(self, pixel_format: str, before: tuple[int, int], after: tuple[int, int]) -> Color:
        """Return the tags for a video of another size, which keeps its matrix.

        What was not said stays so, unless players would take another matrix for the new size.
        """
        meant = self.meant(pixel_format, *before)
        if self.meant(pixel_format, *after) == meant:
            return self
        return replace(self, matrix=meant.matrix)

    def _no_matrix(self) -> bool:
        # A YUV format cannot hold RGB: FFmpeg decodes what really is RGB to formats of its own.
        return self.matrix in (UNSPECIFIED, RGB)

    def from_yuv(self) -> NDArray[np.float64]:
        """Return the matrix that makes R, G and B (0 to 1) of Y (0 to 1), U and V (-0.5 to 0.5).

        Raises:
            InvalidInputError: this matrix is not known here.
        """
        if self.matrix == YCGCO:
            return np.array([[1.0, -1, 1], [1, 1, 0], [1, -1, -1]])
        if self.matrix not in LUMA_WEIGHTS:
            raise InvalidInputError(
                f"the video's colours are in a matrix that is not converted here (number "
                f"{self.matrix} of ITU-T H.273); convert it first, for example with "
                "ffmpeg -vf zscale=matrix=bt2020nc"
            )
        red, blue = LUMA_WEIGHTS[self.matrix]
        green = 1 - red - blue
        return np.array(
            [
                [1, 0, 2 * (1 - red)],
                [1, -2 * (1 - blue) * blue / green, -2 * (1 - red) * red / green],
                [1, 2 * (1 - blue), 0],
            ]
        )


@dataclass(frozen=True)
class Levels:
    """How samples of a depth are numbered.

    Attributes:
        black: Of luma.
        span: From luma's black to its white.
        middle: Of chroma: no colour.
        reach: From the lowest chroma to the highest.
        top: The highest number.
    """

    black: float
    span: float
    middle: float
    reach: float
    top: int

    @classmethod
    def of(cls, bits: int, range: int) -> Levels:  # noqa: A002 - what everybody calls it
        """Return the levels of a depth in a range, `LIMITED` or `FULL`."""
        if range == FULL:
            return cls.full(bits)
        step = float(1 << (bits - 8))
        return cls(16 * step, 219 * step, 128 * step, 224 * step, (1 << bits) - 1)

    @classmethod
    def full(cls, bits: int) -> Levels:
        """Return the levels of a depth in full range."""
        top = (1 << bits) - 1
        return cls(0, top, float(1 << (bits - 1)), top, top)


def _first(*tags: int) -> int:
    """Return the first tag that says something."""
    return next((tag for tag in tags if tag != UNSPECIFIED), UNSPECIFIED)
