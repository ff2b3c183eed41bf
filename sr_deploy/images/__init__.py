"""Image files as arrays with their metadata: PNG, JPEG, WebP, TIFF and BMP.

`read` returns a `Picture` with the file's own channels (gray, gray and alpha, RGB, RGBA) and depth
(8 or 16 bits); `write` writes one atomically. Pillow decodes. Encoding works in strips, so writing
a large picture needs no second copy of it in memory.

ICC profile, EXIF, resolution and the color chunks of a PNG are kept. XMP, IPTC, comments and
thumbnails are not: most of them describe the original picture.
"""

from __future__ import annotations

from sr_deploy.images.picture import Metadata, Picture
from sr_deploy.images.reading import LARGEST_PIXELS, Header, inspect, read
from sr_deploy.images.writing import SUFFIXES, check_fits, could_be_image, write, writing_memory

__all__ = [
    "LARGEST_PIXELS",
    "SUFFIXES",
    "Header",
    "Metadata",
    "Picture",
    "check_fits",
    "could_be_image",
    "inspect",
    "read",
    "write",
    "writing_memory",
]
