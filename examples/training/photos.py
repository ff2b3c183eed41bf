"""Photos to train on: which there are, and one at a time as an array."""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sr_deploy import images
from sr_deploy.errors import InvalidInputError, SrDeployError
from sr_export.quantize.image_folder import find

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Pixels = NDArray[Any]

LOGGER = logging.getLogger(__name__)
# Of all photos of a folder, when there is no other folder to validate on.
HELD_OUT_SHARE = 0.1
BYTES_IN_MEMORY = 2 << 30
# Of BT.601, as everybody makes gray from colours.
LUMA = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Photo:
    """A photo, and its low-resolution version if somebody has made it."""

    high: Path
    low: Path | None
    share: float
    """Of the crops, beside the other photos' shares."""
    side: int
    """The smaller of height and width, of the high resolution."""
    bits: int
    """8 or 16."""
    bytes: int


def gather(sources: Sequence[str], scale: int) -> list[Photo]:
    """Returns the photos of some folders, by name.

    Args:
        sources: `FOLDER` or `FOLDER=SHARE`: photos of a share of 4 give four times as many crops as
            those of 1, the usual. Where a folder holds pairs as data sets have them (DIV2K's
            `DIV2K_train_HR` and `DIV2K_train_LR_bicubic/X4`, or `HR` and `LR`), these are taken.
        scale: of the network, which says which pairs fit.

    Raises:
        NotFoundError: there is no such folder.
        InvalidInputError: a share is no number, or there is nothing to train on.
    """
    photos = []
    for source in sources:
        folder, share = _shared(source)
        for entry in find(folder, scale, low_resolution=False):
            # At scale 1 an image is low and high resolution at once.
            high = entry.truth or entry.low
            assert high is not None
            low = entry.low if entry.truth else None
            try:
                header = images.inspect(high)
            except SrDeployError as error:
                LOGGER.warning("left out: %s", error)
                continue
            side = min(header.height, header.width)
            photos.append(Photo(high, low, share, side, header.bits, header.bytes))
    if not photos:
        raise InvalidInputError(f"{' '.join(sources)}: no photo can be read")
    return photos


def hold_out(photos: Sequence[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Returns what to train on and what to validate on: evenly chosen, the same every time.

    Raises:
        InvalidInputError: there is one photo only.
    """
    if len(photos) < 2:
        raise InvalidInputError(
            f"{photos[0].high}: the only photo; two are needed, one of them to validate on "
            "(or give --validation FOLDER)"
        )
    every = max(2, round(1 / HELD_OUT_SHARE))
    held = [photo for number, photo in enumerate(photos) if number % every == every // 2]
    held = held or [photos[-1]]
    return [photo for photo in photos if photo not in held], held


def fingerprint(photos: Sequence[Photo]) -> str:
    """Returns a short text that is another one for other photos."""
    lines = [f"{each.high.name} {each.low is None} {each.bytes} {each.share}" for each in photos]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class Library:
    """Reads photos and keeps those that were used last.

    Args:
        channels: 3 for RGB; 1 for gray, which colours are turned into.
        limit: bytes to keep.
    """

    def __init__(self, channels: int, limit: int = BYTES_IN_MEMORY) -> None:
        self._channels = channels
        self._limit = limit
        self._kept: OrderedDict[Path, Pixels] = OrderedDict()

    def read(self, path: Path) -> Pixels:
        """Returns H x W x C, uint8 or uint16, without alpha.

        Raises:
            NotFoundError, ImageError: it cannot be read.
        """
        if path in self._kept:
            self._kept.move_to_end(path)
            return self._kept[path]
        pixels = with_channels(images.read(path).pixels, self._channels)
        self._kept[path] = pixels
        while len(self._kept) > 1 and sum(map(nbytes, self._kept.values())) > self._limit:
            self._kept.popitem(last=False)
        return pixels


def with_channels(pixels: Pixels, channels: int) -> Pixels:
    """Returns H x W x C from what a file held: without alpha, gray or RGB as asked for."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    if pixels.shape[2] < channels:
        pixels = np.repeat(pixels, channels, axis=2)
    elif pixels.shape[2] > channels:
        pixels = np.rint(pixels @ LUMA)[..., None].astype(pixels.dtype)
    return np.ascontiguousarray(pixels)


def nbytes(pixels: Pixels) -> int:
    """Returns what an array takes."""
    return pixels.nbytes


def _shared(source: str) -> tuple[Path, float]:
    """Returns the folder and the share of `FOLDER=SHARE`; a folder may have "=" in its name."""
    if Path(source).exists() or "=" not in source:
        return Path(source), 1.0
    folder, _, text = source.rpartition("=")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < float("inf"):
        raise InvalidInputError(f"{source}: {text!r} is no share; it is a number above 0")
    return Path(folder), share
