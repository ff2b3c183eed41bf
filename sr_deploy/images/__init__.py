"""Image files as arrays, with what they say of themselves: PNG, JPEG, WebP, TIFF and BMP.

`read` gives a `Picture` in the file's own kind (gray, gray and alpha, RGB, RGBA) and depth
(8 or 16 bit); `write` puts one into a file, whole or not at all. Pillow decodes; encoding
is done in strips, so that writing a large picture takes no second copy of it in memory.

Kept: ICC profile, EXIF, resolution, and the colour chunks of a PNG. Not kept: XMP, IPTC,
comments and thumbnails, most of which describe the picture as it was before.
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
