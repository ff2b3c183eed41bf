"""An encoded picture on its way from the encoder to the file."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Packet:
    """What an encoder gives for one picture; packets come in the order of decoding.

    There is no decoding time: it is computed for the whole video when the file is written, so that
    a video that was encoded in pieces is like one that was not.
    """

    data: bytes
    pts: int
    """When it is shown, in the time base of the source's stream."""
    duration: int
    """In the same time base; 0: not known."""
    keyframe: bool
