"""The pixel work that `native/` compiles: the library of the processor and the kernels of the GPU.

Neither has to be there: where there was no compiler, numpy does the same.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_log = logging.getLogger(__name__)

FOLDER = Path(__file__).parents[1] / "_native"
LIBRARY = FOLDER / {"win32": "pixels.dll", "darwin": "libpixels.dylib"}.get(
    sys.platform, "libpixels.so"
)
KERNELS = FOLDER / "kernels.fatbin"


class Gather(ctypes.Structure):
    """A tile out of a frame, continued by reflection; see `native/pixels.h`."""

    _fields_: ClassVar[Sequence[tuple[str, type]]] = [
        ("frame", ctypes.c_void_p),
        ("tile", ctypes.c_void_p),
        ("pitch", ctypes.c_int64),
        ("frame_height", ctypes.c_int32),
        ("frame_width", ctypes.c_int32),
        ("top", ctypes.c_int32),
        ("left", ctypes.c_int32),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("depth", ctypes.c_int32),
    ]


class Scatter(ctypes.Structure):
    """A part of a tile's result into the upscaled frame, mixed with it on the left."""

    _fields_: ClassVar[Sequence[tuple[str, type]]] = [
        ("part", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("part_pitch", ctypes.c_int64),
        ("out_pitch", ctypes.c_int64),
        ("height", ctypes.c_int32),
        ("width", ctypes.c_int32),
        ("ramp", ctypes.c_int32),
        ("channels", ctypes.c_int32),
        ("sample", ctypes.c_int32),
    ]


class Mix(ctypes.Structure):
    """Rows mixed with what the row of tiles above had left there."""

    _fields_: ClassVar[Sequence[tuple[str, type]]] = [
        ("above", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("out_pitch", ctypes.c_int64),
        ("height", ctypes.c_int32),
        ("samples", ctypes.c_int32),
        ("sample", ctypes.c_int32),
    ]


class Steps(Protocol):
    """What the library has; each function takes a pointer to its structure."""

    def sr_gather(self, step: object, /) -> None:
        """Take a tile out of a frame."""

    def sr_scatter(self, step: object, /) -> None:
        """Put a part of a tile's result into a frame."""

    def sr_mix(self, step: object, /) -> None:
        """Mix rows with what was above them."""


@functools.cache
def library() -> Steps | None:
    """Return the processor's library; None where it was not built."""
    if not LIBRARY.is_file():
        return None
    try:
        found = ctypes.CDLL(str(LIBRARY))
        matches = found.sr_layout() == _layout()
    except (OSError, AttributeError) as error:
        _log.warning("%s does not load (%s); numpy does its work", LIBRARY, error)
        return None
    if not matches:
        _log.warning("%s is of another version; numpy does its work: install again", LIBRARY)
        return None
    for step in (Gather, Scatter, Mix):
        function = getattr(found, f"sr_{step.__name__.lower()}")
        function.argtypes, function.restype = [ctypes.POINTER(step)], None
    return found


def _layout() -> int:
    sizes = (ctypes.sizeof(each) for each in (Gather, Scatter, Mix))
    return sum(size << 8 * place for place, size in enumerate(sizes))


@functools.cache
def kernels() -> bytes | None:
    """Return the GPU's kernels, compiled for several architectures; None if they were not built."""
    try:
        return KERNELS.read_bytes()
    except OSError:
        return None
