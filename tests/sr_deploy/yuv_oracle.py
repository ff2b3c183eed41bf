"""Conversion between YUV and RGB by the formulas of the standards, in float64."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sr_deploy.bundle.manifest import YuvFormat
from sr_deploy.runtime.yuv import Matrix, YuvFrame

Planes = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]

FORMATS: tuple[YuvFormat, ...] = ("yuv420p", "nv12", "p010")
MATRICES: tuple[Matrix, ...] = ("bt601", "bt709", "bt2020")
RED_AND_BLUE = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}


@dataclass(frozen=True)
class Kind:
    """Pixel format, matrix and range of frames."""

    pixel_format: YuvFormat
    matrix: Matrix = "bt709"
    full_range: bool = False

    @property
    def bits(self) -> int:
        return 10 if self.pixel_format == "p010" else 8

    @property
    def largest(self) -> int:
        return int(2**self.bits - 1)

    def frame(self, codes: NDArray[np.integer]) -> YuvFrame:
        """Return a frame with these sample values (H*3/2, W)."""
        if self.bits == 10:
            samples: NDArray[np.integer] = codes.astype("<u2") << 6
        else:
            samples = codes.astype(np.uint8)
        return YuvFrame(samples, self.pixel_format, self.matrix, self.full_range)

    def noise(self, height: int, width: int, seed: int = 0) -> YuvFrame:
        """Return noise over all sample values; most are colors outside of RGB."""
        random = np.random.default_rng(seed)
        return self.frame(random.integers(0, self.largest + 1, (height * 3 // 2, width)))


KINDS = [
    Kind(each, matrix, full) for each in FORMATS for matrix in MATRICES for full in (False, True)
]


def codes(frame: YuvFrame) -> NDArray[np.int64]:
    """Return the sample values of a frame."""
    values = frame.samples.astype(np.int64)
    return values >> 6 if frame.pixel_format == "p010" else values


def split(frame: YuvFrame) -> Planes:
    """Return Y (H, W), U and V (H/2, W/2) of a frame."""
    values, height, width = codes(frame).astype(float), frame.height, frame.width
    chroma = values[height:].ravel()
    if frame.pixel_format == "yuv420p":
        u, v = chroma[: chroma.size // 2], chroma[chroma.size // 2 :]
    else:
        u, v = chroma[::2], chroma[1::2]
    half = height // 2, width // 2
    return values[:height], u.reshape(half), v.reshape(half)


def joined(planes: Planes, pixel_format: YuvFormat) -> NDArray[np.float64]:
    """Return the sample values (H*3/2, W) of a frame with these planes."""
    y, u, v = planes
    if pixel_format == "yuv420p":
        chroma = np.concatenate([u.ravel(), v.ravel()])
    else:
        chroma = np.stack([u, v], axis=-1).ravel()
    return np.concatenate([y, chroma.reshape(-1, y.shape[1])])


def _scales(kind: Kind) -> tuple[float, float, float, float]:
    """Return black, the range of luma, the middle and the range of chroma."""
    unit = 2.0 ** (kind.bits - 8)
    if kind.full_range:
        return 0.0, kind.largest, 128 * unit, kind.largest
    return 16 * unit, 219 * unit, 128 * unit, 224 * unit


def to_rgb(frame: YuvFrame) -> NDArray[np.float64]:
    """Return RGB (H, W, 3), where white is 1, not clipped; each U and V covers four pixels."""
    kind = Kind(frame.pixel_format, frame.matrix, frame.full_range)
    black, luma, middle, chroma = _scales(kind)
    red, blue = RED_AND_BLUE[kind.matrix]
    y, u, v = split(frame)
    y = (y - black) / luma
    cb, cr = (np.kron((each - middle) / chroma, np.ones((2, 2))) for each in (u, v))
    r = y + 2 * (1 - red) * cr
    b = y + 2 * (1 - blue) * cb
    g = (y - red * r - blue * b) / (1 - red - blue)
    return np.stack([r, g, b], axis=-1)


def from_rgb(rgb: NDArray[np.floating], kind: Kind) -> NDArray[np.float64]:
    """Return the sample values (H*3/2, W) of RGB (H, W, 3), clipped but not rounded."""
    black, luma, middle, chroma = _scales(kind)
    red, blue = RED_AND_BLUE[kind.matrix]
    r, g, b = np.moveaxis(rgb.astype(float), -1, 0)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 * (1 - blue)), (r - y) / (2 * (1 - red))
    u, v = (
        sum(each[i::2, j::2] for i in (0, 1) for j in (0, 1)) / 4 * chroma + middle
        for each in (cb, cr)
    )
    return joined((y * luma + black, u, v), kind.pixel_format).clip(0, kind.largest)
