"""Frames of 10 bits straight into a network that takes them so, without RGB in between.

RGB of 16 bits is computed in FP32 only; these frames in any precision. Frames of 8 bits gain
nothing from it on a CPU and go as RGB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import av

from sr_deploy.video.colour import BT470BG, BT709, BT2020, FULL, SMPTE170M
from sr_deploy.video.layouts import layout, planes, repacked
from sr_deploy.yuv import YuvFrame

if TYPE_CHECKING:
    from sr_deploy.engine import Engine
    from sr_deploy.video.colour import Colour
    from sr_deploy.yuv import Matrix

_FORMAT = "p010le"
_FORMATS = ("yuv420p10le", _FORMAT)
_MATRICES: dict[int, Matrix] = {
    BT709: "bt709",
    BT470BG: "bt601",
    SMPTE170M: "bt601",
    BT2020: "bt2020",
}


def fit(engine: Engine, frame: av.VideoFrame, colour: Colour, pixel_format: str) -> bool:
    """Return whether frames like this one can go so, and come out in `pixel_format`.

    Args:
        engine: What upscales them.
        frame: The first.
        colour: What its numbers mean, nothing left unsaid.
        pixel_format: Of what comes out.
    """
    return (
        frame.format.name in _FORMATS
        and pixel_format in _FORMATS
        and colour.matrix in _MATRICES
        and engine.takes("p010", frame.height, frame.width)
    )


def from_frame(frame: av.VideoFrame, colour: Colour) -> YuvFrame:
    """Return what the network takes of a frame."""
    result = YuvFrame.empty("p010", frame.height, frame.width)
    luma, chroma = planes(repacked(frame, _FORMAT), layout(_FORMAT))
    result.samples[: frame.height] = luma
    result.samples[frame.height :] = chroma
    return YuvFrame(result.samples, "p010", _MATRICES[colour.matrix], colour.range == FULL)


def to_frame(frame: YuvFrame, pixel_format: str) -> av.VideoFrame:
    """Return a new frame of what the network gives."""
    result = av.VideoFrame(frame.width, frame.height, _FORMAT)
    luma, chroma = planes(result, layout(_FORMAT))
    luma[...] = frame.samples[: frame.height]
    chroma[...] = frame.samples[frame.height :]
    return repacked(result, pixel_format)
