"""A camera or a network stream, upscaled as it comes: what is out of date is never computed.

    python live.py BUNDLE 0                          the first camera, shown in a window
    python live.py BUNDLE rtsp://host/stream         a network camera

Needs OpenCV (pip install opencv-python).
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import cv2

from sr_deploy import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator

RECONNECT_SECONDS = 1.0


def camera(address: str) -> Iterator[Any]:
    """Yield frames (H, W, 3) for ever; open the source again when it ends."""
    while True:
        capture = cv2.VideoCapture(int(address) if address.isdigit() else address)
        try:
            while (got := capture.read())[0]:
                yield cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        time.sleep(RECONNECT_SECONDS)


def main(bundle: str, address: str) -> None:
    """Show the source until someone presses Q."""
    with Engine(bundle) as engine:
        # latest=True: the camera never waits. Of the frames that come while one is computed, only
        # the newest is kept, so the picture lags by two frames at most, however slow the network.
        for big in engine.stream(camera(address), latest=True, reuse=True):
            cv2.imshow("upscaled", cv2.cvtColor(big, cv2.COLOR_RGB2BGR))
            if cv2.waitKey(1) == ord("q"):
                break


if __name__ == "__main__":
    main(*sys.argv[1:])
