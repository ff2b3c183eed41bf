"""Upscaling through pipes, frame by frame: Y4M and raw frames, without sound.

PyAV's `yuv4mpegpipe` and `rawvideo` are not used (measured with PyAV 18). Their writer refuses more
than 8 bits and alpha, and writes another chroma siting, aspect and range than it has read. Their
reader takes interlaced frames for progressive ones and any bad rate for 25, and drops a truncated
frame without an error.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np

from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video.color import FULL, LIMITED, Color
from sr_deploy.video.source import VideoSource
from sr_deploy.video.transcode import ColorSpec, StageMeter, upscaled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_deploy.engine import Engine
    from sr_deploy.video.source import FrameSelection

_MAGIC = "YUV4MPEG2"
_LONGEST_LINE = 4096
_LARGEST_SIDE = 1 << 16
_LARGEST_FRAME = 1 << 31
"""Bytes; a header with larger frames is damaged."""
_LARGEST_RATE = 1 << 31
"""Of numerator and denominator, which are 32-bit integers in FFmpeg."""
_RAW = re.compile(r"(\d+)x(\d+):([a-z0-9]+)(?:@(\d+(?:[/:]\d+)?))?", re.IGNORECASE)
_DEFAULT_RATE = Fraction(25)
# Fraction alone would take 1e999999999, too, and compute for hours.
_Y4M_RATE = re.compile(r"[0-9]{1,10}(:[0-9]{1,10})?")
# Pixel formats of Y4M; those of 4:2:0 differ in their chroma siting.
_Y4M_FORMATS = {
    **dict.fromkeys(("420", "420jpeg", "420mpeg2", "420paldv"), "yuv420p"),
    **dict.fromkeys(("mono",), "gray"),
    **{name: f"yuv{name}p" for name in ("411", "422", "444")},
    **{f"{name}p{bits}": f"yuv{name}p{bits}le" for name in (420, 422, 444) for bits in (10, 12)},
    **{f"mono{bits}": f"gray{bits}le" for bits in (10, 12, 16)},
    **dict.fromkeys(("444alpha",), "yuva444p"),
}
_RANGES = {"LIMITED": LIMITED, "FULL": FULL}


@dataclass(frozen=True)
class PipeFormat:
    """Format of the frames in a pipe.

    Attributes:
        width: In pixels.
        height: In pixels.
        pixel_format: FFmpeg's name.
        rate: Frames per second.
        color: Color tags, as far as the pipe has them.
        header: Parameters of Y4M without width and height; None for raw frames.

    Raises:
        InvalidInputError: Such frames are not supported.
    """

    width: int
    height: int
    pixel_format: str
    rate: Fraction = _DEFAULT_RATE
    color: Color = field(default_factory=Color)
    header: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not (0 < self.width <= _LARGEST_SIDE and 0 < self.height <= _LARGEST_SIDE):
            raise InvalidInputError(
                f"unsupported frame size {self.width}x{self.height}; sides are from 1 to "
                f"{_LARGEST_SIDE} pixels"
            )
        if not (0 < self.rate.numerator < _LARGEST_RATE and self.rate.denominator < _LARGEST_RATE):
            raise InvalidInputError(
                "unsupported frame rate; numerator and denominator are from 1 to "
                f"{_LARGEST_RATE - 1}"
            )
        if self.frame_size > _LARGEST_FRAME:
            raise InvalidInputError(
                f"unsupported frames of {self.frame_size} bytes; the maximum is {_LARGEST_FRAME}"
            )

    @property
    def rows(self) -> list[tuple[int, int]]:
        """Rows of each plane, and bytes of each row.

        Raises:
            InvalidInputError: The pixel format is unknown, or not of plain samples.
        """
        try:
            layout = av.VideoFormat(self.pixel_format, self.width, self.height)
        except ValueError:
            raise InvalidInputError(
                f"unknown pixel format {self.pixel_format!r}; ffmpeg -pix_fmts lists them"
            ) from None
        planes: dict[int, tuple[int, int]] = {}
        for each in layout.components:
            height, width = planes.get(each.plane, (each.height, 0))
            planes[each.plane] = (height, width + each.width * ((each.bits + 7) // 8))
        if not planes or layout.has_palette:
            raise InvalidInputError(
                f"unsupported pixel format {self.pixel_format!r} for raw frames; convert them "
                "first, for example with ffmpeg -pix_fmt rgb24"
            )
        if len(planes) == 1:  # pixels with unused bits (rgb0)
            return [(self.height, -(-self.width * layout.padded_bits_per_pixel // 8))]
        return [planes[number] for number in sorted(planes)]

    @property
    def frame_size(self) -> int:
        """Bytes of a frame."""
        return sum(height * width for height, width in self.rows)

    def upscaled(self, scale: int) -> PipeFormat:
        """Return the format of the upscaled frames."""
        return replace(self, width=scale * self.width, height=scale * self.height)

    @classmethod
    def parse_raw(cls, text: str) -> PipeFormat:
        """Return the format of raw frames from the user's text: 480x270:yuv420p, 8x8:rgb24@30.

        Raises:
            InvalidInputError: The text or the format is wrong.
        """
        match = _RAW.fullmatch(text.strip())
        if match is None:
            raise InvalidInputError(
                f"wrong format of raw frames {text!r}; write WIDTHxHEIGHT:FORMAT, such as "
                "480x270:yuv420p or 480x270:rgb24"
            )
        width, height, name, rate = match.groups(default=str(_DEFAULT_RATE))
        try:
            return cls(int(width), int(height), name.lower(), Fraction(rate.replace(":", "/")))
        except (ValueError, ZeroDivisionError):
            raise InvalidInputError(f"wrong number in the format of raw frames {text!r}") from None

    @classmethod
    def parse_y4m(cls, line: bytes) -> PipeFormat:
        """Return the format that the first line of a Y4M stream declares.

        Raises:
            InvalidInputError: It is not Y4M, damaged, or of an unsupported format.
        """
        words = line.decode("latin-1").split(" ")
        if words[0] != _MAGIC:
            raise InvalidInputError(
                "the pipe has no Y4M; let the program before write it (ffmpeg: -f yuv4mpegpipe), "
                "or describe raw frames with --raw WIDTHxHEIGHT:FORMAT"
                if line
                else "the pipe is empty; did the program before it fail?"
            )
        values = {word[0]: word[1:] for word in words[1:] if word}
        extras = dict(word[1:].split("=", 1) for word in words if word[:1] == "X" and "=" in word)
        if values.get("I", "p") not in ("p", "?"):
            raise InvalidInputError(
                "the pipe has interlaced frames; deinterlace them first (ffmpeg: -vf bwdif)"
            )
        name = values.get("C", "420jpeg").lower()
        if name not in _Y4M_FORMATS:
            raise InvalidInputError(
                f"unsupported Y4M format {name!r}; supported are {', '.join(_Y4M_FORMATS)}"
            )
        written = values.get("F", "25:1")
        try:
            if not _Y4M_RATE.fullmatch(written):
                raise ValueError(written)
            rate = Fraction(written.replace(":", "/")) or _DEFAULT_RATE
            width, height = int(values["W"]), int(values["H"])
        except (KeyError, ValueError, ZeroDivisionError):
            raise InvalidInputError(f"the Y4M header is damaged: {line[:80]!r}") from None
        color = Color(range=_RANGES.get(extras.get("COLORRANGE", ""), Color().range))
        header = tuple(word for word in words[1:] if word and word[0] not in "WH")
        return cls(width, height, _Y4M_FORMATS[name], rate, color, header)

    def as_y4m(self, aspect: Fraction | None) -> PipeFormat:
        """Return the format with a Y4M header.

        Raises:
            InvalidInputError: Y4M has no such pixel format.
        """
        names = [name for name, each in _Y4M_FORMATS.items() if each == self.pixel_format]
        if not names:
            raise InvalidInputError(
                f"Y4M has no pixel format {self.pixel_format}; it has "
                f"{', '.join(dict.fromkeys(_Y4M_FORMATS.values()))}: choose one with --pixel-format"
            )
        ranges = {value: name for name, value in _RANGES.items()}
        header = [f"F{self.rate.numerator}:{self.rate.denominator}", "Ip", f"C{names[0]}"]
        header += [f"A{aspect.numerator}:{aspect.denominator}"] if aspect else []
        header += [f"XCOLORRANGE={ranges[self.color.range]}"] if self.color.range in ranges else []
        return replace(self, header=tuple(header))


class PipeReader:
    """Reads frames from a pipe.

    Args:
        pipe: The pipe.
        raw: Format of raw frames; None for Y4M, whose header declares it.

    Attributes:
        format: Of the frames.
        damage: Problems while reading; empty if there were none.

    Raises:
        InvalidInputError: The pipe has no Y4M, or an unsupported one.
    """

    def __init__(self, pipe: BinaryIO, raw: PipeFormat | None = None) -> None:
        self._pipe = pipe
        self.damage: tuple[str, ...] = ()
        self.format = PipeFormat.parse_y4m(self._line()) if raw is None else raw

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield each frame, timed by its number."""
        shape, rows = self.format, self.format.rows
        number = 0
        while (content := self._next_content(shape.frame_size)) is not None:
            frame = av.VideoFrame(shape.width, shape.height, shape.pixel_format)
            start = 0
            for plane, (height, width) in zip(_plane_bytes(frame, rows), rows, strict=True):
                samples = np.frombuffer(content, np.uint8, height * width, start)
                plane[...] = samples.reshape(height, width)
                start += height * width
            frame.pts, frame.time_base, frame.duration = number, 1 / shape.rate, 1
            yield frame
            number += 1

    def _next_content(self, size: int) -> bytes | None:
        """Return the bytes of the next frame; None at the end."""
        if self.format.header is not None:
            line = self._line()
            if not line:
                return None
            if line.split(b" ")[0] != b"FRAME":
                self.damage = (f"expected the start of a frame, found {line[:20]!r}",)
                return None
        content = b""
        while len(content) < size and (more := self._pipe.read(size - len(content))):
            content += more
        if len(content) == size:
            return content
        if content or self.format.header is not None:
            self.damage = (f"the last frame is truncated: {len(content)} of {size} bytes",)
        return None

    def _line(self) -> bytes:
        """Return a line without its end; empty at the end of the stream."""
        line = bytearray()
        while len(line) < _LONGEST_LINE and (byte := self._pipe.read(1)):
            if byte == b"\n":
                break
            line += byte
        return bytes(line)


class PipeWriter:
    """Writes frames into a pipe.

    Args:
        pipe: The pipe.
        shape: Format of the frames; with a header, they are written as Y4M.
    """

    def __init__(self, pipe: BinaryIO, shape: PipeFormat) -> None:
        self._pipe = pipe
        self._rows = shape.rows
        self._separator = b"" if shape.header is None else b"FRAME\n"
        if shape.header is not None:
            words = (_MAGIC, f"W{shape.width}", f"H{shape.height}", *shape.header)
            pipe.write(" ".join(words).encode("latin-1") + b"\n")

    def write(self, frame: av.VideoFrame) -> None:
        """Write a frame.

        Raises:
            VideoError: The program that reads the pipe has ended.
        """
        try:
            self._pipe.write(self._separator)
            for plane in _plane_bytes(frame, self._rows):
                self._pipe.write(np.ascontiguousarray(plane).data)
            self._pipe.flush()
        except BrokenPipeError as error:
            raise VideoError("the program that reads the frames has ended") from error


def _plane_bytes(frame: av.VideoFrame, rows: list[tuple[int, int]]) -> Iterator[NDArray[np.uint8]]:
    """Yield the bytes of each plane, (rows, bytes of a row), as writable views."""
    for plane, (height, width) in zip(frame.planes, rows, strict=True):
        whole = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, abs(plane.line_size))
        yield whole[:height, :width]


def upscale_pipe(engine: Engine, pipe: BinaryIO, out: BinaryIO, raw: str | None) -> tuple[str, ...]:
    """Upscale the frames of a pipe into another, in the same format.

    Args:
        engine: Upscales the frames.
        pipe: With Y4M or raw frames.
        out: Destination.
        raw: Format of raw frames; None for Y4M.

    Returns:
        Problems while reading; empty if there were none.

    Raises:
        InvalidInputError: The format is not supported.
        VideoError: The program that reads the output has ended.
    """
    reader = PipeReader(pipe, PipeFormat.parse_raw(raw) if raw else None)
    _relay(engine, reader.frames(), reader.format, reader.format, out)
    return reader.damage


def upscale_to_pipe(
    engine: Engine, path: Path, out: BinaryIO, selection: FrameSelection, pixel_format: str | None
) -> tuple[str, ...]:
    """Upscale a video file into a pipe, as Y4M.

    Args:
        engine: Upscales the frames.
        path: The file.
        out: Destination.
        selection: Which frames.
        pixel_format: Of the output; None for the source's.

    Returns:
        Problems while reading; empty if there were none.

    Raises:
        NotFoundError, InvalidInputError: File or options do not fit.
        VideoError: The file cannot be read, or the program that reads the output has ended.
    """
    with VideoSource(path, selection, threads=engine.spec.threads) as source:
        info = source.info
        rate = info.rate or _DEFAULT_RATE
        shape = PipeFormat(info.width, info.height, info.pixel_format, rate, info.color)
        written = replace(shape, pixel_format=pixel_format or info.pixel_format)
        _relay(engine, source.frames(), shape, written.as_y4m(info.aspect), out)
        return source.damage


def _relay(
    engine: Engine,
    frames: Iterable[av.VideoFrame],
    shape: PipeFormat,
    written: PipeFormat,
    out: BinaryIO,
) -> None:
    writer = PipeWriter(out, written.upscaled(engine.spec.scale))
    # Y4M has no matrix, and for the new size other tools would assume another one.
    color = shape.color.resolved(shape.pixel_format, shape.width, shape.height)
    spec = ColorSpec(shape.color, color, written.pixel_format)
    with contextlib.closing(upscaled(engine, frames, spec, StageMeter())) as results:
        for frame in results:
            writer.write(frame)
