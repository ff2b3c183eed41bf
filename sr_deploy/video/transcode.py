"""A video file through an engine into another, in segments that a kill cannot undo."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from importlib import metadata
from typing import TYPE_CHECKING

from sr_deploy.bundle import manifest
from sr_deploy.errors import VideoError
from sr_deploy.files import sha256_of
from sr_deploy.video import encode, mux
from sr_deploy.video.job import TranscodeJob, facts_of_source
from sr_deploy.video.source import VideoSource
from sr_deploy.video.upscale import ColorSpec, StageMeter, upscaled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    import av

    from sr_deploy.engine import Engine
    from sr_deploy.video.encode import EncoderSettings
    from sr_deploy.video.info import Info
    from sr_deploy.video.packets import Packet

SEGMENT = 250
"""Frames of a segment: what a kill costs at most, and as far apart as encoders put keyframes."""


@dataclass(frozen=True)
class Cut:
    """Which of a video's frames are taken, and how they are read; see `Source`."""

    start: float | None = None
    end: float | None = None
    every: int = 1
    crop: tuple[int, int, int, int] | None = None
    deinterlace: bool = False
    hardware: str | None = None


@dataclass(frozen=True)
class Coding:
    """What the user asks of the encoder; see `encoding.choose`."""

    encoder: str | None = None
    quality: float | None = None
    preset: str | None = None
    pixel_format: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class TranscodeTask:
    """One video to upscale.

    Attributes:
        source: The file.
        target: The file that is to become of it; its suffix says the container.
        bundle: Folder of the bundle, whose content the result depends on.
        cut: Which frames.
        coding: How they are encoded.
        drop: Kinds of streams that may be left out; see `assembly.check`.
        resume: Go on with a job that was interrupted.
        overwrite: Throw such a job away.
    """

    source: Path
    target: Path
    bundle: Path
    cut: Cut = Cut()
    coding: Coding = Coding()
    drop: tuple[str, ...] = ()
    resume: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class State:
    """How far it is.

    Attributes:
        frames: Done in all.
        before: Of these, done when an earlier run was interrupted.
        total: About how many there are; None: not known.
        slowest: The stage that the others wait for.
    """

    frames: int
    before: int
    total: int | None
    slowest: str


@dataclass(frozen=True)
class TranscodeResult:
    """What became of a video.

    Attributes:
        frames: Written.
        size: Width and height of the frames.
        damage: What could not be read of the source, in words; empty: nothing.
        notes: What was done differently than one might expect, in words.
    """

    frames: int
    size: tuple[int, int]
    damage: tuple[str, ...]
    notes: tuple[str, ...]


def transcode(
    engine: Engine, task: TranscodeTask, report: Callable[[State], None]
) -> TranscodeResult:
    """Upscale a video; the target appears when it is complete.

    Args:
        engine: Of the bundle of the task.
        task: What is to be done.
        report: Called after every frame.

    Raises:
        NotFoundError, InvalidInputError: source, target or options do not fit.
        VideoError: the source cannot be read at all, or the target not be written.
        OutOfMemoryError, BackendError: as `Engine.upscale` raises them.
    """
    threads = engine.spec.threads
    with VideoSource(task.source, threads=threads, **vars(task.cut)) as source:
        info = source.info
    scale = engine.spec.scale
    size = (scale * info.width, scale * info.height)
    settings = encode.choose(info, size, task.target.suffix, threads=threads, **vars(task.coding))
    left_out = mux.check(task.source, info, settings, task.target, drop=task.drop)
    facts = _facts(engine, task, settings)
    with TranscodeJob.open(task.target, facts, resume=task.resume, overwrite=task.overwrite) as job:
        if not job.complete:
            _encode(engine, task, info, settings, job, report)
            job.finish()
        done = mux.assemble(
            job,
            task.source,
            info,
            settings,
            task.target,
            drop=task.drop,
            start=task.cut.start,
            end=task.cut.end,
        )
        damage = (*job.remarks, *([done.damage] if done.damage else []))
        frames = job.frames
        job.remove()
    notes = dict.fromkeys((*settings.notes, *left_out, *done.left_out))
    return TranscodeResult(frames, size, damage, tuple(notes))


def _encode(
    engine: Engine,
    task: TranscodeTask,
    info: Info,
    settings: EncoderSettings,
    job: TranscodeJob,
    report: Callable[[State], None],
) -> None:
    """Upscale and encode what the job does not have yet; what cannot be read becomes a remark."""
    look = ColorSpec(info.colour, settings.colour, settings.pixel_format)
    meter, before = StageMeter(), job.frames
    count = before

    def counted(frames: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        nonlocal count
        for frame in frames:
            yield frame
            count += 1
            report(State(count, before, info.frames, meter.slowest))

    with VideoSource(
        task.source,
        threads=engine.spec.threads,
        start_after=job.last_pts,
        **vars(task.cut),
    ) as source:
        frames = counted(upscaled(engine, source.frames(), look, meter))
        for first in frames:
            encoder = encode.Encoder(settings)
            segment = itertools.chain([first], itertools.islice(frames, SEGMENT - 1))
            job.add(encoder.extradata, _packets(encoder, segment))
            job.remark(source.damage)
        if not job.segments:
            reason = "; ".join(source.damage) or "it has none in what was asked for"
            raise VideoError(f"{task.source}: no frame could be read: {reason}")
        job.remark(source.damage)


def _packets(encoder: encode.Encoder, frames: Iterator[av.VideoFrame]) -> Iterator[Packet]:
    for frame in frames:
        yield from encoder.encode(frame)
    yield from encoder.finish()


def _facts(engine: Engine, task: TranscodeTask, settings: EncoderSettings) -> dict[str, str]:
    """Return all that changes the result, by names that a user understands."""
    spec = engine.spec
    versions = {
        f"version of {name}": metadata.version(name) for name in ("sr-deploy", "av", spec.backend)
    }
    return {
        **facts_of_source(task.source),
        "bundle": sha256_of(task.bundle / manifest.NAME),
        "backend": f"{spec.backend} on {spec.device}",
        "precision": spec.precision,
        "part of the video": repr(task.cut),
        "encoder": repr(settings),
        "frames in a segment": str(SEGMENT),
        **versions,
    }
