"""Timers: they time successive calls, overlapped frames, or a whole video of a runner."""

from __future__ import annotations

import importlib.util
import io
import itertools
import os
import time
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from sr_export import photos

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from sr_bench.records import Configuration

    Frames = NDArray[np.uint8]
    Clock = Callable[[Callable[[], object]], float]

_CACHE_BYTES = 64 << 20
"""More than the last-level cache of most processors: a frame is evicted before its next turn."""
_MIN_BATCHES, _MAX_BATCHES = 4, 512
_MIN_FRAMES = 3
_CLIP_FRAMES = 24
_FRAME_RATE = 24
_CODECS = ("libx264", "mpeg4")
_CODEC_OPTIONS = {"libx264": {"preset": "veryfast"}}


class Runner(Protocol):
    """An opened configuration. Frames are (N, H, W, C) uint8, input and output."""

    resolved: Configuration | None
    """What the default resolved to; None: the configuration itself."""

    def upscale(self, frames: Frames) -> NDArray[Any]:
        """Upscale a batch, with all copies."""

    def network(self, batches: Frames) -> Callable[[int], object] | None:
        """Return a call of the network alone on a batch of (M, N, H, W, C), by its index.

        None: the network cannot be called separately.
        """

    def stream(self, frames: Iterator[Frames]) -> Iterator[NDArray[Any]] | None:
        """Upscale consecutive frames (H, W, C), overlapped; None: not supported."""

    def stages(self, frames: Frames) -> dict[str, float]:
        """Upscale a batch; return the milliseconds of each stage, in order."""

    def settle(self, frames: Frames) -> NDArray[Any]:
        """Run optimizations that would otherwise start after many frames; upscale a batch."""

    def clock(self) -> Clock:
        """Return a function that runs a call and returns its milliseconds."""

    def device_memory(self) -> int | None:
        """Return the peak GPU memory in bytes; None: no GPU, or unknown."""

    def close(self) -> None:
        """Release all resources."""


class Timer(Protocol):
    """Times one mode of a runner."""

    def measure(self, seconds: float) -> list[float]:
        """Return the milliseconds of as many calls as fit, at least one."""


def wall_clock(call: Callable[[], object]) -> float:
    """Return the milliseconds of a synchronous call."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def cuda_clock() -> Clock:
    """Return a clock for work on the current CUDA stream of PyTorch.

    The GPU itself stamps the events, so the latency of launching and of noticing the end does not
    count; waiting for a host that feeds the GPU too slowly does.
    """
    import torch

    start = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    end = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]

    def timed(call: Callable[[], object]) -> float:
        start.record()
        call()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end))

    return timed


def input_batches(width: int, height: int, channels: int, batch: int) -> Frames:
    """Return batches (M, N, H, W, C) of photos, more than a cache holds, all different."""
    frame = height * width * channels
    count = min(max(-(-_CACHE_BYTES // (frame * batch)), _MIN_BATCHES), _MAX_BATCHES)
    samples = photos.batch(_MIN_BATCHES, height, width, channels)
    batches = np.empty((count, batch, height, width, channels), np.uint8)
    for i in range(count * batch):
        shift = i // _MIN_BATCHES
        image = np.roll(samples[i % _MIN_BATCHES], (7 * shift, 13 * shift), (0, 1))
        batches[i // batch, i % batch] = image
    return batches


class CallTimer:
    """Times successive calls, each with the next batch.

    Args:
        call: Takes the index of a batch.
        count: Number of batches.
        clock: Runs a call and returns its milliseconds.
    """

    def __init__(self, call: Callable[[int], object], count: int, clock: Clock) -> None:
        self._call = call
        self._count = count
        self._clock = clock
        self._next = 0

    def one(self) -> float:
        """Return the milliseconds of one call."""
        index = self._next
        self._next = (index + 1) % self._count
        return self._clock(lambda: self._call(index))

    def measure(self, seconds: float) -> list[float]:
        """Return milliseconds, after one call that refills the caches."""
        self.one()
        end = time.monotonic() + seconds
        found = [self.one()]
        while time.monotonic() < end:
            found.append(self.one())
        return found


class StreamTimer:
    """Times consecutive frames, overlapped, from the end of one to the end of the next."""

    def __init__(self, runner: Runner, batches: Frames) -> None:
        self._runner = runner
        self._frames = batches.reshape(-1, *batches.shape[2:])
        self._next = 0

    def measure(self, seconds: float) -> list[float]:
        """Return milliseconds; the first frame does not overlap with another and is left out."""
        results = self._runner.stream(self._until(time.monotonic() + seconds))
        assert results is not None
        return _gaps(time.perf_counter() for _ in results)

    def _until(self, end: float) -> Iterator[Frames]:
        count = 0
        while count < _MIN_FRAMES or time.monotonic() < end:
            yield self._frames[self._next]
            self._next = (self._next + 1) % len(self._frames)
            count += 1


def video_timer(runner: Runner, batches: Frames) -> VideoTimer | None:
    """Return a timer for video; None: PyAV is missing, or the frames do not fit a video.

    The videos are RGB, and 4:2:0 needs even sides.
    """
    height, width, channels = batches.shape[2:]
    if importlib.util.find_spec("av") is None or channels != 3 or height % 2 or width % 2:
        return None
    return VideoTimer(runner, batches.reshape(-1, height, width, 3)[:_CLIP_FRAMES])


class VideoTimer:
    """Decodes a clip repeatedly, upscales its frames and encodes them.

    Frames are overlapped if the runner supports it (see `Runner.stream`). The encoded data is
    discarded, so that no disk is measured.
    """

    def __init__(self, runner: Runner, frames: Frames) -> None:
        self._runner = runner
        clip = io.BytesIO()
        with _ClipEncoder(clip, "mp4") as encoder:
            for frame in frames:
                encoder.put(frame)
        self._clip = clip.getvalue()
        self._count = len(frames)

    def measure(self, seconds: float) -> list[float]:
        """Return milliseconds from one encoded frame to the next."""
        frames = self._until(time.monotonic() + seconds)
        results = None
        if self._runner.stream(iter(())) is not None:
            results = self._runner.stream(frames)
        if results is None:
            results = (self._runner.upscale(frame[None])[0] for frame in frames)
        ends = []
        with _ClipEncoder(os.devnull, "null") as encoder:
            for result in results:
                encoder.put(result)
                ends.append(time.perf_counter())
        return _gaps(ends)

    def stages(self) -> dict[str, float]:
        """Return the milliseconds of each stage per frame, without overlapping.

        The mean over the clip: decoders and encoders work in bursts.
        """
        spent = dict.fromkeys(("decode", "upscale", "encode"), 0.0)
        start = time.perf_counter()

        def add(stage: str) -> None:
            nonlocal start
            now = time.perf_counter()
            spent[stage] += 1e3 * (now - start) / self._count
            start = now

        with _ClipEncoder(os.devnull, "null") as encoder:
            for frame in self._decode():
                add("decode")
                result = self._runner.upscale(frame[None])[0]
                add("upscale")
                encoder.put(result)
                add("encode")
        add("encode")
        return spent

    def _until(self, end: float) -> Iterator[NDArray[Any]]:
        """Yield frames until a time, repeating the clip."""
        clips = itertools.chain.from_iterable(self._decode() for _ in itertools.count())
        for count, frame in enumerate(clips):
            if count >= _MIN_FRAMES and time.monotonic() >= end:
                return
            yield frame

    def _decode(self) -> Iterator[NDArray[Any]]:
        import av

        with av.open(io.BytesIO(self._clip)) as container:
            for frame in container.decode(video=0):
                yield frame.to_ndarray(format="rgb24")


class _ClipEncoder:
    """Encodes frames (H, W, 3) uint8 into a container."""

    def __init__(self, target: str | io.BytesIO, container: str) -> None:
        import av

        self._container = av.open(target, "w", format=container)
        self._codec = next(each for each in _CODECS if each in av.codecs_available)
        self._stream: Any = None

    def put(self, frame: NDArray[Any]) -> None:
        """Encode a frame."""
        import av

        if self._stream is None:
            options = _CODEC_OPTIONS.get(self._codec)
            self._stream = self._container.add_stream(self._codec, _FRAME_RATE, options)
            self._stream.height, self._stream.width = frame.shape[:2]
            self._stream.pix_fmt = "yuv420p"
        self._container.mux(self._stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))

    def __enter__(self) -> _ClipEncoder:
        return self

    def __exit__(self, *_: object) -> None:
        if self._stream is not None:
            self._container.mux(self._stream.encode())
        self._container.close()


def _gaps(ends: Any) -> list[float]:
    """Return the milliseconds between successive ends."""
    return [1e3 * (end - start) for start, end in itertools.pairwise(ends)]
