"""Frames from and into pipes, between the programs of a pipeline: Y4M, and bare raw frames."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO

import av
import numpy as np

from sr_deploy.errors import InvalidInputError, VideoError
from sr_deploy.video.color import FULL, LIMITED, Color

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_MAGIC = b"YUV4MPEG2"
_LONGEST_LINE = 4096
_LARGEST_SIDE = 1 << 16
_LARGEST_FRAME = 1 << 31
"""Bytes; a header that promises larger frames is taken for damaged."""
_SHAPE = re.compile(r"(\d+)x(\d+):([a-z0-9]+)(?:@(\d+(?:[/:]\d+)?))?", re.IGNORECASE)
DEFAULT_RATE = Fraction(25)
# What Y4M calls the pixel formats that it has; those of 4:2:0 differ in where chroma is sited.
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
class Shape:
    """What the frames of a pipe are.

    Attributes:
        width: In pixels.
        height: In pixels.
        pixel_format: In FFmpeg's words.
        rate: Frames a second.
        colour: What their numbers mean, as far as it is said.
        header: The parameters of Y4M but width and height; None: there is no header.
    """

    width: int
    height: int
    pixel_format: str
    rate: Fraction = DEFAULT_RATE
    colour: Color = field(default_factory=Color)
    header: tuple[str, ...] | None = None

    def times(self, scale: int) -> Shape:
        """Return the shape of the frames when they are upscaled."""
        return replace(self, width=scale * self.width, height=scale * self.height)


def raw_shape(text: str) -> Shape:
    """Return the shape of raw frames, as a user writes it: 480x270:yuv420p, 480x270:rgb24@30.

    Raises:
        InvalidInputError: it is not written so, or FFmpeg has no such pixel format.
    """
    match = _SHAPE.fullmatch(text.strip())
    if match is None:
        raise InvalidInputError(
            f"{text!r} does not say what the raw frames are; write WIDTHxHEIGHT:FORMAT, such as "
            "480x270:yuv420p or 480x270:rgb24"
        )
    rate = Fraction((match[4] or str(DEFAULT_RATE)).replace(":", "/"))
    return _checked(Shape(int(match[1]), int(match[2]), match[3].lower(), rate))


class FrameReader:
    """Reads frames from a pipe.

    Args:
        pipe: Where from.
        shape: Of raw frames; None: the pipe brings Y4M, whose header says it.

    Raises:
        InvalidInputError: the pipe does not bring Y4M, or one that is not known here.

    Attributes:
        shape: Of the frames.
        damage: What could not be read, in words; empty: nothing.
    """

    def __init__(self, pipe: BinaryIO, shape: Shape | None = None) -> None:
        self._pipe = pipe
        self.damage: tuple[str, ...] = ()
        self.shape = shape if shape is not None else _parsed(self._line())
        self._rows = _rows(self.shape)
        self._size = sum(height * width for height, width in self._rows)

    def frames(self) -> Iterator[av.VideoFrame]:
        """Yield each frame, timed by its number."""
        number = 0
        while (content := self._next()) is not None:
            frame = av.VideoFrame(self.shape.width, self.shape.height, self.shape.pixel_format)
            for plane, rows in zip(_planes(frame, self._rows), self._split(content), strict=True):
                plane[...] = rows
            frame.pts, frame.time_base = number, 1 / self.shape.rate
            frame.duration = 1
            yield frame
            number += 1

    def _next(self) -> bytes | None:
        """Return the bytes of the next frame; None when there is none."""
        if self.shape.header is not None:
            line = self._line()
            if not line:
                return None
            if line.split(b" ")[0] != b"FRAME":
                self.damage = (f"a frame was to begin, but {line[:20]!r} came",)
                return None
        content = b""
        while len(content) < self._size and (more := self._pipe.read(self._size - len(content))):
            content += more
        if len(content) == self._size:
            return content
        if content or self.shape.header is not None:
            came = f"{len(content)} of {self._size} bytes came"
            self.damage = (f"the last frame is cut off: {came}",)
        return None

    def _line(self) -> bytes:
        """Return a line of the stream without its end; empty where the stream is at its end."""
        line = bytearray()
        while len(line) < _LONGEST_LINE and (byte := self._pipe.read(1)):
            if byte == b"\n":
                return bytes(line)
            line += byte
        return bytes(line)

    def _split(self, content: bytes) -> Iterator[NDArray[np.uint8]]:
        first = 0
        for height, width in self._rows:
            rows = np.frombuffer(content, np.uint8, height * width, first)
            yield rows.reshape(height, width)
            first += height * width


class FrameWriter:
    """Writes frames into a pipe, as raw frames or Y4M, whichever their shape says.

    Args:
        pipe: Where to.
        shape: Of the frames.
    """

    def __init__(self, pipe: BinaryIO, shape: Shape) -> None:
        self._pipe = pipe
        self._rows = _rows(shape)
        self._between = b"" if shape.header is None else b"FRAME\n"
        if shape.header is not None:
            words = ("YUV4MPEG2", f"W{shape.width}", f"H{shape.height}", *shape.header)
            pipe.write(" ".join(words).encode("ascii") + b"\n")

    def write(self, frame: av.VideoFrame) -> None:
        """Write a frame.

        Raises:
            VideoError: whoever read the pipe has gone.
        """
        try:
            self._pipe.write(self._between)
            for plane in _planes(frame, self._rows):
                self._pipe.write(np.ascontiguousarray(plane).data)
            self._pipe.flush()
        except BrokenPipeError as error:
            raise VideoError("the program that reads the frames has ended") from error


def y4m_header(shape: Shape, aspect: Fraction | None) -> Shape:
    """Return the shape of frames that are to be written as Y4M.

    Raises:
        InvalidInputError: Y4M has no such pixel format.
    """
    names = [name for name, each in _Y4M_FORMATS.items() if each == shape.pixel_format]
    if not names:
        raise InvalidInputError(
            f"Y4M has no pixel format {shape.pixel_format}; it has "
            f"{', '.join(dict.fromkeys(_Y4M_FORMATS.values()))}: choose one with --pixel-format"
        )
    ranges = {value: name for name, value in _RANGES.items()}
    header = [f"F{shape.rate.numerator}:{shape.rate.denominator}", "Ip", f"C{names[0]}"]
    header += [f"A{aspect.numerator}:{aspect.denominator}"] if aspect else []
    header += [f"XCOLORRANGE={ranges[shape.colour.range]}"] if shape.colour.range in ranges else []
    return replace(shape, header=tuple(header))


def _parsed(line: bytes) -> Shape:
    """Return what the first line of a Y4M stream says."""
    words = line.decode("ascii", "replace").split(" ")
    if words[0].encode() != _MAGIC:
        raise InvalidInputError(
            "the pipe brings no Y4M; let the program before write it (ffmpeg: -f yuv4mpegpipe), or "
            "say what the raw frames are with --raw WIDTHxHEIGHT:FORMAT"
            if line
            else "the pipe brought nothing; did the program before it fail?"
        )
    said = {word[0]: word[1:] for word in words[1:] if word}
    extras = dict(word[1:].split("=", 1) for word in words if word[:1] == "X" and "=" in word)
    if said.get("I", "p") not in ("p", "?"):
        raise InvalidInputError(
            "the pipe brings interlaced frames; deinterlace them before (ffmpeg: -vf bwdif)"
        )
    name = said.get("C", "420jpeg").lower()
    if name not in _Y4M_FORMATS:
        raise InvalidInputError(
            f"frames of Y4M's format {name!r} are not known here; "
            f"known are {', '.join(_Y4M_FORMATS)}"
        )
    try:
        rate = Fraction(said.get("F", "25:1").replace(":", "/"))
        width, height = int(said["W"]), int(said["H"])
    except (KeyError, ValueError, ZeroDivisionError):
        raise InvalidInputError(f"the header of the Y4M stream is damaged: {line!r}") from None
    colour = Color(range=_RANGES.get(extras.get("COLORRANGE", ""), Color().range))
    header = tuple(word for word in words[1:] if word and word[0] not in "WH")
    return _checked(Shape(width, height, _Y4M_FORMATS[name], rate or DEFAULT_RATE, colour, header))


def _checked(shape: Shape) -> Shape:
    """Return a shape whose frames can be held.

    Raises:
        InvalidInputError: they cannot.
    """
    if not (0 < shape.width <= _LARGEST_SIDE and 0 < shape.height <= _LARGEST_SIDE):
        raise InvalidInputError(
            f"frames of {shape.width}x{shape.height} pixels do not fit; sides are from 1 to "
            f"{_LARGEST_SIDE}"
        )
    size = sum(height * width for height, width in _rows(shape))
    if size > _LARGEST_FRAME:
        raise InvalidInputError(f"frames of {size} bytes do not fit; {_LARGEST_FRAME} are allowed")
    return shape


def _rows(shape: Shape) -> list[tuple[int, int]]:
    """Return the rows of each plane, and the bytes of each of them."""
    try:
        layout = av.VideoFormat(shape.pixel_format, shape.width, shape.height)
    except ValueError:
        raise InvalidInputError(
            f"there is no pixel format {shape.pixel_format!r}; ffmpeg -pix_fmts lists them"
        ) from None
    planes: dict[int, tuple[int, int]] = {}
    for each in layout.components:
        height, width = planes.get(each.plane, (each.height, 0))
        planes[each.plane] = (height, width + each.width * ((each.bits + 7) // 8))
    if len(planes) == 1:  # of pixels that may hold bits that mean nothing (rgb0)
        return [(shape.height, -(-shape.width * layout.padded_bits_per_pixel // 8))]
    return [planes[number] for number in sorted(planes)]


def _planes(frame: av.VideoFrame, rows: list[tuple[int, int]]) -> Iterator[NDArray[np.uint8]]:
    """Yield the bytes of each plane, (rows, bytes in a row); they can be written to."""
    for plane, (height, width) in zip(frame.planes, rows, strict=True):
        whole = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, abs(plane.line_size))
        yield whole[:height, :width]
