"""How pictures are to be turned or mirrored when they are shown."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import av
from av.sidedata.sidedata import Type

if TYPE_CHECKING:
    from fractions import Fraction
    from pathlib import Path

_PACKETS = 1000
"""Looked at for a first picture; a video without one in these is damaged."""


def matrix_of(source: Path, stream: int) -> tuple[int, ...] | None:
    """Return the display matrix of a video stream, as MP4 writes it; None: there is none."""
    with av.open(str(source), metadata_errors="replace") as container:
        video = container.streams[stream]
        try:
            for number, packet in enumerate(container.demux(video)):
                for frame in packet.decode():
                    return _matrix(frame)
                if number > _PACKETS:
                    break
        except av.FFmpegError:
            return None  # reading the pictures reports the damage
    return None


def scaled(matrix: tuple[int, ...], factor: Fraction) -> tuple[int, ...]:
    """Return the matrix for pictures that are larger: it moves them farther."""
    a, b, u, c, d, v, x, y, w = matrix
    return a, b, u, c, d, v, round(x * factor), round(y * factor), w


def _matrix(frame: Any) -> tuple[int, ...] | None:
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    return None if matrix is None else struct.unpack("=9i", bytes(matrix)[:36])
