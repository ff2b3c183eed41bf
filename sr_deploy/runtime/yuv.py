"""Frames of video as decoders give them: YUV, with chroma of half the height and width.

The networks that take them convert inside, so that no one has to before or after. What the numbers
of a frame mean comes with it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.errors import InvalidInputError, OutOfMemoryError

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

Matrix = Literal["bt601", "bt709", "bt2020"]

LUMA_WEIGHTS = {
    1: (0.2126, 0.0722),  # BT.709
    4: (0.30, 0.11),  # FCC
    5: (0.299, 0.114),  # BT.470 B/G, the same as BT.601
    6: (0.299, 0.114),  # SMPTE 170M, the same as BT.601
    7: (0.212, 0.087),  # SMPTE 240M
    9: (0.2627, 0.0593),  # BT.2020, non-constant luminance
    10: (0.2627, 0.0593),  # BT.2020, constant luminance
}
"""Weights of red and blue in luma (Kr and Kb) by the matrix number of ITU-T H.273.

BT.2020 with constant luminance differs in luma alone, by little. Converting both ways with the
same matrix, nothing is lost by using the other one's weights."""
_NUMBERS: dict[Matrix, int] = {"bt601": 6, "bt709": 1, "bt2020": 9}
_BITS: dict[YuvFormat, int] = {"yuv420p": 8, "nv12": 8, "p010": 10}


@dataclass(frozen=True, eq=False)
class YuvFrame:
    """One frame of video.

    Attributes:
        samples: (H*3/2, W), C-contiguous, as FFmpeg's format lies in memory without padding: H rows
            of luma, then the chroma. uint8; of p010 little-endian uint16, of which the 10 high
            bits count.
        pixel_format: How they lie: yuv420p, nv12 or p010.
        matrix: Between RGB and YUV.
        full_range: Whether black is 0 and white the largest value; else 16 and 235, of 8 bits.

    Raises:
        InvalidInputError: something does not fit; height and width must be even.
    """

    samples: NDArray[Any]
    pixel_format: YuvFormat
    matrix: Matrix = "bt709"
    full_range: bool = False

    def __post_init__(self) -> None:
        _check_one_of("pixel format", self.pixel_format, get_args(YuvFormat))
        _check_one_of("matrix", self.matrix, get_args(Matrix))
        wanted = _sample(self.pixel_format)
        samples = self.samples
        if not isinstance(samples, np.ndarray) or samples.dtype != wanted or samples.ndim != 2:
            found = (
                f"{samples.dtype} of shape {samples.shape}"
                if isinstance(samples, np.ndarray)
                else type(samples).__name__
            )
            raise InvalidInputError(
                f"the samples of {self.pixel_format} must be an array of {wanted.name} of shape "
                f"(H*3/2, W), found {found}"
            )
        rows, width = samples.shape
        if rows == 0 or rows % 3 or width == 0 or width % 2:
            raise InvalidInputError(
                f"{self.pixel_format} samples of shape {samples.shape} do not fit: there must be "
                "H*3/2 rows of W, H and W even; frames of odd sizes go as RGB"
            )
        if not samples.flags.c_contiguous:
            raise InvalidInputError("the samples of a frame must be contiguous, row by row")

    @classmethod
    def empty(cls, pixel_format: YuvFormat, height: int, width: int) -> YuvFrame:
        """Return a frame of any content.

        Raises:
            InvalidInputError: a side is odd or not positive.
        """
        shape = (height * 3 // 2, width)
        return cls(np.empty(shape, _sample(pixel_format)), pixel_format)

    @property
    def height(self) -> int:
        """In pixels."""
        return int(self.samples.shape[0]) // 3 * 2

    @property
    def width(self) -> int:
        """In pixels."""
        return int(self.samples.shape[1])

    @property
    def nbytes(self) -> int:
        """Of the samples."""
        return self.samples.nbytes

    @property
    def kind(self) -> tuple[YuvFormat, Matrix, bool]:
        """What frames must have in common for their samples to mean the same."""
        return self.pixel_format, self.matrix, self.full_range

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The samples as networks take them: (H*3/2, W, bytes), a view."""
        return self.samples[..., None].view(np.uint8)

    @property
    def colour(self) -> NDArray[np.float32]:
        """What the samples mean, as networks take it: (7, 3), see `coefficients`."""
        return coefficients(self.matrix, _BITS[self.pixel_format], full_range=self.full_range)

    def enlarged(self, scale: int) -> YuvFrame:
        """Return a frame of the same kind, so many times as high and as wide, of any content."""
        rows, width = self.samples.shape
        return replace(self, samples=np.empty((scale * rows, scale * width), self.samples.dtype))


def checked_out(out: object, frame: YuvFrame, scale: int) -> YuvFrame:
    """Return where the result of a frame goes: `out`, or a new one.

    Raises:
        InvalidInputError: `out` is no frame of the kind of the result, or read-only.
        OutOfMemoryError: the system refuses a new one of that size.
    """
    if out is None:
        try:
            return frame.enlarged(scale)
        except MemoryError as error:
            raise OutOfMemoryError(f"no memory for the result: {error}") from error
    rows, width = (scale * side for side in frame.samples.shape)
    if (
        not isinstance(out, YuvFrame)
        or out.kind != frame.kind
        or out.samples.shape != (rows, width)
        or not out.samples.flags.writeable
    ):
        raise InvalidInputError(
            f"out must be a writable YuvFrame like the one that comes in, with samples of shape "
            f"{(rows, width)}; YuvFrame.enlarged makes one"
        )
    return out


@functools.cache
def coefficients(matrix: Matrix, bits: int, *, full_range: bool) -> NDArray[np.float32]:
    """Return what the numbers of a video mean, for numbers of so many bits.

    Returns:
        (7, 3), read-only: with the matrices A = [0:3] and B = [3:6] and black = [6],
        rgb = A @ (yuv - black) and yuv = B @ rgb + black, where white is RGB 1.
    """
    red, blue = LUMA_WEIGHTS[_NUMBERS[matrix]]
    luma = np.array([red, 1 - red - blue, blue])
    unscaled = np.array(
        [
            luma,
            (np.array([0, 0, 1]) - luma) / (2 * (1 - blue)),
            (np.array([1, 0, 0]) - luma) / (2 * (1 - red)),
        ]
    )
    unit = 2.0 ** (bits - 8)
    scales = np.full(3, 2.0**bits - 1) if full_range else unit * np.array([219, 224, 224])
    black = unit * np.array([0 if full_range else 16, 128, 128])
    from_rgb = scales[:, None] * unscaled
    result = np.vstack([np.linalg.inv(from_rgb), from_rgb, black]).astype(np.float32)
    result.flags.writeable = False
    return result


def _sample(pixel_format: YuvFormat) -> np.dtype[Any]:
    return np.dtype("u1" if _BITS[pixel_format] == 8 else "<u2")


def _check_one_of(what: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise InvalidInputError(
            f"there is no {what} {value!r} here; choose one of {', '.join(allowed)}"
        )
