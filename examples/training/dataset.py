"""The training data: photos in folders, a cache of decoded photos, and random crops in batches.

Sample n is the same in every process at any time. So a training that was killed continues as if
nothing had happened: its position in the data is the number of the next sample.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from sr_deploy import images
from sr_deploy.errors import InvalidInputError, SrDeployError
from sr_export.quantize.image_folder import find

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from examples.training.degradation import Degradation

    Pixels = NDArray[Any]

_log = logging.getLogger(__name__)
# Share of the photos to validate on if no other folder is given.
HELD_OUT_SHARE = 0.1
CACHE_BYTES = 2 << 30
# BT.601, the usual conversion from RGB to gray.
LUMA = np.array([0.299, 0.587, 0.114])
# Downscaled photos have more edges per pixel and no sensor blur or JPEG artifacts, so a dozen
# photos give many more useful crops.
ZOOMS = (1.0, 0.8, 0.65, 0.5, 0.4, 0.3)
# If the cache cannot hold all photos: samples made from one subset before the next one is read.
SAMPLES_PER_SUBSET = 2048


@dataclass(frozen=True)
class Photo:
    """A training photo, with its low-resolution version if the dataset has one."""

    high: Path
    low: Path | None
    share: float
    """How often crops are taken from it, relative to other photos."""
    side: int
    """The smaller of height and width, in high resolution."""
    bits: int
    """8 or 16."""
    bytes: int


def find_photos(sources: Sequence[str], scale: int) -> list[Photo]:
    """Return the photos in some folders, sorted by name; unreadable files are logged and skipped.

    Args:
        sources: `FOLDER` or `FOLDER=SHARE`; photos with share 4 give four times as many crops as
            photos with the default share 1. If a folder contains pairs in a dataset's layout
            (`DIV2K_train_HR` and `DIV2K_train_LR_bicubic/X4`, or `HR` and `LR`), they are used.
        scale: The network's scale, which selects the pairs.

    Raises:
        NotFoundError: A folder does not exist.
        InvalidInputError: A share is not a positive number, or no photo can be read.
    """
    photos = []
    for source in sources:
        folder, share = _split_share(source)
        for entry in find(folder, scale, low_resolution=False):
            # At scale 1, an image without a partner is in `low`.
            high = entry.truth or entry.low
            assert high is not None
            low = entry.low if entry.truth else None
            try:
                header = images.inspect(high)
            except SrDeployError as error:
                _log.warning("skipped: %s", error)
                continue
            side = min(header.height, header.width)
            photos.append(Photo(high, low, share, side, header.bits, header.bytes))
    if not photos:
        raise InvalidInputError(f"{' '.join(sources)}: no readable photo")
    return photos


def _split_share(source: str) -> tuple[Path, float]:
    """Split `FOLDER=SHARE`; the folder's name may contain "=" as well."""
    if Path(source).exists() or "=" not in source:
        return Path(source), 1.0
    folder, _, text = source.rpartition("=")
    try:
        share = float(text)
    except ValueError:
        share = 0.0
    if not 0 < share < float("inf"):
        raise InvalidInputError(f"{source}: invalid share {text!r}; expected a number above 0")
    return Path(folder), share


def hold_out(photos: Sequence[Photo]) -> tuple[list[Photo], list[Photo]]:
    """Split photos into training and validation; the validation photos are evenly spaced.

    Raises:
        InvalidInputError: There is only one photo.
    """
    if len(photos) < 2:
        raise InvalidInputError(
            f"{photos[0].high}: 1 photo found, at least 2 are needed: one is held out for "
            "validation; add photos, or use --validation FOLDER"
        )
    every = max(2, round(1 / HELD_OUT_SHARE))
    held = [photo for number, photo in enumerate(photos) if number % every == every // 2]
    held = held or [photos[-1]]
    return [photo for photo in photos if photo not in held], held


def fingerprint(photos: Sequence[Photo]) -> str:
    """Return a hash of the photos' names, sizes and shares."""
    lines = [f"{each.high.name} {each.low is None} {each.bytes} {each.share}" for each in photos]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


class PhotoCache:
    """Reads photos and keeps the most recently used ones.

    Args:
        channels: 3 for RGB, 1 for gray; colors are converted.
        limit: Size in bytes.
    """

    def __init__(self, channels: int, limit: int = CACHE_BYTES) -> None:
        self._channels = channels
        self._limit = limit
        self._photos: OrderedDict[Path, Pixels] = OrderedDict()

    def read(self, path: Path) -> Pixels:
        """Return H x W x C, uint8 or uint16, without alpha.

        Raises:
            NotFoundError, ImageError: The file cannot be read.
        """
        if path in self._photos:
            self._photos.move_to_end(path)
            return self._photos[path]
        pixels = convert_channels(images.read(path).pixels, self._channels)
        self._photos[path] = pixels
        while len(self._photos) > 1 and self._bytes() > self._limit:
            self._photos.popitem(last=False)
        return pixels

    def _bytes(self) -> int:
        return sum(each.nbytes for each in self._photos.values())


def convert_channels(pixels: Pixels, channels: int) -> Pixels:
    """Return H x W x C with the given number of channels, without alpha."""
    pixels = pixels.reshape(*pixels.shape[:2], -1)
    pixels = pixels[..., : 3 if pixels.shape[2] > 2 else 1]
    if pixels.shape[2] < channels:
        pixels = np.repeat(pixels, channels, axis=2)
    elif pixels.shape[2] > channels:
        pixels = np.rint(pixels @ LUMA)[..., None].astype(pixels.dtype)
    return np.ascontiguousarray(pixels)


def levels_of(pixels: Pixels) -> int:
    """Return the value of white: 255 or 65535."""
    return int(np.iinfo(pixels.dtype).max)


def to_tensor(pixels: Pixels) -> Tensor:
    """Convert H x W x C, uint8 or uint16, to C x H x W float32 in [0, 1]."""
    values = pixels.astype(np.float32) / np.float32(levels_of(pixels))
    return torch.from_numpy(values).permute(2, 0, 1)


class Crops(Dataset[tuple[Tensor, Tensor]]):
    """Endless pairs of crops, float32 in [0, 1]: C x P x P and C x (scale P) x (scale P).

    Crops are randomly rotated, flipped, inverted, and their channels permuted, all before the
    degradation: its artifacts then look like those in ordinary images. Pairs from a dataset already
    have artifacts, so they are only rotated and flipped.

    Args:
        photos: Photos that are too small for a crop are logged and skipped.
        scale: The network's scale.
        channels: The network's channels.
        patch: P, the low-resolution side.
        degradation: Makes the low resolution of photos without a low-resolution file.
        seed: Seed of all random choices.
        limit: Size of the photo cache in bytes.

    Raises:
        InvalidInputError: All photos are too small.
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
        limit: int = CACHE_BYTES,
    ) -> None:
        self._scale = scale
        self._patch = patch
        self._degrade = degradation
        self._seed = seed
        self._photos = self._large_enough(photos)
        self._cache = PhotoCache(channels, limit)
        share = limit / max(1, sum(photo.bytes for photo in photos))
        # Half of the cache for each subset: a batch may span two subsets.
        self._subset = len(photos) if share >= 1 else max(1, int(len(photos) * share / 2))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Return sample `number`, low and high resolution."""
        random = np.random.default_rng((self._seed, number))
        photo = self._choose(number, random)
        if photo.low is None:
            return self._degraded_crop(self._cache.read(photo.high), random)
        low, high = self._cache.read(photo.low), self._cache.read(photo.high)
        return self._paired_crop(low, high, photo, random)

    def _large_enough(self, photos: Sequence[Photo]) -> list[Photo]:
        paired = self._patch * self._scale
        degraded = (self._patch + 2 * self._degrade.margin) * self._scale
        fitting = [photo for photo in photos if photo.side >= (paired if photo.low else degraded)]
        if len(fitting) < len(photos):
            message = (
                f"{len(photos) - len(fitting)} of {len(photos)} photos are smaller than a crop of "
                f"{degraded}x{degraded} pixels; reduce --patch"
            )
            if not fitting:
                raise InvalidInputError(message)
            _log.warning("%s", message)
        return fitting

    def _choose(self, number: int, random: np.random.Generator) -> Photo:
        """Return a random photo: of all, or of the subset that is in the cache at this time."""
        candidates = np.arange(len(self._photos))
        if self._subset < len(candidates):
            of_subset = np.random.default_rng((self._seed, number // SAMPLES_PER_SUBSET, 1))
            candidates = of_subset.choice(candidates, self._subset, replace=False)
        shares = np.array([self._photos[at].share for at in candidates])
        return self._photos[random.choice(candidates, p=shares / shares.sum())]

    def _degraded_crop(self, pixels: Pixels, random: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return a crop and its degraded version, without the degradation's margin."""
        margin = self._degrade.margin
        side = (self._patch + 2 * margin) * self._scale
        fitting = [zoom for zoom in ZOOMS if math.ceil(side / zoom) <= min(pixels.shape[:2])]
        source = math.ceil(side / random.choice(fitting))
        top, left = (int(random.integers(extent - source + 1)) for extent in pixels.shape[:2])
        region = to_tensor(pixels[top : top + source, left : left + source])
        (high,) = augment(random, shrink_to(region, side, levels_of(pixels)))
        low = self._degrade(high, self._scale, random)
        return cut_border(low, margin), cut_border(high, margin * self._scale)

    def _paired_crop(
        self, low: Pixels, high: Pixels, photo: Photo, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the same crop of both versions of a photo."""
        if any(low.shape[i] != high.shape[i] // self._scale for i in (0, 1)):
            raise InvalidInputError(
                f"{photo.low}: {low.shape[1]}x{low.shape[0]} is not 1/{self._scale} of the "
                f"high-resolution {high.shape[1]}x{high.shape[0]}"
            )
        top, left = (int(random.integers(side - self._patch + 1)) for side in low.shape[:2])
        crops = []
        for pixels, zoom in ((low, 1), (high, self._scale)):
            rows, columns = (slice(at * zoom, (at + self._patch) * zoom) for at in (top, left))
            crops.append(to_tensor(pixels[rows, columns]))
        small, large = augment(random, *crops, colors=False)
        return small, large


def batches(
    crops: Crops, start: int, steps: int, size: int, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of steps `start` to `steps` - 1, each N x C x H x W.

    Args:
        crops: The dataset.
        start: The first step; 0 for a new training.
        steps: Total number of steps.
        size: Crops per batch.
        workers: Worker processes; 0 makes the crops in this process.
    """
    loader = DataLoader(
        crops,
        batch_size=size,
        sampler=range(start * size, steps * size),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )
    yield from loader


def shrink_to(image: Tensor, side: int, levels: int) -> Tensor:
    """Shrink a square C x S x S image with antialiased bicubic; round it as a file would."""
    if image.shape[-1] == side:
        return image
    small = functional.interpolate(image[None], (side, side), mode="bicubic", antialias=True)[0]
    return small.mul(levels).round().clamp(0, levels).div(levels)


def augment(random: np.random.Generator, *crops: Tensor, colors: bool = True) -> list[Tensor]:
    """Rotate and flip all crops alike; with `colors`, also permute channels and invert."""
    turns, flipped, inverted = (int(random.integers(end)) for end in (4, 2, 2))
    order = torch.from_numpy(random.permutation(crops[0].shape[0]))
    results = []
    for crop in crops:
        rotated = torch.rot90(crop[order] if colors else crop, turns, (1, 2))
        rotated = rotated.flip(2) if flipped else rotated
        results.append((1 - rotated if inverted and colors else rotated).contiguous())
    return results


def cut_border(image: Tensor, margin: int) -> Tensor:
    """Return an image without `margin` pixels on each side."""
    return image[:, margin : image.shape[1] - margin, margin : image.shape[2] - margin]
