"""Crops to train on: sample number n is always the same, whoever makes it and whenever.

That is what makes a training that was killed go on as if nothing had happened: its state is the
number of the next sample. Worker processes need no care either.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from examples.training.photos import BYTES_IN_MEMORY, Library
from sr_deploy.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from examples.training.degradation import Degradation
    from examples.training.photos import Photo, Pixels

LOGGER = logging.getLogger(__name__)
# Shrunk copies have more edges per pixel and none of the sensor's and JPEG's blur: a dozen photos
# last much longer with them.
ZOOMS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)
# Where not all photos fit into memory, so many samples are made of some, before others are read.
SAMPLES_PER_SHELF = 2048


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Pairs of crops, float32 in [0, 1]: C x P x P in low, C x (scale P) x (scale P) in high.

    Turned, flipped, with colours exchanged and half of them inverted; all of that before the
    degradation, whose traces so are those of ordinary images. Pairs, whose traces are there
    already, are turned and flipped alone.

    Args:
        photos: to cut from; those that are too small for a crop are left out.
        scale: of the network.
        channels: of the network.
        patch: P.
        degradation: makes the low resolution, where a photo has none.
        seed: of all that is random.
        limit: bytes of photos to keep in memory.

    Raises:
        InvalidInputError: all photos are too small.
    """

    def __init__(
        self,
        photos: Sequence[Photo],
        *,
        scale: int,
        channels: int,
        patch: int,
        degradation: Degradation,
        seed: int,
        limit: int = BYTES_IN_MEMORY,
    ) -> None:
        self._scale = scale
        self._patch = patch
        self._degrade = degradation
        self._seed = seed
        self._photos = self._large_enough(photos)
        self._library = Library(channels, limit)
        share = limit / max(1, sum(photo.bytes for photo in photos))
        # Two shelves at a time: the samples of a batch may be of this one and of the next.
        self._shelf = len(photos) if share >= 1 else max(1, int(len(photos) * share / 2))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Returns sample `number` of an endless row."""
        random = np.random.default_rng((self._seed, number))
        photo = self._choose(number, random)
        if photo.low is None:
            return self._made(self._library.read(photo.high), random)
        pair = self._library.read(photo.low), self._library.read(photo.high)
        return self._cut(*pair, photo, random)

    def _large_enough(self, photos: Sequence[Photo]) -> list[Photo]:
        made, cut = (
            (self._patch + 2 * self._degrade.margin) * self._scale,
            self._patch * self._scale,
        )
        found = [photo for photo in photos if photo.side >= (cut if photo.low else made)]
        if len(found) < len(photos):
            message = (
                f"{len(photos) - len(found)} of {len(photos)} photos are too small: crops of "
                f"{made}x{made} pixels are cut (--patch makes them smaller)"
            )
            if not found:
                raise InvalidInputError(message)
            LOGGER.warning("%s", message)
        return found

    def _choose(self, number: int, random: np.random.Generator) -> Photo:
        """Returns a photo: of all, or of those that are on the shelf at this time."""
        shelf = np.arange(len(self._photos))
        if self._shelf < len(shelf):
            librarian = np.random.default_rng((self._seed, number // SAMPLES_PER_SHELF, 1))
            shelf = librarian.choice(shelf, self._shelf, replace=False)
        shares = np.array([self._photos[at].share for at in shelf])
        return self._photos[random.choice(shelf, p=shares / shares.sum())]

    def _made(self, pixels: Pixels, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Returns a crop and its degraded version, without the margin that degrading spoils."""
        margin = self._degrade.margin
        side = (self._patch + 2 * margin) * self._scale
        fitting = [zoom for zoom in ZOOMS if math.ceil(side / zoom) <= min(pixels.shape[:2])]
        source = math.ceil(side / random.choice(fitting))
        top, left = (int(random.integers(extent - source + 1)) for extent in pixels.shape[:2])
        region = pixels[top : top + source, left : left + source]
        high = zoomed_out(to_tensor(region), side, levels_of(pixels))
        (high,) = varied(random, high)
        low = self._degrade(high, self._scale, random)
        return without(low, margin), without(high, margin * self._scale)

    def _cut(
        self, low: Pixels, high: Pixels, photo: Photo, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Returns a crop of both versions of a photo."""
        if any(low.shape[i] != high.shape[i] // self._scale for i in (0, 1)):
            raise InvalidInputError(
                f"{photo.low}: {low.shape[1]}x{low.shape[0]} is not 1/{self._scale} of its "
                f"original, {high.shape[1]}x{high.shape[0]}"
            )
        top, left = (int(random.integers(side - self._patch + 1)) for side in low.shape[:2])
        crops = []
        for pixels, zoom in ((low, 1), (high, self._scale)):
            rows, columns = (slice(at * zoom, (at + self._patch) * zoom) for at in (top, left))
            crops.append(to_tensor(pixels[rows, columns]))
        small, large = varied(random, *crops, colours=False)
        return small, large


def batches(
    crops: Crops, start: int, steps: int, size: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields the batches of the steps from `start` up to `steps`, N x C x H x W.

    Args:
        crops: to take from.
        start: the first step; that of a new training is 0.
        steps: where to end.
        size: crops in a batch.
        workers: processes that make them; 0 for this one.
    """
    loader = DataLoader(
        crops,
        batch_size=size,
        sampler=range(start * size, steps * size),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader


def to_tensor(pixels: Pixels) -> Tensor:
    """Maps H x W x C, uint8 or uint16, to C x H x W float32 in [0, 1]."""
    values = pixels.astype(np.float32) / np.float32(levels_of(pixels))
    return torch.from_numpy(values).permute(2, 0, 1)


def levels_of(pixels: Pixels) -> int:
    """Returns the value of white: 255 or 65535."""
    return int(np.iinfo(pixels.dtype).max)


def zoomed_out(image: Tensor, side: int, levels: int) -> Tensor:
    """Shrinks a square C x S x S with antialiased bicubic, rounded as a file would round it."""
    if image.shape[-1] == side:
        return image
    small = functional.interpolate(image[None], (side, side), mode="bicubic", antialias=True)[0]
    return small.mul(levels).round().clamp(0, levels).div(levels)


def varied(random: np.random.Generator, *crops: Tensor, colours: bool = True) -> list[Tensor]:
    """Turns and flips all crops in the same way; and exchanges colours and inverts, if asked to."""
    turns, flipped, inverted = (int(random.integers(end)) for end in (4, 2, 2))
    order = torch.from_numpy(random.permutation(crops[0].shape[0]))
    results = []
    for crop in crops:
        turned = torch.rot90(crop[order] if colours else crop, turns, (1, 2))
        turned = turned.flip(2) if flipped else turned
        results.append((1 - turned if inverted and colours else turned).contiguous())
    return results


def without(image: Tensor, margin: int) -> Tensor:
    """Returns an image without its border."""
    return image[:, margin : image.shape[1] - margin, margin : image.shape[2] - margin]
