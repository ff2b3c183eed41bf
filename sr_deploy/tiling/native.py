"""Bindings to the compiled pixel code of `native/`: the CPU library and the GPU kernels.

Both are optional: without a compiler at installation, numpy does the same work.
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
    """Copies a tile out of a frame extended by reflection; see `native/pixels.h`."""

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
    """Copies a part of a tile's result into the upscaled frame, blended at its left."""

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
    """Blends rows with what the row of tiles above had written there."""

    _fields_: ClassVar[Sequence[tuple[str, type]]] = [
        ("above", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("out_pitch", ctypes.c_int64),
        ("height", ctypes.c_int32),
        ("samples", ctypes.c_int32),
        ("sample", ctypes.c_int32),
    ]


class Steps(Protocol):
    """The functions of the library; each takes a pointer to its structure."""

    def sr_gather(self, step: object, /) -> None:
        """Copy a tile out of a frame; see `Gather`."""

    def sr_scatter(self, step: object, /) -> None:
        """Copy a part of a tile's result into a frame; see `Scatter`."""

    def sr_mix(self, step: object, /) -> None:
        """Blend rows; see `Mix`."""


@functools.cache
def library() -> Steps | None:
    """Return the CPU library; None if it was not built or does not load."""
    if not LIBRARY.is_file():
        return None
    try:
        found = ctypes.CDLL(str(LIBRARY))
        matches = found.sr_layout() == _layout()
    except (OSError, AttributeError) as error:
        _log.warning("%s cannot be loaded (%s); using numpy", LIBRARY, error)
        return None
    if not matches:
        _log.warning("%s has another version; using numpy. Reinstall sr-deploy", LIBRARY)
        return None
    for step in (Gather, Scatter, Mix):
        function = getattr(found, f"sr_{step.__name__.lower()}")
        function.argtypes, function.restype = [ctypes.POINTER(step)], None
    return found


def _layout() -> int:
    """Return a checksum of the structure sizes, which the library repeats."""
    sizes = (ctypes.sizeof(each) for each in (Gather, Scatter, Mix))
    return sum(size << 8 * place for place, size in enumerate(sizes))


@functools.cache
def kernels() -> bytes | None:
    """Return the GPU kernels, compiled for several architectures; None if they were not built."""
    try:
        return KERNELS.read_bytes()
    except OSError:
        return None
