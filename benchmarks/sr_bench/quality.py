"""Image quality by the usual protocol.

PSNR, SSIM and MSE of the Y channel and of RGB, with a border of `scale` pixels excluded and output
rounded to 8 bits. Nearest, bilinear and bicubic interpolation are measured as references.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from PIL import Image

from sr_bench.records import Method, Score
from sr_deploy import images
from sr_deploy.bundle.manifest import Precision
from sr_deploy.errors import InvalidInputError, NotFoundError
from sr_export.metrics import luma, psnr, ssim
from sr_export.scene import Scene

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from sr_bench.records import Configuration

    Pixels = NDArray[np.uint8]
    Upscale = Callable[[Pixels], NDArray[Any]]

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
_SSIM_WINDOW = 11


@dataclass(frozen=True)
class ImagePair:
    """The files of a ground truth and its low-resolution image; None: made from the former."""

    truth: Path
    low: Path | None


def pairs(ground_truth: Path, low_resolution: Path | None, scale: int) -> list[ImagePair]:
    """Return the images of a folder, each with its low-resolution file.

    The low-resolution file has the same name, or the name with the scale: `babyx2.png` for
    `baby.png` at scale 2.

    Raises:
        NotFoundError: A folder or a low-resolution file does not exist.
        InvalidInputError: The folder contains no images.
    """
    truths = _images(ground_truth)
    if low_resolution is None:
        return [ImagePair(truth, None) for truth in truths]
    by_stem = {path.stem: path for path in _images(low_resolution)}
    found = []
    for truth in truths:
        names = (truth.stem, f"{truth.stem}x{scale}")
        low = next((by_stem[name] for name in names if name in by_stem), None)
        if low is None:
            raise NotFoundError(
                f"{low_resolution}: no low-resolution file for {truth.name}; expected "
                f"{names[0]} or {names[1]} with any image suffix"
            )
        found.append(ImagePair(truth, low))
    return found


def measure(
    networks: Mapping[Configuration, Upscale],
    chosen: list[ImagePair],
    scale: int,
    name: str,
    step: Callable[[str], None],
    scenes: list[Scene] | None = None,
) -> tuple[Method, ...]:
    """Score interpolation filters, and a network in one or more precisions.

    Args:
        networks: Each takes H,W,3 uint8 and returns the same, enlarged by `scale`.
        chosen: The images, from `pairs`.
        scale: Scale of the network.
        name: Name of the network.
        step: Called with the name of each finished image.
        scenes: Receives the images and outputs for a page; one of the networks must then compute
            in FP32.

    Raises:
        InvalidInputError: An image is not 8-bit gray or RGB, is too small, or has the wrong size.
    """
    filters: dict[str, dict[str, Score]] = {each: {} for each in FILTERS}
    scores: dict[Configuration, dict[str, Score]] = {each: {} for each in networks}
    distances: dict[Configuration, dict[str, float | None]] = {each: {} for each in networks}
    exact = next((each for each in networks if each.precision == "fp32"), None)
    for pair in chosen:
        image = pair.truth.name
        low, truth = load(pair, scale)
        size = (truth.shape[1], truth.shape[0])
        for each, kernel in FILTERS.items():
            filters[each][image] = score(truth, resize(low, size, kernel), scale)
        outputs = {each: upscale(low) for each, upscale in networks.items()}
        for contender, output in outputs.items():
            scores[contender][image] = score(truth, output, scale)
            if exact is not None:
                distances[contender][image] = _finite(psnr(outputs[exact], output))
        if scenes is not None:
            scenes.append(_scene(image, low, outputs, truth))
        step(image)
    single = len(networks) == 1
    return (
        *(Method(each, found) for each, found in filters.items()),
        *(
            Method(
                name if single else f"{name} {contender.precision.upper()}",
                found,
                contender,
                None if exact in (None, contender) else distances[contender],
            )
            for contender, found in scores.items()
        ),
    )


def _scene(
    name: str, low: Pixels, outputs: Mapping[Configuration, NDArray[Any]], truth: Pixels
) -> Scene:
    """Return the images for a page; one of the networks computes in FP32."""
    shown: dict[Precision, Pixels] = {
        precision: output
        for contender, output in outputs.items()
        for precision in get_args(Precision)
        if precision == contender.precision
    }
    return Scene(name, low, shown, truth)


def resize(image: Pixels, size: tuple[int, int], kernel: Image.Resampling) -> Pixels:
    """Resize H,W,C to (width, height); downscaling is antialiased, as in MATLAB's imresize.

    Pillow rounds 8-bit images after each direction; float planes are rounded once, at the end.
    """
    planes = [Image.fromarray(image[..., i].astype(np.float32)) for i in range(image.shape[2])]
    resized = np.stack([np.asarray(plane.resize(size, kernel)) for plane in planes], axis=2)
    return np.clip(np.rint(resized), 0, 255).astype(np.uint8)


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise NotFoundError(f"{folder}: no such folder")
    found = sorted(path for path in folder.iterdir() if images.could_be_image(path))
    if not found:
        raise InvalidInputError(f"{folder}: contains no images")
    return found


def load(pair: ImagePair, scale: int) -> tuple[Pixels, Pixels]:
    """Return a low-resolution image and its ground truth, cropped to a multiple of the scale."""
    truth = _rgb(pair.truth)
    height, width = (side // scale for side in truth.shape[:2])
    if scale * (min(height, width) - 2) < _SSIM_WINDOW:
        raise InvalidInputError(
            f"{pair.truth}: {_size(truth)} is too small for SSIM, which needs at least "
            f"{_SSIM_WINDOW + 2 * scale} pixels per side at scale {scale}"
        )
    truth = truth[: height * scale, : width * scale]
    if pair.low is None:
        return resize(truth, (width, height), FILTERS["bicubic"]), truth
    low = _rgb(pair.low)
    if low.shape[:2] != (height, width):
        raise InvalidInputError(
            f"{pair.low}: {_size(low)}; at scale {scale}, {pair.truth.name} needs "
            f"{width}x{height}. Is this the folder for scale {scale}?"
        )
    return low, truth


def _rgb(path: Path) -> Pixels:
    pixels: NDArray[Any] = images.read(path).pixels
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.uint8 or channels not in (1, 3):
        raise InvalidInputError(
            f"{path}: {channels} channels of {pixels.dtype}; the protocol needs 8-bit gray or RGB"
        )
    return pixels if channels == 3 else np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)


def _size(image: Pixels) -> str:
    return f"{image.shape[1]}x{image.shape[0]}"


def score(truth: Pixels, candidate: NDArray[Any], scale: int) -> Score:
    """Compare an RGB image with the ground truth, H,W,3 uint8 both."""
    height, width = truth.shape[:2]
    inner = np.s_[scale : height - scale, scale : width - scale]
    truth, candidate = truth[inner], candidate[inner]
    y_truth, y_candidate = luma(truth), luma(candidate)
    return Score(
        psnr=_finite(psnr(y_truth, y_candidate)),
        ssim=ssim(y_truth, y_candidate),
        mse=_mse(y_truth, y_candidate),
        rgb_psnr=_finite(psnr(truth, candidate)),
        rgb_ssim=float(np.mean([ssim(truth[..., i], candidate[..., i]) for i in range(3)])),
        rgb_mse=_mse(truth, candidate),
    )


def _mse(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.mean(np.square(np.subtract(a, b, dtype=np.float64))))


def _finite(decibels: float) -> float | None:
    return decibels if math.isfinite(decibels) else None
