"""A whole video: decoded, upscaled and encoded again, as users do it."""

from __future__ import annotations

import importlib.util
import io
import itertools
import os
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from sr_bench.jobs import Frames, Runner

_CLIP_FRAMES = 24
_FRAMES_A_SECOND = 24
_FEWEST = 3
_CODECS = ("libx264", "mpeg4")
_OPTIONS = {"libx264": {"preset": "veryfast"}}


def prepared(opened: Runner, batches: Frames) -> Video | None:
    """Return the video form; None: PyAV is not there, or the frames cannot be a video's.

    Videos are in colour, and the usual way to store that needs even sides.
    """
    height, width, channels = batches.shape[2:]
    if importlib.util.find_spec("av") is None or channels != 3 or height % 2 or width % 2:
        return None
    return Video(opened, batches.reshape(-1, height, width, 3)[:_CLIP_FRAMES])


class Video:
    """Decodes a clip again and again, upscales its frames, and encodes them; see `forms.Form`.

    Frames are overlapped where the contender can (see `Runner.through`), else they go one after
    the other. What is encoded is thrown away: a disk would be measured otherwise.
    """

    def __init__(self, opened: Runner, frames: Frames) -> None:
        self._opened = opened
        clip = io.BytesIO()
        with _Encoder(clip, "mp4") as encoder:
            for frame in frames:
                encoder.put(frame)
        self._clip = clip.getvalue()
        self._count = len(frames)

    def turn(self, seconds: float) -> list[float]:
        """Return milliseconds from one encoded frame to the next."""
        frames = self._decoded(time.monotonic() + seconds)
        results = self._opened.through(frames) if self._overlaps() else None
        if results is None:
            results = (self._opened.upscale(frame[None])[0] for frame in frames)
        ends = []
        with _Encoder(os.devnull, "null") as encoder:
            for result in results:
                encoder.put(result)
                ends.append(time.perf_counter())
        return [1e3 * (end - start) for start, end in itertools.pairwise(ends)]

    def stages(self) -> dict[str, float]:
        """Return the milliseconds that each stage takes of a frame, one after the other.

        It is the mean over all of the clip: decoders and encoders do their work in bursts.
        """
        spent = dict.fromkeys(("decode", "upscale", "encode"), 0.0)
        start = time.perf_counter()

        def passed(stage: str) -> None:
            nonlocal start
            now = time.perf_counter()
            spent[stage] += 1e3 * (now - start) / self._count
            start = now

        with _Encoder(os.devnull, "null") as encoder:
            for frame in self._once():
                passed("decode")
                result = self._opened.upscale(frame[None])[0]
                passed("upscale")
                encoder.put(result)
                passed("encode")
        passed("encode")
        return spent

    def _overlaps(self) -> bool:
        return self._opened.through(iter(())) is not None

    def _decoded(self, end: float) -> Iterator[NDArray[Any]]:
        """Yield frames until a time, going through the clip again and again."""
        clips = itertools.chain.from_iterable(self._once() for _ in itertools.count())
        for count, frame in enumerate(clips):
            if count >= _FEWEST and time.monotonic() >= end:
                return
            yield frame

    def _once(self) -> Iterator[NDArray[Any]]:
        import av

        with av.open(io.BytesIO(self._clip)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")


class _Encoder:
    """Writes frames (H, W, 3) uint8 into a container of some format."""

    def __init__(self, target: str | io.BytesIO, container: str) -> None:
        import av

        self._container = av.open(target, "w", format=container)
        self._codec = next(each for each in _CODECS if each in av.codecs_available)
        self._stream: Any = None

    def put(self, frame: NDArray[Any]) -> None:
        """Encode a frame."""
        import av

        if self._stream is None:
            options = _OPTIONS.get(self._codec)
            self._stream = self._container.add_stream(self._codec, _FRAMES_A_SECOND, options)
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))

    def __enter__(self) -> _Encoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()
