"""Upscale a camera or a network stream live and show it in a window: outdated frames are skipped.

    python live.py BUNDLE 0                          the first camera
    python live.py BUNDLE rtsp://host/stream         a network camera

Needs OpenCV: pip install opencv-python
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
    """Yield RGB frames (H, W, 3) forever; reopen the source when it ends."""
    while True:
        capture = cv2.VideoCapture(int(address) if address.isdigit() else address)
        try:
            while (got := capture.read())[0]:
                yield cv2.cvtColor(got[1], cv2.COLOR_BGR2RGB)
        finally:
            capture.release()
        time.sleep(RECONNECT_SECONDS)


def main(bundle: str, address: str) -> None:
    """Show the upscaled source until Q is pressed."""
    with Engine(bundle) as engine:
        # latest=True: the camera never waits. A waiting frame is replaced by a newer one, so the
        # picture lags by two frames at most, even with a slow network.
        for big in engine.stream(camera(address), latest=True, reuse=True):
            cv2.imshow("upscaled", cv2.cvtColor(big, cv2.COLOR_RGB2BGR))
            if cv2.waitKey(1) == ord("q"):
                break


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
