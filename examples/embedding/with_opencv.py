"""Upscale a video with OpenCV's capture and writer.

    python with_opencv.py BUNDLE in.mp4 out.mp4

OpenCV drops audio and exact timestamps; `sr-upscale` keeps both.
Needs OpenCV: pip install opencv-python
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import cv2

from sr_deploy import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator


def frames(capture: cv2.VideoCapture) -> Iterator[Any]:
    """Yield RGB frames, each in a new array: `stream` still reads earlier ones."""
    while (got := capture.read())[0]:
        yield cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB)


def main(bundle: str, source: str, target: str) -> None:
    """Upscale a video."""
    capture = cv2.VideoCapture(source)
    rate = capture.get(cv2.CAP_PROP_FPS)
    writer = None
    with Engine(bundle, streaming=True) as engine:
        for big in engine.stream(frames(capture), reuse=True):
            if writer is None:
                size = (big.shape[1], big.shape[0])
                writer = cv2.VideoWriter(target, cv2.VideoWriter.fourcc(*"mp4v"), rate, size)
            writer.write(cv2.cvtColor(big, cv2.COLOR_RGB2BGR))
    if writer is not None:
        writer.release()
    capture.release()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
