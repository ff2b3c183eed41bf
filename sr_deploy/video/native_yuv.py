"""Frames of 10 bits straight into a network that takes them so, without RGB in between.

RGB of 16 bits is computed in FP32 only; these frames in any precision. Frames of 8 bits gain
nothing from it on a CPU and go as RGB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import av
import numpy as np

from sr_deploy.runtime.yuv import YuvFrame
from sr_deploy.video.color import BT470BG, BT709, BT2020, FULL, SMPTE170M
from sr_deploy.video.sample_layout import layout, planes

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sr_deploy.engine import Engine
    from sr_deploy.runtime.yuv import Matrix
    from sr_deploy.video.color import Color

# By how many bits P010 has the samples further up.
_SHIFTS = {"yuv420p10le": 6, "p010le": 0}
_MATRICES: dict[int, Matrix] = {
    BT709: "bt709",
    BT470BG: "bt601",
    SMPTE170M: "bt601",
    BT2020: "bt2020",
}


def fit(engine: Engine, frame: av.VideoFrame, colour: Color, pixel_format: str) -> bool:
    """Return whether frames like this one can go so, and come out in `pixel_format`.

    Args:
        engine: What upscales them.
        frame: The first.
        colour: What its numbers mean, nothing left unsaid.
        pixel_format: Of what comes out.
    """
    return (
        frame.format.name in _SHIFTS
        and pixel_format in _SHIFTS
        and colour.matrix in _MATRICES
        and engine.takes("p010", frame.height, frame.width)
    )


def from_frame(frame: av.VideoFrame, colour: Color) -> YuvFrame:
    """Return what the network takes of a frame."""
    result = YuvFrame.empty("p010", frame.height, frame.width)
    sources = planes(frame, layout(frame.format.name))
    for source, target in zip(sources, _planes(result, len(sources)), strict=True):
        np.left_shift(source, _SHIFTS[frame.format.name], out=target)
    return YuvFrame(result.samples, "p010", _MATRICES[colour.matrix], colour.range == FULL)


def to_frame(frame: YuvFrame, pixel_format: str) -> av.VideoFrame:
    """Return a new frame of what the network gives."""
    result = av.VideoFrame(frame.width, frame.height, pixel_format)
    targets = planes(result, layout(pixel_format))
    for source, target in zip(_planes(frame, len(targets)), targets, strict=True):
        np.right_shift(source, _SHIFTS[pixel_format], out=target)
    return result


def _planes(frame: YuvFrame, count: int) -> list[NDArray[np.uint16]]:
    """Return luma and chroma, as views; of 3 planes, each kind of chroma has one of its own."""
    luma, chroma = np.split(frame.samples, [frame.height])
    return [luma, chroma] if count == 2 else [luma, chroma[:, ::2], chroma[:, 1::2]]
