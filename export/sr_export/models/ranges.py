"""The pixel values of a network, and their conversion from and to RGB in [0, 1].

Networks use [-1, 1] (tanh), [0, 255], normalized, BGR or YCbCr images. Some return the difference
to their input instead of an image. Some expect an image that was enlarged by bicubic interpolation
before. Weights tell none of it. The conversion becomes part of the graph: every bundle uses RGB in
[0, 1] (`graph/pixel_values.py` has the same in ONNX).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Run = Callable[[NDArray[np.float32]], NDArray[np.float32]]

UNIT = (0.0, 1.0)
SIGNED = (-1.0, 1.0)
BYTES = (0.0, 255.0)
Color = Literal["rgb", "bgr", "ycbcr", "ycbcr-video"]
"""Color space of the network. `ycbcr` has the full range (JPEG, Pillow, OpenCV), `ycbcr-video` 16
to 235 (MATLAB). A network with one channel then gets Y; Cb and Cr are enlarged beside it. With
`rgb`, it gets each channel of an image alone, such as gray."""
Residual = Literal["none", "add", "subtract"]
PILLOW, OPENCV = -0.5, -0.75
"""Coefficients of bicubic interpolation: of Pillow and MATLAB, of OpenCV and PyTorch."""


@dataclass(frozen=True)
class Ranges:
    """The pixel values of a network's input and output."""

    input: tuple[float, float] = UNIT
    """Black and white at the input, before `mean` and `std`."""
    output: tuple[float, float] = UNIT
    """Black and white at the output."""
    mean: tuple[float, ...] = (0.0,)
    """Subtracted from the input; per channel, or one for all."""
    std: tuple[float, ...] = (1.0,)
    """Divides the input afterwards."""
    denormalize: bool = False
    """Whether `mean` and `std` apply to the output, too."""
    color: Color = "rgb"
    residual: Residual = "none"
    """Whether the output is added to the (enlarged) input, or subtracted from it."""
    enlarge: int = 1
    """Factor by which the image is enlarged before the network."""
    cubic: float = PILLOW
    """Coefficient of the bicubic interpolation that enlarges images or colors."""

    def __str__(self) -> str:
        if self.plain:
            return "0 to 1 in and out"
        texts = ["{:g} to {:g} in, {:g} to {:g} out".format(*self.input, *self.output)]
        if (self.mean, self.std) != ((0.0,), (1.0,)):
            both = " in and out" if self.denormalize else ""
            texts.append(f"mean {self.mean}, std {self.std}{both}")
        if self.color != "rgb":
            texts.append({"bgr": "BGR", "ycbcr": "YCbCr"}.get(self.color, "YCbCr of video"))
        if self.residual != "none":
            sign = "added to" if self.residual == "add" else "subtracted from"
            texts.append(f"output {sign} the input")
        if self.enlarge > 1:
            texts.append(f"enlarged {self.enlarge} times by bicubic interpolation before")
        return ", ".join(texts)

    @property
    def plain(self) -> bool:
        """Whether no conversion is needed."""
        return self == Ranges()

    @property
    def luma_only(self) -> bool:
        """Whether a network with one channel gets Y, and images have three channels."""
        return self.color.startswith("ycbcr")

    def input_map(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the factor and the offset that convert an image in [0, 1] to the input."""
        low, high = self.input
        mean, std = np.array(self.mean), np.array(self.std)
        return _plane((high - low) / std), _plane((low - mean) / std)

    def output_map(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the factor and the offset that convert the output to [0, 1]."""
        low, high = self.output
        mean, std = np.array(self.mean), np.array(self.std)
        if not self.denormalize:
            mean, std = np.array([0.0]), np.array([1.0])
        shift = (mean - low) / (high - low) if self.residual == "none" else 0 * mean
        factor = std / (high - low)
        return _plane(-factor if self.residual == "subtract" else factor), _plane(shift)

    def to_color(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the matrix and the offset that convert RGB in [0, 1] to the network's colors."""
        matrix, offset = _COLORS[self.color]
        return matrix.astype(np.float32), offset.astype(np.float32)

    def from_color(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return the matrix and the offset back to RGB."""
        matrix, offset = _COLORS[self.color]
        inverse = np.linalg.inv(matrix)
        return inverse.astype(np.float32), (-inverse @ offset).astype(np.float32)

    def image_channels(self, channels: Literal[1, 3]) -> Literal[1, 3]:
        """Return the channels of the images for a network with this number of channels."""
        return 3 if self.luma_only else channels

    def around(self, run: Run, channels: int = 3) -> Run:
        """Wrap a function on the network's own values as one on RGB in [0, 1].

        Args:
            run: The network.
            channels: Its number of channels.
        """
        if self.plain:
            return run

        def ranged(image: NDArray[np.float32]) -> NDArray[np.float32]:
            colors = _mixed(image, *self.to_color()) if self.color != "rgb" else image
            luma = self.luma_only and channels == 1
            given = enlarged(colors[:, :1] if luma else colors, self.enlarge, self.cubic)
            scale, shift = self.input_map()
            output = run(np.ascontiguousarray(given * scale + shift))
            scale, shift = self.output_map()
            output = output * scale + shift
            if self.residual != "none":
                output = output + given
            if luma:
                factor = output.shape[2] // image.shape[2]
                chroma = enlarged(colors[:, 1:], factor, self.cubic)
                output = np.concatenate([output, chroma], axis=1)
            if self.luma_only:
                # As in files with 8 bits, from which programs convert to RGB.
                output = output.clip(0, 1)
            if self.color != "rgb":
                output = _mixed(output, *self.from_color())
            return np.ascontiguousarray(output)

        return ranged


def enlarged(
    images: NDArray[np.float32], factor: int, coefficient: float = PILLOW
) -> NDArray[np.float32]:
    """Enlarge NCHW images by bicubic interpolation; the edge is repeated."""
    if factor == 1:
        return images
    rows, columns = (cubic(side, factor, coefficient) for side in images.shape[2:])
    return np.ascontiguousarray(rows @ images @ columns.T)


def cubic(side: int, factor: int, a: float) -> NDArray[np.float32]:
    """Return the matrix that interpolates a row of `side` pixels at `factor` times as many."""
    places = (np.arange(side * factor) + 0.5) / factor - 0.5
    first = np.floor(places).astype(int) - 1
    matrix = np.zeros((side * factor, side))
    for tap in range(4):
        distance = np.abs(places - (first + tap))
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((distance - 5) * distance + 8) * distance * a - 4 * a
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        np.add.at(matrix, (np.arange(len(places)), (first + tap).clip(0, side - 1)), weight)
    return matrix.astype(np.float32)


def _ycbcr(low: float, luma: float, chroma: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return matrix and offset from RGB to YCbCr of BT.601, with black and spans in 255ths."""
    weights = np.array([0.299, 0.587, 0.114])
    blue, red = np.array([0, 0, 1]) - weights, np.array([1, 0, 0]) - weights
    matrix = np.stack([weights * luma, blue / 1.772 * chroma, red / 1.402 * chroma]) / 255
    return matrix, np.array([low, 128, 128]) / 255


_COLORS: dict[str, tuple[NDArray[Any], NDArray[Any]]] = {
    "rgb": (np.eye(3), np.zeros(3)),
    "bgr": (np.eye(3)[::-1], np.zeros(3)),
    "ycbcr": _ycbcr(0, 255, 255),
    "ycbcr-video": _ycbcr(16, 219, 224),
}


def _mixed(
    image: NDArray[np.float32], matrix: NDArray[np.float32], offset: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Apply a color matrix to NCHW images."""
    mixed = np.einsum("kc,nchw->nkhw", matrix, image) + offset.reshape(1, -1, 1, 1)
    return mixed.astype(np.float32)


def _plane(values: NDArray[Any]) -> NDArray[np.float32]:
    return values.astype(np.float32).reshape(1, -1, 1, 1)
