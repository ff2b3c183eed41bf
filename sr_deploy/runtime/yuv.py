"""YUV 4:2:0 frames as decoders deliver them, with their color matrix and range.

Networks exported with `--yuv` convert to RGB and back inside the graph.
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
    """One YUV 4:2:0 video frame.

    Attributes:
        samples: (H*3/2, W), C-contiguous, in FFmpeg's memory layout without padding: H rows of
            luma, then the chroma. uint8; for p010 little-endian uint16, with the value in the 10
            high bits.
        pixel_format: yuv420p, nv12 or p010.
        matrix: Matrix between RGB and YUV.
        full_range: Full range: black is 0 and white the largest value. Else limited range: 16 and
            235 (in 8 bits).

    Raises:
        InvalidInputError: an attribute is invalid; height and width must be even.
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
                f"{self.pixel_format} samples must have shape (H*3/2, W) with H and W even, found "
                f"{samples.shape}; upscale frames of odd sizes as RGB"
            )
        if not samples.flags.c_contiguous:
            raise InvalidInputError(
                "the samples must be C-contiguous; numpy.ascontiguousarray copies them"
            )

    @classmethod
    def empty(cls, pixel_format: YuvFormat, height: int, width: int) -> YuvFrame:
        """Return an uninitialized frame.

        Raises:
            InvalidInputError: a side is odd or not positive.
        """
        shape = (height * 3 // 2, width)
        return cls(np.empty(shape, _sample(pixel_format)), pixel_format)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.samples.shape[0]) // 3 * 2

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.samples.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the samples."""
        return self.samples.nbytes

    @property
    def kind(self) -> tuple[YuvFormat, Matrix, bool]:
        """Pixel format, matrix and range: with equal kinds, equal samples are equal colors."""
        return self.pixel_format, self.matrix, self.full_range

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """The samples as a network's input, a view (H*3/2, W, bytes)."""
        return self.samples[..., None].view(np.uint8)

    @property
    def coefficients(self) -> NDArray[np.float32]:
        """The color conversion as a network's input (7, 3), see `color_coefficients`."""
        return color_coefficients(self.matrix, _BITS[self.pixel_format], full_range=self.full_range)

    def enlarged(self, scale: int) -> YuvFrame:
        """Return an uninitialized frame of the same kind, `scale` times as high and wide."""
        rows, width = self.samples.shape
        return replace(self, samples=np.empty((scale * rows, scale * width), self.samples.dtype))


def checked_result(out: object, frame: YuvFrame, scale: int) -> YuvFrame:
    """Return `out` or a new frame for the result of a frame.

    Raises:
        InvalidInputError: `out` is read-only, or not of the result's kind and size.
        OutOfMemoryError: allocating the new frame fails.
    """
    if out is None:
        try:
            return frame.enlarged(scale)
        except MemoryError as error:
            raise OutOfMemoryError(f"cannot allocate the result: {error}") from error
    rows, width = (scale * side for side in frame.samples.shape)
    if (
        not isinstance(out, YuvFrame)
        or out.kind != frame.kind
        or out.samples.shape != (rows, width)
        or not out.samples.flags.writeable
    ):
        raise InvalidInputError(
            f"out must be a writable YuvFrame of the input's kind with samples of shape "
            f"{(rows, width)}; create it with YuvFrame.enlarged"
        )
    return out


@functools.cache
def color_coefficients(matrix: Matrix, bits: int, *, full_range: bool) -> NDArray[np.float32]:
    """Return the conversion between YUV samples of a bit depth and RGB.

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
        raise InvalidInputError(f"unknown {what} {value!r}; choose one of {', '.join(allowed)}")
