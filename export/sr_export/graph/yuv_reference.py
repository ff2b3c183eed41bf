"""YUV conversion in numpy: the reference for the graphs of `yuv`, and a source of examples."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sr_export.graph import yuv

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.runtime.yuv import YuvFrame

    Floats = NDArray[np.float64]


def values(frame: YuvFrame) -> Floats:
    """Return the sample values of a frame, (H*3/2, W)."""
    return np.asarray(frame.samples / yuv.LAYOUTS[frame.pixel_format].step, np.float64)


def levels(frame: YuvFrame) -> Floats:
    """Return the sample values of a frame, (H*3/2, W, 1), scaled to 8 bits."""
    return values(frame)[..., None] * (255 / yuv.LAYOUTS[frame.pixel_format].largest)


def to_rgb(frame: YuvFrame) -> Floats:
    """Convert a frame to RGB, (3, H, W), white is 1."""
    numbers, (_, width) = values(frame), frame.samples.shape
    luma, chroma = numbers[: frame.height], numbers[frame.height :]
    if yuv.LAYOUTS[frame.pixel_format].interleaved:
        pair = chroma.reshape(-1, width // 2, 2).transpose(2, 0, 1)
    else:
        pair = chroma.reshape(2, -1, width // 2)
    all_three = np.stack([luma, *pair.repeat(2, axis=1).repeat(2, axis=2)])
    color = frame.coefficients.astype(np.float64)
    return np.asarray(np.einsum("kc,chw->khw", color[:3], all_three - color[6, :, None, None]))


def from_rgb(image: NDArray[np.floating], like: YuvFrame) -> Floats:
    """Convert RGB (3, H, W) to sample values (H*3/2, W), clipped but not rounded.

    Args:
        image: White is 1; height and width are even.
        like: A frame with the wanted format and matrix.
    """
    layout = yuv.LAYOUTS[like.pixel_format]
    color = like.coefficients.astype(np.float64)
    _, height, width = image.shape
    luma = np.einsum("c,chw->hw", color[3], image) + color[6, 0]
    means = image.reshape(3, height // 2, 2, width // 2, 2).mean(axis=(2, 4))
    pair = np.einsum("kc,chw->khw", color[4:6], means) + color[6, 1:, None, None]
    chroma = pair.transpose(1, 2, 0) if layout.interleaved else pair
    numbers = np.concatenate([luma, chroma.reshape(-1, width)])
    return np.asarray(np.clip(numbers, 0, layout.largest))


def frame_of(image: NDArray[np.floating], like: YuvFrame) -> YuvFrame:
    """Convert RGB (3, H, W) to a frame like another."""
    layout = yuv.LAYOUTS[like.pixel_format]
    numbers = np.rint(from_rgb(image, like)) * layout.step
    return replace(like, samples=numbers.astype(like.samples.dtype))
