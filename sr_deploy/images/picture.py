"""The content of an image file: pixels and metadata."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8] | NDArray[np.uint16]
    Bytes = NDArray[np.uint8]
    AnyPixels = NDArray[Any]


@dataclass(frozen=True)
class Metadata:
    """The metadata of a picture; each file format keeps what it can store."""

    icc_profile: bytes | None = None
    exif: bytes | None = None
    """An EXIF block without orientation (already applied) and thumbnail."""
    dpi: tuple[float, float] | None = None
    """Horizontal and vertical pixels per inch."""
    png_color: tuple[tuple[bytes, bytes], ...] = ()
    """Name and content of the PNG chunks that define the color space."""


@dataclass(frozen=True, eq=False)
class Picture:
    """The pixels and the metadata of an image file."""

    pixels: Pixels
    """(H, W) for gray, else (H, W, C) with C = 2 (gray, alpha), 3 (RGB) or 4 (RGBA).

    uint8 or uint16, with straight (not premultiplied) alpha. May be a non-contiguous view.
    """
    metadata: Metadata = field(default_factory=Metadata)
