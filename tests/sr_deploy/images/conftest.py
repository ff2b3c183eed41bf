"""Small pictures that the tests of image files share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageCms
from PIL.ExifTags import IFD, Base
from PIL.TiffImagePlugin import IFDRational
from skimage import data

from sr_deploy.images import Metadata

if TYPE_CHECKING:
    from collections.abc import Callable

    from sr_deploy.images.picture import AnyPixels


@pytest.fixture(scope="session")
def pixels() -> Callable[[str, int], AnyPixels]:
    """Return a function that makes a small photograph: L, LA, RGB or RGBA, of 8 or 16 bits."""
    astronaut: Any = data.astronaut  # not typed
    photo = astronaut()[60:160, 170:273]  # 100 x 103, so no side is a multiple of anything
    alpha = np.linspace(0, 255, photo.shape[1]).astype(np.uint8)
    rgba = np.dstack([photo, np.broadcast_to(alpha, photo.shape[:2])])
    planes = {"L": [1], "LA": [1, 3], "RGB": [0, 1, 2], "RGBA": [0, 1, 2, 3]}

    def make(kind: str, bits: int = 8) -> AnyPixels:
        chosen = np.ascontiguousarray(rgba[..., planes[kind]])
        if bits == 16:
            low = np.random.default_rng(0).integers(0, 256, chosen.shape, dtype=np.uint16)
            chosen = chosen.astype(np.uint16) << 8 | low
        return chosen[..., 0] if kind == "L" else chosen

    return make


@pytest.fixture
def profile() -> bytes:
    """Return an ICC profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def metadata(profile: bytes) -> Metadata:
    """Return metadata of every kind."""
    exif = Image.Exif()
    exif[Base.Make] = "Camera"
    exif[Base.Copyright] = "Somebody"
    exif[IFD.Exif] = {
        Base.DateTimeOriginal: "2024:05:01 10:00:00",
        Base.ExposureTime: IFDRational(1, 250),
        Base.MakerNote: b"notes of the maker",
        Base.ExifImageWidth: 4,
        Base.ExifImageHeight: 3,
        IFD.Interop: {1: "R98"},
    }
    exif[IFD.GPSInfo] = {1: "N", 2: (48.0, 30.0, 15.5)}
    return Metadata(icc_profile=profile, exif=exif.tobytes(), dpi=(300.0, 150.0))
