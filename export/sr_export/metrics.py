"""PSNR and SSIM as published for super-resolution.

The protocol of the published tables: the Y channel of BT.601 in studio swing, a border of `scale`
pixels removed, PSNR with a peak of 255, SSIM as defined by Wang et al. in 2004 (11x11 Gaussian
window, valid region only). Needs numpy only.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["luma", "psnr", "ssim", "y_psnr", "y_ssim"]

_SSIM_WINDOW = 11
_SSIM_SIGMA = 1.5
_SSIM_K1 = 0.01
_SSIM_K2 = 0.03


def psnr(a: NDArray[Any], b: NDArray[Any], peak: float = 255.0) -> float:
    """Return the peak signal-to-noise ratio of two arrays in dB, infinite for equal ones.

    Args:
        a: Any shape with at least one element, any real dtype.
        b: The same shape as `a`; its dtype may differ.
        peak: The largest possible value, on the scale of `a` and `b`.

    Raises:
        ValueError: The shapes differ, the arrays are empty, or the peak is not positive.
    """
    _require_same_shape(a, b)
    if a.size == 0:
        raise ValueError(f"the arrays are empty (shape {a.shape}); expected at least one element")
    if not peak > 0:
        raise ValueError(f"peak is {peak}; expected a number above 0")
    error = float(np.mean(np.square(np.subtract(a, b, dtype=np.float64))))
    return math.inf if error == 0.0 else 10.0 * math.log10(peak * peak / error)


def luma(rgb: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Return the Y channel (BT.601, studio swing: 16 to 235) of an RGB image, not rounded.

    Args:
        rgb: H x W x 3, uint8, full range.

    Returns:
        H x W, float64: MATLAB's `rgb2ycbcr` before rounding.

    Raises:
        ValueError: The image is not H x W x 3, or not uint8.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3:
        raise ValueError(f"the image has shape {rgb.shape}; expected H x W x 3 (RGB)")
    if rgb.dtype != np.uint8:
        raise ValueError(f"the image has dtype {rgb.dtype}; expected uint8")
    weights = np.array([65.481, 128.553, 24.966]) / 255.0
    return np.asarray(16.0 + rgb @ weights, dtype=np.float64)


def ssim(a: NDArray[Any], b: NDArray[Any], peak: float = 255.0) -> float:
    """Return the mean structural similarity of two planes; 1 for equal ones.

    Args:
        a: H x W, any real dtype, both sides at least 11.
        b: The same shape as `a`.
        peak: The largest possible value, on the scale of `a` and `b`.

    Raises:
        ValueError: The shapes differ, a plane is not two-dimensional or smaller than the window,
            or the peak is not positive.
    """
    _require_same_shape(a, b)
    if a.ndim != 2:
        raise ValueError(f"the planes have shape {a.shape}; expected H x W")
    if min(a.shape) < _SSIM_WINDOW:
        raise ValueError(
            f"the planes have shape {a.shape}; expected sides of at least {_SSIM_WINDOW}"
        )
    if not peak > 0:
        raise ValueError(f"peak is {peak}; expected a number above 0")
    x = np.asarray(a, dtype=np.float64)
    y = np.asarray(b, dtype=np.float64)
    c1 = (_SSIM_K1 * peak) ** 2
    c2 = (_SSIM_K2 * peak) ** 2
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x = _smooth(x * x) - mean_x * mean_x
    var_y = _smooth(y * y) - mean_y * mean_y
    covariance = _smooth(x * y) - mean_x * mean_y
    similarity = (2.0 * mean_x * mean_y + c1) * (2.0 * covariance + c2)
    similarity /= (mean_x * mean_x + mean_y * mean_y + c1) * (var_x + var_y + c2)
    return float(similarity.mean())


def y_psnr(reference: NDArray[np.uint8], candidate: NDArray[np.uint8], shave: int) -> float:
    """Return the PSNR in dB of the Y channel without the border, as in papers.

    Args:
        reference: H x W x 3, uint8 RGB.
        candidate: H x W x 3, uint8 RGB, the same shape as `reference`.
        shave: Width of the border to remove; papers use the scale.

    Raises:
        ValueError: The shapes or dtypes are not as above, or the shave leaves nothing.
    """
    return psnr(*_shaved_lumas(reference, candidate, shave))


def y_ssim(reference: NDArray[np.uint8], candidate: NDArray[np.uint8], shave: int) -> float:
    """Return the SSIM of the Y channel without the border.

    Args:
        reference: H x W x 3, uint8 RGB.
        candidate: H x W x 3, uint8 RGB, the same shape as `reference`.
        shave: Width of the border to remove; papers use the scale.

    Raises:
        ValueError: The shapes or dtypes are not as above, or the shave leaves less than 11 x 11.
    """
    return ssim(*_shaved_lumas(reference, candidate, shave))


def _require_same_shape(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"the shapes differ: {a.shape} and {b.shape}")


def _shaved_lumas(
    reference: NDArray[np.uint8], candidate: NDArray[np.uint8], shave: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the Y channels of two H x W x 3 uint8 images without their borders."""
    _require_same_shape(reference, candidate)
    if reference.ndim != 3:
        raise ValueError(f"the images have shape {reference.shape}; expected H x W x 3 (RGB)")
    height, width = reference.shape[:2]
    limit = (min(height, width) - 1) // 2
    if not 0 <= shave <= limit:
        raise ValueError(f"shave is {shave}; allowed: 0 to {limit} for {width}x{height} pixels")
    inner = np.s_[shave : height - shave, shave : width - shave]
    return luma(reference[inner]), luma(candidate[inner])


def _smooth(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Filter an H x W plane with the Gaussian window; return the valid (H-10) x (W-10) part."""
    offsets = np.arange(_SSIM_WINDOW) - _SSIM_WINDOW // 2
    taps = np.exp(-np.square(offsets) / (2.0 * _SSIM_SIGMA**2))
    taps /= taps.sum()
    # The Gaussian is separable: 22 multiplications per pixel instead of 121.
    rows = np.lib.stride_tricks.sliding_window_view(plane, _SSIM_WINDOW, axis=0) @ taps
    both = np.lib.stride_tricks.sliding_window_view(rows, _SSIM_WINDOW, axis=1) @ taps
    return np.asarray(both, dtype=np.float64)
