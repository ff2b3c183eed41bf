"""Upscaling of a video file into another, in segments that survive a kill."""

from __future__ import annotations

import contextlib
import itertools
import logging
import time
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING, Any

from sr_deploy.bundle import manifest
from sr_deploy.errors import VideoError
from sr_deploy.files import sha256_of
from sr_deploy.video import encode
from sr_deploy.video.convert import converters
from sr_deploy.video.job import TranscodeJob, source_facts
from sr_deploy.video.mux import Muxer
from sr_deploy.video.source import FrameSelection, VideoSource
from sr_deploy.video.source_streams import StreamReader

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator
    from pathlib import Path

    import av

    from sr_deploy.engine import Engine
    from sr_deploy.video.color import Color
    from sr_deploy.video.encode import EncoderSettings
    from sr_deploy.video.segments import EncodedPacket

_log = logging.getLogger(__name__)

SEGMENT = 250
"""Frames of a segment: what a kill costs at most, and the usual distance of keyframes."""
_BOTTLENECK = 0.9
"""Share of the time from which a stage counts as the bottleneck."""


@dataclass(frozen=True)
class TranscodeTask:
    """One video to upscale.

    Attributes:
        source: The file.
        target: The output file; its suffix names the container.
        bundle: Folder of the bundle, on whose content the result depends.
        selection: Which frames.
        options: Of the encoder.
        drop: Kinds of streams that may be dropped; see `mux.Muxer`.
        resume: Continue an interrupted job.
        overwrite: Discard an interrupted job.
    """

    source: Path
    target: Path
    bundle: Path
    selection: FrameSelection = field(default_factory=FrameSelection)
    options: encode.EncoderOptions = field(default_factory=encode.EncoderOptions)
    drop: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class TranscodeProgress:
    """Progress of a job.

    Attributes:
        frames: Finished frames, of all runs.
        before: Of these, frames of earlier, interrupted runs.
        total: Estimated number of frames; None if unknown.
        slowest: Stage that the others wait for: "reading", "network" or "writing".
    """

    frames: int
    before: int
    total: int | None
    slowest: str


@dataclass(frozen=True)
class TranscodeResult:
    """Outcome of a job.

    Attributes:
        frames: Written frames.
        size: Width and height of the frames.
        damage: Problems while reading the source; empty if there were none.
        notes: Deviations that the user may not expect.
    """

    frames: int
    size: tuple[int, int]
    damage: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class ColorSpec:
    """Color of a video before and after upscaling.

    Attributes:
        color: Of the source's frames.
        color_out: Of the resulting frames.
        pixel_format: Of the resulting frames.
    """

    color: Color
    color_out: Color
    pixel_format: str


def transcode(
    engine: Engine, task: TranscodeTask, report: Callable[[TranscodeProgress], None]
) -> TranscodeResult:
    """Upscale a video; the target appears when it is complete.

    Args:
        engine: Of the task's bundle.
        task: What to do.
        report: Called after every frame.

    Raises:
        NotFoundError, InvalidInputError: Source, target or options do not fit.
        VideoError: The source cannot be read at all, or the target cannot be written.
        OutOfMemoryError, BackendError: As in `Engine.upscale`.
    """
    threads, scale = engine.spec.threads, engine.spec.scale
    with (
        VideoSource(task.source, task.selection, threads=threads) as source,
        StreamReader(task.source, source.container, source.info.stream) as others,
    ):
        info = source.info
        size = (scale * info.width, scale * info.height)
        settings = encode.choose(info, size, task.target.suffix, task.options, threads=threads)
        muxer = Muxer(others, info, settings, task.target, task.drop)
        facts = _facts(engine, task, settings)
        with TranscodeJob(task.target, facts, resume=task.resume, overwrite=task.overwrite) as job:
            if not job.complete:
                _encode(engine, source, settings, job, report)
            result = muxer.write(job, task.selection)
            damage = (*job.remarks, *([result.damage] if result.damage else []))
            frames = job.frames
            job.remove()
    notes = dict.fromkeys((*settings.notes, *result.dropped))
    return TranscodeResult(frames, size, damage, tuple(notes))


def _encode(
    engine: Engine,
    source: VideoSource,
    settings: EncoderSettings,
    job: TranscodeJob,
    report: Callable[[TranscodeProgress], None],
) -> None:
    """Upscale and encode the frames that the job lacks; damage becomes a remark."""
    spec = ColorSpec(source.info.color, settings.color, settings.pixel_format)
    meter = StageMeter()
    before = count = job.frames

    def packets(encoder: encode.Encoder, first: av.VideoFrame) -> Iterator[EncodedPacket]:
        nonlocal count
        for frame in itertools.chain([first], itertools.islice(frames, SEGMENT - 1)):
            yield from encoder.encode(frame)
            count += 1
            report(TranscodeProgress(count, before, source.info.frames, meter.slowest()))
        yield from encoder.encode(None)

    # Whatever fails, the threads that read the source end before it is closed.
    wanted = source.frames(after=job.last_pts)
    with contextlib.closing(upscaled(engine, wanted, spec, meter)) as frames:
        for first in frames:
            encoder = encode.Encoder(settings)
            job.add(encoder.extradata, packets(encoder, first))
            job.remark(source.damage)
    if not job.segments:
        reason = "; ".join(source.damage) or "the selected range is empty"
        raise VideoError(f"{source.path}: no frame could be read: {reason}")
    job.remark(source.damage)
    job.finish()


def _facts(engine: Engine, task: TranscodeTask, settings: EncoderSettings) -> dict[str, str]:
    """Return everything that changes the result, by names for the user."""
    spec = engine.spec
    versions = {
        f"version of {name}": metadata.version(name) for name in ("sr-deploy", "av", spec.backend)
    }
    return {
        **source_facts(task.source),
        "bundle": sha256_of(task.bundle / manifest.NAME),
        "backend": f"{spec.backend} on {spec.device}",
        "precision": spec.precision,
        "part of the video": repr(task.selection),
        "encoder": repr(settings),
        "frames in a segment": str(SEGMENT),
        **versions,
    }


class StageMeter:
    """Finds the bottleneck among reading, network and writing."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.reading = 0.0
        self.writing = 0.0

    def slowest(self) -> str:
        """Return the stage that the others wait for: "reading", "writing" or "network"."""
        limit = _BOTTLENECK * (time.monotonic() - self._start)
        if self.writing > limit:
            return "writing"
        return "reading" if self.reading > limit else "network"


def upscaled(
    engine: Engine, frames: Iterable[av.VideoFrame], spec: ColorSpec, meter: StageMeter
) -> Generator[av.VideoFrame, None, None]:
    """Yield each frame upscaled, with its own time; closing this ends all its threads.

    One thread reads the source, others run the network, and the caller's work on a frame overlaps
    with both. All results have one size: frames that differ from the first are resized before.
    """
    inputs = _engine_inputs(engine, frames, spec, meter)
    with contextlib.closing(engine.stream(inputs, reuse=True)) as results:
        for result, (to_frame, pts, duration, time_base) in results:
            start = time.monotonic()
            frame = to_frame(result)
            frame.pts, frame.duration, frame.time_base = pts, duration, time_base
            yield frame
            meter.writing += time.monotonic() - start


def _engine_inputs(
    engine: Engine, frames: Iterable[av.VideoFrame], spec: ColorSpec, meter: StageMeter
) -> Iterator[tuple[Any, Any]]:
    """Yield the engine's input for each frame, tagged with the way back and the frame's time."""
    first: tuple[int, int, str] | None = None
    warned = False
    start = time.monotonic()
    for frame in frames:
        kind = (frame.width, frame.height, frame.format.name)
        if first is None:
            first = kind
            to_input, to_frame = converters(
                engine, frame, spec.color, spec.color_out, spec.pixel_format
            )
        if kind != first:
            width, height, name = first
            if not warned:
                _log.warning(
                    "from %.3f s on, frames are %dx%d in %s instead of %dx%d in %s; they are "
                    "converted to that",
                    *(frame.time or 0.0, *kind, *first),
                )
            warned = True
            frame = frame.reformat(width, height, name, interpolation="BICUBIC")
        item = to_input(frame), (to_frame, frame.pts, frame.duration, frame.time_base)
        meter.reading += time.monotonic() - start
        yield item
        start = time.monotonic()
