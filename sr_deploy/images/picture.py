"""What an image file holds, once read."""

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
    """What a picture carries beside its pixels; every format keeps what it can carry."""

    icc_profile: bytes | None = None
    exif: bytes | None = None
    """An EXIF block without its orientation (it is applied) and thumbnail."""
    dpi: tuple[float, float] | None = None
    """Pixels per inch, across and down."""
    png_colour: tuple[tuple[bytes, bytes], ...] = ()
    """Name and content of the PNG chunks that say what the colours mean."""


@dataclass(frozen=True, eq=False)
class Picture:
    """Pixels, and what their file said beside them."""

    pixels: Pixels
    """H,W (gray) or H,W,C with 2 (gray, alpha), 3 (RGB) or 4 (RGBA); uint8 or uint16.

    Alpha is straight. The array may be a view that is not contiguous.
    """
    metadata: Metadata = field(default_factory=Metadata)
