"""How good a network is on photos that it does not learn from: figures and pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.training.crops import to_tensor
from examples.training.photos import Library
from sr_deploy import images
from sr_deploy.images import Picture
from sr_export import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from examples.training.degradation import Degradation
    from examples.training.photos import Photo

    Image8 = NDArray[np.uint8]

# In high resolution: the middle of a photo, since an exam is taken again and again.
SIDE = 512
SAMPLE_SIDE = 192
MOST_PHOTOS = 20
MOST_SAMPLES = 4


@dataclass(frozen=True)
class Result:
    """What an exam gave: the means over its photos, of the Y channel in 8 bits."""

    psnr: float
    ssim: float
    samples: Image8
    """Row by row: the low resolution with its pixels enlarged, the output, the truth."""


class Exam:
    """Photos with their degraded versions, always the same.

    Args:
        photos: to look at; of many, some.
        scale: of the network.
        channels: of the network.
        degradation: makes the low resolution, where a photo has none.
    """

    def __init__(
        self, photos: Sequence[Photo], *, scale: int, channels: int, degradation: Degradation
    ) -> None:
        self._scale = scale
        library = Library(channels, limit=0)
        chosen = photos[:: -(-len(photos) // MOST_PHOTOS)]
        self._pairs = [
            self._pair(photo, library, degradation, np.random.default_rng(number))
            for number, photo in enumerate(chosen)
        ]

    def take(self, network: nn.Module) -> Result:
        """Returns how a network in eval mode does."""
        device = next(network.parameters()).device
        scores, samples = [], []
        for low, high in self._pairs:
            with torch.inference_mode():
                output = network(low[None].to(device))[0].float().cpu()
            found, truth = to_bytes(output), to_bytes(high)
            scores.append(score(truth, found, self._scale))
            enlarged = functional.interpolate(low[None], scale_factor=float(self._scale))[0]
            samples.append([middle(each) for each in (to_bytes(enlarged), found, truth)])
        psnr, ssim = np.mean(scores, axis=0)
        return Result(float(psnr), float(ssim), sheet(samples[:MOST_SAMPLES]))

    def _pair(
        self, photo: Photo, library: Library, degrade: Degradation, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Returns the middle of a photo, in low and high resolution."""
        pixels = library.read(photo.high)
        size = [side // self._scale for side in pixels.shape[:2]]
        side = min(SIDE // self._scale, *size)
        top, left = ((extent - side) // 2 for extent in size)
        inner = (slice(top, top + side), slice(left, left + side))
        outer = tuple(slice(self._scale * at.start, self._scale * at.stop) for at in inner)
        high = to_tensor(pixels[outer])
        if photo.low:
            return to_tensor(library.read(photo.low)[inner]), high
        return degrade(high, self._scale, random), high


def score(truth: Image8, found: Image8, shave: int) -> tuple[float, float]:
    """Returns PSNR and SSIM of the Y channel, H x W x C, as the papers have them."""
    if truth.shape[2] == 3:
        return metrics.y_psnr(truth, found, shave), metrics.y_ssim(truth, found, shave)
    inner = np.s_[shave:-shave, shave:-shave, 0]
    return metrics.psnr(truth[inner], found[inner]), metrics.ssim(truth[inner], found[inner])


def to_bytes(image: Tensor) -> Image8:
    """Maps C x H x W in [0, 1] to H x W x C, uint8."""
    levels = image.clamp(0, 1).mul(255).round().byte()
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def middle(image: Image8) -> Image8:
    """Returns the middle of a picture, which all pictures of a sheet have in one size."""
    top, left = (max(0, extent - SAMPLE_SIDE) // 2 for extent in image.shape[:2])
    cut = image[top : top + SAMPLE_SIDE, left : left + SAMPLE_SIDE]
    lacking = [(0, SAMPLE_SIDE - side) for side in cut.shape[:2]]
    return np.pad(cut, [*lacking, (0, 0)])


def sheet(rows: Sequence[Sequence[Image8]]) -> Image8:
    """Returns one picture of rows of pictures, all of one size."""
    return np.concatenate([np.concatenate(row, axis=1) for row in rows], axis=0)


def save_samples(path: Path, samples: Image8) -> None:
    """Writes a sheet as PNG."""
    images.write(path, Picture(samples[..., 0] if samples.shape[2] == 1 else samples))
