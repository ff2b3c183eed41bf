"""Frames through an engine into a pipe: no file, no sound, one frame after the other."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO

from sr_deploy.video.pipes import (
    DEFAULT_RATE,
    FrameReader,
    FrameWriter,
    Shape,
    raw_shape,
    y4m_header,
)
from sr_deploy.video.source import VideoSource
from sr_deploy.video.upscale import ColorSpec, StageMeter, upscaled

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    import av

    from sr_deploy.engine import Engine
    from sr_deploy.video.transcode import Cut


def from_pipe(engine: Engine, pipe: BinaryIO, out: BinaryIO, raw: str | None) -> tuple[str, ...]:
    """Upscale the frames of a pipe into another, as the same kind of frames.

    Args:
        engine: What upscales them.
        pipe: Brings Y4M, or raw frames.
        out: Where the frames go.
        raw: What the raw frames are, as `pipes.raw_shape` takes it; None: it is Y4M.

    Returns:
        What could not be read, in words; empty: nothing.

    Raises:
        InvalidInputError: the pipe brings something else.
        VideoError: whoever read the output has gone.
    """
    reader = FrameReader(pipe, raw_shape(raw) if raw else None)
    _relay(engine, reader.frames(), reader.shape, reader.shape, out)
    return reader.damage


def from_file(
    engine: Engine, path: Path, out: BinaryIO, cut: Cut, pixel_format: str | None
) -> tuple[str, ...]:
    """Upscale a video file into a pipe, as Y4M.

    Args:
        engine: What upscales it.
        path: The file.
        out: Where the frames go.
        cut: Which frames.
        pixel_format: Of the output; None: the source's.

    Returns:
        What could not be read, in words; empty: nothing.

    Raises:
        NotFoundError, InvalidInputError: file or options do not fit.
        VideoError: the file cannot be read at all, or whoever read the output has gone.
    """
    with VideoSource(path, threads=engine.spec.threads, **vars(cut)) as source:
        info = source.info
        rate = info.rate or DEFAULT_RATE
        shape = Shape(info.width, info.height, info.pixel_format, rate, info.colour)
        written = replace(shape, pixel_format=pixel_format or info.pixel_format)
        _relay(engine, source.frames(), shape, y4m_header(written, info.aspect), out)
        return source.damage


def _relay(
    engine: Engine, frames: Iterable[av.VideoFrame], shape: Shape, written: Shape, out: BinaryIO
) -> None:
    writer = FrameWriter(out, written.times(engine.spec.scale))
    # Y4M cannot say the matrix, and by their new size other tools would take another.
    colour = shape.colour.meant(shape.pixel_format, shape.width, shape.height)
    look = ColorSpec(shape.colour, colour, written.pixel_format)
    with contextlib.closing(upscaled(engine, frames, look, StageMeter())) as results:
        for frame in results:
            writer.write(frame)
