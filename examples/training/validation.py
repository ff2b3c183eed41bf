"""Validation: PSNR and SSIM on held-out photos, and images to compare by eye."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.training.dataset import PhotoCache, to_tensor
from sr_deploy import images
from sr_deploy.images import Picture
from sr_export import metrics

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from examples.training.dataset import Photo
    from examples.training.degradation import Degradation

    Image8 = NDArray[np.uint8]

# High-resolution side of the center crops: validation is frequent, so it must be fast.
SIDE = 512
SAMPLE_SIDE = 192
MAX_PHOTOS = 20
MAX_SAMPLES = 4


@dataclass(frozen=True)
class ValidationResult:
    """Means over the photos, of the Y channel in 8 bits."""

    psnr: float
    ssim: float
    samples: Image8
    """One row per photo: enlarged low resolution, output, ground truth."""

    def save_samples(self, path: Path) -> None:
        """Write the samples as PNG."""
        gray = self.samples.shape[2] == 1
        images.write(path, Picture(self.samples[..., 0] if gray else self.samples))


class Validation:
    """Fixed pairs of low and high resolution to score networks on.

    Args:
        photos: Of more than `MAX_PHOTOS`, an evenly spaced subset is used.
        scale: The network's scale.
        channels: The network's channels.
        degradation: Makes the low resolution of photos without a low-resolution file.
    """

    def __init__(
        self, photos: Sequence[Photo], *, scale: int, channels: int, degradation: Degradation
    ) -> None:
        self._scale = scale
        cache = PhotoCache(channels, limit=0)
        chosen = photos[:: -(-len(photos) // MAX_PHOTOS)]
        self._pairs = [
            self._pair(photo, cache, degradation, np.random.default_rng(number))
            for number, photo in enumerate(chosen)
        ]

    def score(self, network: nn.Module) -> ValidationResult:
        """Return the scores of a network in eval mode."""
        device = next(network.parameters()).device
        scores, samples = [], []
        for low, high in self._pairs:
            with torch.inference_mode():
                result = network(low[None].to(device))[0].float().cpu()
            output, truth = _to_bytes(result), _to_bytes(high)
            scores.append(_psnr_and_ssim(truth, output, self._scale))
            enlarged = functional.interpolate(low[None], scale_factor=float(self._scale))[0]
            samples.append([_center(each) for each in (_to_bytes(enlarged), output, truth)])
        psnr, ssim = np.mean(scores, axis=0)
        rows = [np.concatenate(row, axis=1) for row in samples[:MAX_SAMPLES]]
        return ValidationResult(float(psnr), float(ssim), np.concatenate(rows, axis=0))

    def _pair(
        self, photo: Photo, cache: PhotoCache, degrade: Degradation, random: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Return the center of a photo in low and high resolution."""
        pixels = cache.read(photo.high)
        size = [side // self._scale for side in pixels.shape[:2]]
        side = min(SIDE // self._scale, *size)
        top, left = ((extent - side) // 2 for extent in size)
        inner = (slice(top, top + side), slice(left, left + side))
        outer = tuple(slice(self._scale * at.start, self._scale * at.stop) for at in inner)
        high = to_tensor(pixels[outer])
        if photo.low:
            return to_tensor(cache.read(photo.low)[inner]), high
        return degrade(high, self._scale, random), high


def _psnr_and_ssim(truth: Image8, output: Image8, border: int) -> tuple[float, float]:
    """Return PSNR and SSIM of the Y channel without the border, as papers report them."""
    if truth.shape[2] == 3:
        return metrics.y_psnr(truth, output, border), metrics.y_ssim(truth, output, border)
    inner = np.s_[border:-border, border:-border, 0]
    return metrics.psnr(truth[inner], output[inner]), metrics.ssim(truth[inner], output[inner])


def _to_bytes(image: Tensor) -> Image8:
    """Convert C x H x W in [0, 1] to H x W x C, uint8."""
    levels = image.clamp(0, 1).mul(255).round().byte()
    return np.ascontiguousarray(levels.permute(1, 2, 0).numpy())


def _center(image: Image8) -> Image8:
    """Return the center of an image, padded to `SAMPLE_SIDE` if it is smaller."""
    top, left = (max(0, extent - SAMPLE_SIDE) // 2 for extent in image.shape[:2])
    cut = image[top : top + SAMPLE_SIDE, left : left + SAMPLE_SIDE]
    missing = [(0, SAMPLE_SIDE - side) for side in cut.shape[:2]]
    return np.pad(cut, [*missing, (0, 0)])
