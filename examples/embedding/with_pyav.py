"""Upscale a video with PyAV: decoding, network and encoding overlap; frames keep their timestamps.

    python with_pyav.py BUNDLE in.mp4 out.mkv

This is the core of `sr-upscale`, which also keeps audio, subtitles, tags and 10 bits.
Needs PyAV: pip install av
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import av

from sr_deploy import Engine

if TYPE_CHECKING:
    from collections.abc import Iterator


def frames(source: av.container.InputContainer) -> Iterator[tuple[Any, Any]]:
    """Yield pixels and timestamp of each frame; the timestamp comes back with the result."""
    for frame in source.decode(video=0):
        yield frame.to_ndarray(format="rgb24"), frame.pts


def main(bundle: str, source: str, target: str) -> None:
    """Upscale a video."""
    with (
        av.open(source) as opened,
        av.open(target, "w") as output,
        Engine(bundle, streaming=True) as engine,
    ):
        video = opened.streams.video[0]
        scale = engine.spec.scale
        stream = output.add_stream("libx264", rate=video.average_rate)
        stream.width, stream.height = scale * video.width, scale * video.height
        stream.pix_fmt, stream.time_base = "yuv420p", video.time_base
        for big, pts in engine.stream(frames(opened), reuse=True):
            frame = av.VideoFrame.from_ndarray(big, format="rgb24")
            frame.pts, frame.time_base = pts, video.time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode())


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
